"""Command lines against a fake host: what is asked, what is printed, how they end."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from thimble.contract.common import DryRun, Effect, Event, Task, TaskState
from thimble.contract.host import Role
from thimble.contract.host import Session as Granted
from thimble.contract.network import Switch, SwitchKind, SwitchList
from thimble.contract.storage import Image
from thimble.contract.verbs import Started
from thimble.contract.vm import (
    Autostart,
    CdromView,
    ConsoleLog,
    CrashPolicy,
    DiskBus,
    DiskFormat,
    DiskView,
    Firmware,
    Intent,
    Machine,
    NicModel,
    NicView,
    PowerState,
    Vm,
    VmList,
    VmStatus,
    VmSummary,
)
from thimble.core.problem import TABLE, Code, Problem, Reason

DONE = Task(id="task-1", verb="vm.create", subject="vm-1", state=TaskState.DONE, progress=1.0)
GIB = 1024**3


def vm(state: PowerState = PowerState.RUNNING, **more: Any) -> Vm:
    fields: dict[str, Any] = {
        "id": "vm-7k3m9q2d", "rev": 3, "name": "web1", "description": "", "datastore": "local", "vcpus": 2,
        "memory_mib": 1024, "machine": Machine.Q35, "firmware": Firmware.UEFI, "direct": None, "cpu": "host",
        "disks": (DiskView(name="disk0", volume="local/vm-7k3m9q2d.disk0", size_bytes=10 * GIB,
                           format=DiskFormat.QCOW2, bus=DiskBus.VIRTIO, read_only=False, address="00:02.0"),),
        "nics": (NicView(name="nic0", switch="nat", mac="52:54:00:00:00:01", model=NicModel.VIRTIO,
                         address="00:03.0", ip=("192.168.77.5",)),),
        "cdroms": (CdromView(name="cd0", image=None, address="00:1f.2"),),
        "rng": True, "balloon": True, "serial": True, "vga": False, "tablet": False, "guest_agent": True,
        "seed": None, "autostart": Autostart(enabled=True, order=10), "on_crash": CrashPolicy.RESTART,
        "intent": Intent.RUNNING, "status": VmStatus(state=state, since=0.0, accel="tcg", pid=4711),
        "allowed": ("stop", "kill"),
    } | more  # fmt: skip
    return Vm(**fields)


def summary(name: str, state: PowerState, why: str = "", ip: tuple[str, ...] = ()) -> VmSummary:
    return VmSummary(
        id="vm-1", rev=1, name=name, vcpus=2, memory_mib=1024, intent=Intent.RUNNING, state=state, why=why,
        ip=ip, allowed=(),
    )  # fmt: skip


def started(verb: str = "vm.create") -> Started:
    return Started(task=msgspec.structs.replace(DONE, verb=verb), subject="vm-1")


LISTED = VmList(
    rev=7,
    vms=(
        summary("web1", PowerState.RUNNING, ip=("192.168.77.5",)),
        summary("a-database-with-a-rather-long-name", PowerState.CRASHED, "QEMU was killed by signal 9"),
    ),
)


GOLDEN = (
    "NAME                     STATE    CPUS  MEMORY  ADDRESS       NOTE\n"
    "web1                     running     2   1 GiB  192.168.77.5\n"
    "a-database-with-a-rath…  crashed     2   1 GiB                QEMU was killed b…\n"
)


def test_the_list_fits_eighty_columns(host, thimble, monkeypatch) -> None:
    host.answers["vm.list"] = LISTED
    monkeypatch.setattr("thimble.cli.vm.width", lambda: 80)
    shown = thimble("vm", "list").out
    assert shown == GOLDEN
    assert max(map(len, shown.splitlines())) == 80


def test_a_pipe_gets_every_character(host, thimble) -> None:
    host.answers["vm.list"] = LISTED
    assert "a-database-with-a-rather-long-name  crashed" in thimble("vm", "list").out


def test_json_is_the_wires_own(host, thimble) -> None:
    host.answers["vm.list"] = LISTED
    for words in (("--json", "vm", "list"), ("vm", "list", "--json")):
        assert msgspec.json.decode(thimble(*words).out, type=VmList) == LISTED


def test_show_tells_everything_about_a_vm(host, thimble) -> None:
    host.answers["vm.get"] = vm()
    assert thimble("vm", "show", "web1").out == (
        "name       web1\n"
        "id         vm-7k3m9q2d, revision 3\n"
        "state      running, tcg\n"
        "intent     running\n"
        "CPU        2 × host\n"
        "memory     1 GiB\n"
        "machine    q35, uefi firmware\n"
        "datastore  local\n"
        "disks      disk0: 10 GiB qcow2 on virtio, local/vm-7k3m9q2d.disk0\n"
        "NICs       nic0: 52:54:00:00:00:01 on nat, virtio, 192.168.77.5\n"
        "CD-ROMs    cd0: empty\n"
        "devices    rng, balloon, serial, guest agent\n"
        "autostart  order 10\n"
        "on crash   restart\n"
        "host down  shutdown\n"
        "QEMU       process 4711\n"
        "possible   stop, kill\n"
    )


def test_create_turns_options_into_a_spec(host, thimble, tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    host.answers |= {"vm.create": started(), "vm.get": vm()}
    line = thimble(
        "vm", "create", "web1", "--cpus", "2", "--memory", "1G", "--disk", "10G,image=debian.qcow2",
        "--nic", "nat", "--ssh-key", str(key), "--hostname", "www", "--autostart", "--autostart-order", "5",
        "--without", "vga", "--start",
    )  # fmt: skip
    assert line.code == 0
    assert line.out == "created web1: running, 2 vCPUs, 1 GiB, 192.168.77.5\n"
    sent = host.body("vm.create")
    assert (sent["name"], sent["vcpus"], sent["memory_mib"], sent["start"]) == ("web1", 2, 1024, True)
    assert sent["disks"][0]["size_bytes"] == 10 * GIB
    assert sent["disks"][0]["image"] == "debian.qcow2"
    assert sent["nics"][0]["switch"] == "nat"
    assert sent["seed"]["ssh_keys"] == ["ssh-ed25519 AAAA me"]
    assert sent["autostart"] == {"enabled": True, "order": 5, "delay_s": 0.0}
    assert sent["vga"] is False
    assert sent["firmware"] == "uefi"
    request = next(request for name, request in host.asked if name == "vm.create")
    assert len(request.headers["idempotency-key"]) == 32
    assert request.headers["authorization"] == "Bearer t0k3n"


def test_a_kernel_means_direct_boot(host, thimble) -> None:
    host.answers |= {"vm.create": started(), "vm.get": vm()}
    thimble("vm", "create", "t", "--kernel", "vmlinuz", "--initrd", "initrd", "--cmdline", "console=ttyS0")
    sent = host.body("vm.create")
    assert sent["firmware"] == "direct"
    assert sent["direct"] == {"kernel": "vmlinuz", "initrd": "initrd", "cmdline": "console=ttyS0"}


def test_what_is_typed_beats_the_file(host, thimble, tmp_path: Path) -> None:
    spec = tmp_path / "web.toml"
    spec.write_text('name = "fromfile"\nmemory_mib = 256\n[autostart]\nenabled = true\norder = 7\n')
    host.answers |= {"vm.create": started(), "vm.get": vm()}
    thimble("vm", "create", "typed", "--file", str(spec), "--autostart-delay", "2")
    sent = host.body("vm.create")
    assert (sent["name"], sent["memory_mib"]) == ("typed", 256)
    assert sent["autostart"] == {"enabled": True, "order": 7, "delay_s": 2.0}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"name": "x", "colour": "red"}', "colour"),
        ('{"name": 7}', "$.name"),
        ("{", "cannot read"),
        ("{}", "a name"),
    ],
)
def test_a_file_that_is_wrong_is_refused_before_the_host_is_asked(
    host, thimble, tmp_path: Path, content: str, says: str
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(content)
    line = thimble("vm", "create", "--file", str(spec))
    assert line.code == 2
    assert says in line.err
    assert host.asked == []


def test_a_private_key_never_leaves(host, thimble, tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    line = thimble("vm", "create", "x", "--ssh-key", str(key))
    assert line.code == 2
    assert "private key" in line.err
    assert host.asked == []


def test_a_change_keeps_the_devices_it_does_not_name(host, thimble) -> None:
    host.answers |= {"vm.get": vm(), "vm.change": started("vm.change")}
    line = thimble("vm", "change", "web1", "--memory", "2G", "--add-disk", "5G", "--insert", "debian.iso")
    assert line.code == 0
    sent = host.body("vm.change")
    assert set(sent) == {"memory_mib", "disks", "cdroms"}
    assert [disk["name"] for disk in sent["disks"]] == ["disk0", ""]
    assert sent["disks"][0]["volume"] == "local/vm-7k3m9q2d.disk0"
    assert sent["cdroms"][0]["image"] == "debian.iso"
    request = next(request for name, request in host.asked if name == "vm.change")
    assert request.headers["if-match"] == '"3"'


def test_a_nic_is_removed_by_its_name(host, thimble) -> None:
    host.answers |= {"vm.get": vm(), "vm.change": started("vm.change")}
    thimble("vm", "change", "web1", "--remove-nic", "nic0")
    sent = host.body("vm.change")
    assert sent == {"nics": []}


def test_a_change_of_nothing_is_refused(host, thimble) -> None:
    host.answers["vm.get"] = vm()
    line = thimble("vm", "change", "web1")
    assert (line.code, host.verbs) == (2, ["vm.get"])


def test_a_dry_run_names_effects_and_blockers_and_changes_nothing(host, thimble) -> None:
    host.answers["vm.create"] = DryRun(
        possible=False,
        effects=(Effect(what="creates volume local/x.disk0 (10 GiB)"),),
        blockers=(Reason(message="only 3 GiB are free", code=Code.NO_SPACE, path="$.disks[0].size_bytes"),),
    )
    line = thimble("vm", "create", "x", "--dry-run", "--disk", "10G")
    assert host.query("vm.create") == {"dry_run": "1"}
    assert host.verbs == ["vm.create"]
    assert line.code == TABLE[Code.NO_SPACE][1]
    assert line.out == (
        "this would happen:\n"
        "  creates volume local/x.disk0 (10 GiB)\n"
        "not possible:\n"
        "  $.disks[0].size_bytes: only 3 GiB are free\n"
    )


@pytest.mark.parametrize("code", list(Code))
def test_every_problem_ends_with_its_exit_code_and_no_trace(host, thimble, code: Code) -> None:
    host.answers["vm.get"] = Problem(code, "it is so", hint="do that")
    line = thimble("vm", "show", "web1")
    assert line.code == TABLE[code][1]
    assert line.err == f"error: it is so ({code})\nhint: do that\n"
    assert line.out == ""


def test_with_json_a_problem_is_its_document(host, thimble) -> None:
    host.answers["vm.get"] = Problem(Code.NOT_FOUND, "there is no VM 'x'")
    line = thimble("vm", "show", "x", "--json")
    assert json.loads(line.err)["code"] == "not-found"
    assert line.out == ""


def test_a_wrong_option_exits_two_and_is_json_when_asked(thimble) -> None:
    assert thimble("vm", "list", "--colour").code == 2
    line = thimble("vm", "list", "--colour", "--json")
    assert line.code == 2
    assert json.loads(line.err)["code"] == "malformed"


def test_our_own_fault_is_told_without_a_trace(host, thimble) -> None:
    host.answers["vm.list"] = lambda _: 1 / 0
    line = thimble("vm", "list")
    assert line.code == 70
    assert "Traceback" not in line.err
    assert "ZeroDivisionError" in line.err


def test_a_task_that_fails_after_a_while_fails_the_command(host, thimble) -> None:
    running = msgspec.structs.replace(DONE, state=TaskState.RUNNING, step="volumes", progress=0.0)
    failed = msgspec.structs.replace(
        running, state=TaskState.FAILED, problem=Problem(Code.NO_SPACE, "the datastore is full").document()
    )
    host.answers |= {"vm.start": Started(task=running, subject="vm-1"), "task.get": failed}
    line = thimble("vm", "start", "web1")
    assert line.code == TABLE[Code.NO_SPACE][1]
    assert line.err.startswith("vm.create volumes\n")
    assert "the datastore is full" in line.err


def test_quiet_says_nothing_at_all(host, thimble) -> None:
    running = msgspec.structs.replace(DONE, state=TaskState.RUNNING)
    host.answers |= {"vm.start": Started(task=running, subject="vm-1"), "task.get": DONE}
    line = thimble("vm", "start", "web1", "--quiet")
    assert (line.code, line.out, line.err) == (0, "", "")


def test_no_wait_answers_with_the_task(host, thimble) -> None:
    host.answers["vm.start"] = started("vm.start")
    assert thimble("vm", "start", "web1", "--no-wait").out == "task-1\n"
    assert host.verbs == ["vm.start"]


def test_stop_tells_the_guest_how_long_it_has(host, thimble) -> None:
    host.answers |= {"vm.stop": started("vm.stop"), "vm.get": vm(PowerState.STOPPED)}
    assert thimble("vm", "stop", "web1", "--timeout", "2m", "--force").code == 0
    assert host.body("vm.stop") == {"timeout_s": 120.0, "force": True}


@pytest.mark.parametrize("verb", ["start", "kill", "reset", "pause", "resume"])
def test_power_verbs_ask_for_themselves_and_tell_the_state(host, thimble, verb: str) -> None:
    host.answers |= {f"vm.{verb}": started(f"vm.{verb}"), "vm.get": vm()}
    assert thimble("vm", verb, "web1").out == "web1: running, 2 vCPUs, 1 GiB, 192.168.77.5\n"
    assert host.verbs == [f"vm.{verb}", "vm.get"]


def test_delete_keeps_the_volumes_when_told(host, thimble) -> None:
    host.answers["vm.delete"] = started("vm.delete")
    assert thimble("vm", "delete", "web1", "--keep-volumes").out == "web1: deleted\n"
    assert host.body("vm.delete") == {"keep_volumes": True}


def test_the_log_cannot_drive_the_terminal(host, thimble) -> None:
    host.answers["vm.log"] = ConsoleLog(text="\x1b[2Jhello\r\nworld\r\n", truncated=False)
    assert thimble("vm", "log", "web1").out == "[2Jhello\nworld\n"


def test_wait_follows_the_events_until_the_state_is_there(host, thimble) -> None:
    import httpx

    states = iter([PowerState.STARTING, PowerState.RUNNING])
    event = Event(rev=8, time=0.0, kind="vm.changed", subject="vm-7k3m9q2d")
    host.answers |= {
        "vm.list": LISTED,
        "vm.get": lambda _: vm(next(states)),
        "event.stream": httpx.Response(200, text=f"data: {msgspec.json.encode(event).decode()}\n\n"),
    }
    line = thimble("vm", "wait", "web1", "--for", "running", "--timeout", "5s")
    assert line.code == 0, line.err
    assert host.query("event.stream") == {"after": "7"}


def test_an_upload_is_checked_against_what_was_sent(host, thimble, tmp_path: Path) -> None:
    file = tmp_path / "debian.qcow2"
    file.write_bytes(b"x" * 300_000)

    def stored(digest: str) -> Image:
        return Image(
            name="local/debian.qcow2", datastore="local", format="qcow2", file_bytes=300_000, size_bytes=GIB,
            sha256=digest,
        )  # fmt: skip

    host.answers["image.upload"] = stored(hashlib.sha256(file.read_bytes()).hexdigest())
    assert thimble("disk", "image", "upload", str(file)).out == "uploaded local/debian.qcow2: qcow2, 1 GiB\n"
    assert host.asked[-1][1].url.path == "/api/v1/images/debian.qcow2"
    host.answers["image.upload"] = stored("00" * 32)
    assert thimble("disk", "image", "upload", str(file), "--as", "other/d").code == 1


def test_a_file_that_is_not_there_is_told(thimble) -> None:
    line = thimble("disk", "image", "upload", "/nonexistent/x")
    assert line.code == 2
    assert "No such file" in line.err


SWITCH = Switch(
    name="nat", rev=4, kind=SwitchKind.NAT, bridge="tb-nat", subnet="192.168.77.0/24", gateway="192.168.77.1",
    uplink="", forwards=(), ports=("web1/nic0",), leases=(), up=True, why="",
)  # fmt: skip


def test_switches_are_listed_and_their_forwards_changed(host, thimble) -> None:
    host.answers |= {
        "switch.list": SwitchList(rev=1, switches=(SWITCH,)),
        "switch.get": SWITCH,
        "switch.change": SWITCH,
    }
    assert thimble("net", "list").out == (
        "NAME  KIND  UP   SUBNET OR UPLINK  PORTS  FORWARDS  NOTE\n"
        "nat   nat   yes  192.168.77.0/24       1         0\n"
    )  # fmt: skip
    assert thimble("net", "change", "nat", "--forward", "2222:web1:22/tcp").code == 0
    assert host.body("switch.change")["forwards"] == [
        {"port": 2222, "vm": "web1", "to_port": 22, "protocol": "tcp"}
    ]


def test_a_token_is_alone_on_standard_output(host, thimble) -> None:
    host.answers["token.create"] = Granted(token="s3cret", user="ci", role=Role.OPERATOR, expires=9e9)
    line = thimble("token", "create", "ci", "--role", "operator", "--expires", "30d")
    assert line.out == "s3cret\n"
    assert host.body("token.create") == {"name": "ci", "role": "operator", "expires_s": 2592000.0}


def test_a_new_user_gets_the_password_of_the_file(host, thimble, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    host.answers["user.create"] = {"name": "ann", "rev": 1, "role": "operator"}
    line = thimble("user", "create", "ann", "--role", "operator", "--password-file", str(file))
    assert line.out == "created ann (operator)\n"
    assert host.body("user.create")["password"] == "correct horse"


def test_quiet_mutations_say_nothing_and_json_ones_their_value(host, thimble) -> None:
    host.answers |= {"vm.create": started(), "vm.get": vm(), "vm.delete": started("vm.delete")}
    assert thimble("vm", "create", "web1", "-q").out == ""
    assert json.loads(thimble("vm", "create", "web1", "--json").out)["name"] == "web1"
    assert json.loads(thimble("vm", "delete", "web1", "--json").out)["state"] == "done"


def test_a_guests_last_words_cannot_drive_the_terminal(host, thimble) -> None:
    status = VmStatus(
        state=PowerState.CRASHED, since=0.0, why="QEMU died", last_output="\x1b]0;owned\x07 end"
    )
    host.answers["vm.get"] = vm(status=status)
    assert "\x1b" not in thimble("vm", "show", "web1").out


def test_the_shell_completes_vm_names(host, location: Path) -> None:
    import httpx
    from click.shell_completion import ShellComplete

    from thimble.cli.main import cli
    from thimble.cli.session import CliSession

    host.answers["vm.list"] = LISTED
    session = CliSession(transport=httpx.MockTransport(host), location=location)
    complete = ShellComplete(cli, {"obj": session}, "thimble", "_THIMBLE_COMPLETE")
    assert [item.value for item in complete.get_completions(["vm", "start"], "we")] == ["web1"]
    assert "vm" in [item.value for item in complete.get_completions([], "")]


def test_the_image_is_inspected(thimble, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inspector:
        @staticmethod
        def inspect(path: Path) -> Any:
            class Found:
                @staticmethod
                def document() -> dict[str, object]:
                    return {"total_bytes": 7, "where": str(path)}

            return Found

        @staticmethod
        def lines(found: Any) -> list[str]:
            return ["total 7"]

    monkeypatch.setattr("thimble.cli.image.part", lambda name: Inspector)
    assert thimble("image", "inspect", "somewhere").out == "total 7\n"
    assert json.loads(thimble("image", "inspect", "somewhere", "--json").out) == {
        "total_bytes": 7,
        "where": "somewhere",
    }
