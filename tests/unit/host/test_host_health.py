"""What counts as not well, when it counts as well again, and who is told."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from thimble.contract.common import Event
from thimble.contract.hardware import Bmc, BmcEvent, DiskInfo, Level, Sensor, Smart, Time
from thimble.host import devices, sensors
from thimble.host.diagnosis import Mirror, Readings, Space, signs
from thimble.host.health import Watch, all_mirrors
from thimble.host.pid1 import Init
from thimble.host.probes import Probes
from thimble.state.events import Events


def told(before: frozenset[str] = frozenset(), **seen: Any) -> list[tuple[str, Level]]:
    return [(one.component, one.level) for one in signs(Readings(**seen), before)]


def sensor(value: float | None, level: Level = Level.OK, **more: Any) -> Sensor:
    given = {"warn": 80.0, "critical": 95.0, **more}
    return Sensor(
        name="Core 0", chip="coretemp", kind="temperature", value=value, unit="°C", level=level, **given
    )


def test_nothing_is_well() -> None:
    assert told() == []


def test_a_temperature_at_its_limit_has_to_cool_down_before_it_is_well() -> None:
    (hot,) = signs(Readings(sensors=(sensor(81.0, Level.WARNING),)))
    assert (hot.level, hot.reason) == (Level.WARNING, "81 °C (warning at 80, critical at 95)")
    keys = frozenset((hot.key,))
    assert told(keys, sensors=(sensor(79.0),)) == [(hot.component, Level.WARNING)]
    assert told(keys, sensors=(sensor(76.0),)) == []
    assert told(sensors=(sensor(79.0),)) == []


@pytest.mark.parametrize(
    ("smart", "level"),
    [
        (Smart(passed=True, worn=10), None),
        (Smart(passed=False, critical=("its spare blocks run out",)), Level.CRITICAL),
        (Smart(passed=True, worn=97), Level.WARNING),
        (Smart(why="it sleeps"), None),
        (None, None),
    ],
)
def test_a_disk_is_believed_what_it_says_of_itself(smart: Smart | None, level: Level | None) -> None:
    found = told(disks=(DiskInfo(name="serial:S1", device="/dev/sda", smart=smart),))
    assert found == ([("disk serial:S1", level)] if level else [])


def test_a_read_only_disk_is_told_and_an_empty_card_reader_is_not() -> None:
    fixed = DiskInfo(name="wwn:1", device="/dev/sda", read_only=True)
    assert told(disks=(fixed,)) == [("disk wwn:1", Level.WARNING)]
    assert told(disks=(msgspec.structs.replace(fixed, removable=True),)) == []


@pytest.mark.parametrize(
    ("free", "before", "level"),
    [
        (11, False, None),
        (9, False, Level.WARNING),
        (2, False, Level.CRITICAL),
        (11, True, Level.WARNING),
        (13, True, None),
    ],
)
def test_a_datastore_has_to_have_room(free: int, before: bool, level: Level | None) -> None:
    keys = frozenset(("space:local",)) if before else frozenset()
    found = told(keys, spaces=(Space(name="local", size_bytes=100, free_bytes=free),))
    assert found == ([("datastore local", level)] if level else [])


def test_a_datastore_that_does_not_answer_is_critical() -> None:
    assert told(spaces=(Space(name="nfs", why="it does not answer"),)) == [("datastore nfs", Level.CRITICAL)]


def test_the_worst_comes_first() -> None:
    found = told(
        warnings=("state is kept in RAM",),
        mirrors=(Mirror(name="md_state", missing=1),),
        uncorrected=1,
        corrected=3,
        pressure={"memory": 40.0, "cpu": 10.0},
    )
    assert found == [
        ("memory", Level.CRITICAL), ("host", Level.WARNING), ("memory", Level.WARNING),
        ("mirror md_state", Level.WARNING),
    ]  # fmt: skip


def test_the_clock_has_time_to_find_its_servers() -> None:
    lost = Time(now=1.0, synchronized=False, managed=True, why="no time server has been heard yet")
    assert told(time=lost, uptime_s=60.0) == []
    assert told(time=lost, uptime_s=3600.0) == [("clock", Level.WARNING)]
    assert told(time=msgspec.structs.replace(lost, managed=False), uptime_s=3600.0) == []
    off = Time(now=1.0, synchronized=True, managed=True, offset_s=-2.5)
    (one,) = signs(Readings(time=off, uptime_s=3600.0))
    assert one.reason == "it is 2.5 s off"


def event(id: int, what: str, *, asserted: bool = True, level: Level = Level.CRITICAL) -> BmcEvent:
    return BmcEvent(id=id, time=0.0, sensor="PSU1", what=what, asserted=asserted, level=level)


def test_what_the_bmc_took_back_is_well() -> None:
    bmc = Bmc(version="1", ipmi="2.0", manufacturer=0, product=0, events=(event(1, "failed"),))
    assert told(bmc=bmc) == [("BMC PSU1", Level.CRITICAL)]
    over = (event(1, "failed"), event(2, "no longer: failed", asserted=False, level=Level.OK))
    assert told(bmc=msgspec.structs.replace(bmc, events=over)) == []


def hwmon(root: Path, files: dict[str, str]) -> Path:
    chip = root / "sys/class/hwmon/hwmon0"
    chip.mkdir(parents=True, exist_ok=True)
    for name, text in {"name": "coretemp", **files}.items():
        (chip / name).write_text(text + "\n")
    return chip


def test_sensors_are_read_in_their_units(tmp_path: Path) -> None:
    chip = hwmon(
        tmp_path,
        {
            "temp1_input": "45000", "temp1_label": "Package id 0", "temp1_max": "80000",
            "temp1_crit": "95000",
            "fan1_input": "1200", "in0_input": "12096", "power1_average": "85000000", "temp2_input": "99000",
            "temp2_crit": "95000", "temp3_input": "-100000",
            "temp3_crit": "0", "fan2_input": "0", "fan2_fault": "1",
        },
    )  # fmt: skip
    found = {one.name: (one.value, one.unit, one.level) for one in sensors.sensors(chip)}
    assert found == {
        "Package id 0": (45.0, "°C", Level.OK),
        "temp2": (99.0, "°C", Level.CRITICAL),
        "temp3": (-100.0, "°C", Level.OK),
        "fan1": (1200.0, "rpm", Level.OK),
        "fan2": (0.0, "rpm", Level.WARNING),
        "in0": (12.096, "V", Level.OK),
        "power1": (85.0, "W", Level.OK),
    }


def test_a_sensor_that_errors_says_so_and_the_others_are_read(tmp_path: Path) -> None:
    chip = hwmon(tmp_path, {"temp1_input": "45000"})
    (chip / "temp2_input").mkdir()  # reading it fails, as a dead chip does
    good, bad = sensors.sensors(chip)
    assert (good.value, bad.value, bad.why) == (45.0, None, "Is a directory")


class Place:
    """A watch over a sample tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.heard: list[Event] = []
        self.lines: tuple[str, ...] = ()
        self.mounts: dict[str, Path] = {}
        self.events = Events(base=1, clock=lambda: 0.0)
        self.events.listen(self.heard.append)
        self.watch = Watch(
            init=Init(root),
            events=self.events,
            warnings=self._warnings,
            mounts=lambda: self.mounts,
            root=root,
        )

    async def _warnings(self) -> tuple[str, ...]:
        return self.lines

    def news(self) -> list[tuple[str, str]]:
        found = [(event.subject, event.detail["level"]) for event in self.heard]
        self.heard.clear()
        return found


