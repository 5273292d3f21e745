"""A place of its own for a whole agent: network and mounts apart from the machine's. It outlives the agent.

Place     the namespaces; everything left in them is killed at the end
Agent     `thimble.app`, watched by `blocking`: started and killed in a place, again and again
entered   the calling thread talks to the place's network inside this block
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import blocking
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Login, Role, Session, TokenCreate
from thimble.vm.startup import cgroup_root

PASSWORD = "correct horse battery"
PORT = 8443

#: A /sys of the own network, with the machine's control groups below it.
SETUP = """
set -e
mkdir -p "$1/cgroup"
mount --make-rprivate /
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs none /sys
mount --rbind "$1/cgroup" /sys/fs/cgroup
ip link set lo up
echo ready
exec sleep infinity
"""

CLONE_NEWNET = 0x40000000


def until(what: str, condition: Callable[[], Any], timeout: float = 60.0, pace: float = 0.1) -> Any:
    """What `condition` answers as soon as that is true; it is asked again and again until `timeout`."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(pace)
    return answer


def _network(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _gone(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


class Place:
    """Namespaces held open by a process that sleeps."""

    def __init__(self, base: Path) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", SETUP, "sh", str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"
        self.network = _network(self.holder.pid)

    def argv(self, *argv: str) -> list[str]:
        """The argument vector that runs `argv` in here."""
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", *argv]

    def pids(self) -> list[int]:
        """Who lives in here, but for the holder."""
        found = []
        for entry in (path.name for path in Path("/proc").iterdir() if path.name.isdigit()):
            with suppress(OSError):
                if _network(int(entry)) == self.network and int(entry) != self.holder.pid:
                    found.append(int(entry))
        return [pid for pid in found if pid != os.getpid()]

    def qemus(self) -> list[int]:
        """The QEMUs among them."""
        found = []
        for pid in self.pids():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"-uuid" in words and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2]:
                    found.append(pid)
        return found

    def links(self) -> set[str]:
        """The names of its network's links."""
        said = subprocess.run(self.argv("ip", "-j", "link"), check=True, capture_output=True).stdout
        return {link["ifname"] for link in json.loads(said)}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, has the place's network inside the block."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.holder.pid}/ns/net") as theirs:
            assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0

    def close(self) -> None:
        """Kill everything in here."""
        if self.holder.poll() is not None:
            return
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.holder.kill()
        self.holder.wait()


class Agent:
    """One agent and its state. `start` returns when its API answers; `url` is the same each time."""

    url = f"https://127.0.0.1:{PORT}"

    def __init__(self, place: Place, base: Path, *, qemu_dir: Path, share: Path) -> None:
        self.place = place
        self.base = base
        self.state = base / "state"
        self.run = base / "run"
        self.log = base / "agent.log"
        self.password_file = base / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self.blocked = base / "blocking"  # what has held up its loop
        self.qemu_dir = qemu_dir
        self.share = share
        self.process: subprocess.Popen[bytes] | None = None
        self.fingerprint = ""
        self._token = ""

    def argv(self) -> list[str]:
        """How it is started."""
        return self.place.argv(
            sys.executable, blocking.__file__,
            "--hosted", "yes",
            "--state", str(self.state),
            "--run", str(self.run),
            "--listen", f"127.0.0.1:{PORT}",
            "--qemu-dir", str(self.qemu_dir),
            "--share", str(self.share),
            "--password-file", str(self.password_file),
        )  # fmt: skip

    def start(self, **environment: str) -> None:
        """Returns when it is ready."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "THIMBLE_BLOCKING_FILE": str(self.blocked), **environment},
            )

        def ready() -> re.Match[bytes] | None:
            assert self.process is not None
            said = self.log.read_bytes()[before:]
            assert self.process.poll() is None, said.decode(errors="replace")
            return re.search(rb"certificate SHA-256 ([0-9a-f]{64})\n", said)

        found = until("the agent is ready", ready, 30)
        self.fingerprint = found[1].decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def forget_groups(self) -> None:
        """Remove the control groups its VMs had; when all is over."""
        root = cgroup_root(self.run)
        if root is None or not root.is_dir():
            return
        for group in (*sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True), root):
            until(f"{group} is empty and gone", lambda group=group: _gone(group), 10)  # type: ignore[misc]

    def token(self) -> str:
        """One that outlives the agent, as a session does not; inside `entered` only."""
        if not self._token:
            with Client(self.url, trust=Trust(fingerprint=self.fingerprint), timeout=60) as client:
                session: Session = client.call("session.create", Login(user="admin", password=PASSWORD))
                client.token = session.token
                made: Session = client.call("token.create", TokenCreate(name="tests", role=Role.ADMIN))
            self._token = made.token
        return self._token

    def client(self) -> Client:
        """A client signed in; inside `entered` only."""
        return Client(self.url, trust=Trust(fingerprint=self.fingerprint), token=self.token(), timeout=60)


class Cli:
    """The real command in a process of its own, with a token for an agent and no profiles."""

    def __init__(self, agent: Agent) -> None:
        self.environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(agent.base / "config"),
            "THIMBLE_HOST": agent.url,
            "THIMBLE_FINGERPRINT": agent.fingerprint,
            "THIMBLE_TOKEN": agent.token(),
        }

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "thimble.cli.main", *words]

    def __call__(
        self, *words: str, input: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ok(self, *words: str, **options: Any) -> str:
        """Its standard output; it must not fail."""
        told = self(*words, **options)
        assert told.returncode == 0, f"thimble {' '.join(words)}: {told.stderr}"
        return told.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "--json"))


class Typist:
    """Somebody at a console by the command line: reads until something is said, types."""

    def __init__(self, cli: Cli, vm: str) -> None:
        self.process = subprocess.Popen(
            cli.argv("vm", "console", vm), env=cli.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.seen = b""

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def sees(self, wanted: bytes, timeout: float = 60) -> bytes:
        """All that was said until `wanted`, which is consumed."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while wanted not in self.seen:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert piece, f"no {wanted!r} in {self.seen[-2000:]!r}{self._complaint()}"
            self.seen += piece
        said, _, self.seen = self.seen.partition(wanted)
        return said + wanted

    def _complaint(self) -> str:
        """What the command line said of itself, if it has ended."""
        if self.process.poll() is None or self.process.stderr is None:
            return ""
        return f"; it ended with {self.process.returncode}: {self.process.stderr.read()!r}"

    def types(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()