def test_only_changes_are_told(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def work() -> None:
        await place.watch.look()
        assert place.news() == []
        hwmon(tmp_path, {"temp1_input": "85000", "temp1_max": "80000", "temp1_crit": "95000"})
        await place.watch.look()
        assert place.news() == [("sensor coretemp temp1", "warning")]
        since = place.watch.health.findings[0].since if place.watch.health else 0
        hwmon(tmp_path, {"temp1_input": "86000"})
        await place.watch.look()
        assert place.news() == []
        assert place.watch.health is not None and place.watch.health.findings[0].since == since
        hwmon(tmp_path, {"temp1_input": "96000"})
        await place.watch.look()
        assert place.news() == [("sensor coretemp temp1", "critical")]
        assert place.watch.health.level is Level.CRITICAL
        hwmon(tmp_path, {"temp1_input": "40000"})
        await place.watch.look()
        assert place.news() == [("sensor coretemp temp1", "ok")]

    asyncio.run(work())


def test_a_mirror_that_lacks_a_disk_is_seen(tmp_path: Path) -> None:
    md = tmp_path / "sys/block/md_state/md"
    md.mkdir(parents=True)
    (md / "degraded").write_text("1\n")
    (md / "sync_action").write_text("recover\n")
    (tmp_path / "sys/block/sda").mkdir()
    assert all_mirrors(tmp_path) == (Mirror(name="md_state", missing=1, recovering=True),)


def test_a_question_that_hangs_costs_one_thread_and_is_not_asked_again() -> None:
    release, asked = threading.Event(), []

    def hang() -> int:
        asked.append(1)
        release.wait(30)
        return 7

    async def work() -> None:
        probes = Probes()
        first = await probes.ask("disk", hang, timeout=0.05)
        assert (first.value, first.why) == (None, "it does not answer within 0 s")
        again = await probes.ask("disk", hang, timeout=0.05)
        assert (again.why, len(asked), probes.hanging) == ("it does not answer", 1, ("disk",))
        assert (await probes.ask("fan", lambda: 3, timeout=5)).value == 3
        release.set()
        while probes.hanging:
            await asyncio.sleep(0.01)
        assert (await probes.ask("disk", hang, timeout=5)).value == 7

    asyncio.run(work())


def test_an_error_is_an_answer() -> None:
    def fail() -> int:
        raise OSError(5, "Input/output error")

    answer = asyncio.run(Probes().ask("disk", fail, timeout=5))
    assert (answer.value, answer.why) == (None, "Input/output error")


def test_a_chip_that_does_not_answer_is_told_while_the_rest_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    place = Place(tmp_path)
    hwmon(tmp_path, {"temp1_input": "99000", "temp1_crit": "95000"})
    (tmp_path / "sys/class/hwmon/hwmon1").mkdir()
    (tmp_path / "sys/class/hwmon/hwmon1/name").write_text("w83627ehf\n")
    place.lines = ("something else",)
    monkeypatch.setattr("thimble.host.health.ANSWER_S", 0.2)
    plain = sensors.sensors

    def read(chip: Path) -> tuple[Sensor, ...]:
        if chip.name == "hwmon1":
            release.wait(30)
        return plain(chip)

    monkeypatch.setattr(sensors, "sensors", read)

    async def work() -> None:
        await place.watch.look()
        assert place.news() == [
            ("sensor coretemp temp1", "critical"),
            ("host", "warning"),
            ("sensors of w83627ehf (hwmon1)", "warning"),
        ]
        release.set()
        while place.watch.probes.hanging:
            await asyncio.sleep(0.01)
        await place.watch.look()
        assert place.news() == [("sensors of w83627ehf (hwmon1)", "ok")]

    asyncio.run(work())


def test_a_disk_that_hangs_keeps_no_other_from_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    place = Place(tmp_path)
    names = ("good", "dead")
    listed = tuple(DiskInfo(name=f"serial:{n}", device=f"/dev/{n}", transport="sata") for n in names)
    monkeypatch.setattr("thimble.host.health.SLOW_S", 0.2)
    monkeypatch.setattr(devices, "disks", lambda _root: listed)

    def ask(_root: Path, disk: DiskInfo) -> Smart:
        if disk.name == "serial:dead":
            release.wait(30)
        return Smart(passed=False, critical=("it predicts its own failure",))

    monkeypatch.setattr(devices, "health", ask)

    async def work() -> None:
        await place.watch.look_seldom(0.0)
        found = {finding.component: finding for finding in (await place.watch.now()).findings}
        assert found["disk serial:good"].level is Level.CRITICAL
        assert "does not answer" in found["disk serial:dead"].reason
        assert [disk.smart.why != "" for disk in place.watch.disks if disk.smart] == [False, True]
        release.set()

    asyncio.run(work())
