"""The physical machine on the wire: what it is, how it is, its logs. Not imported on the way to "ready".

An empty text or None means that the machine does not tell. `problems` are parts that could not be asked.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from thimble.contract.common import Out


class Level(StrEnum):
    """How something is; the worst of its parts is the whole's."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class System(Out, frozen=True, kw_only=True):
    """Who made the machine and its board (SMBIOS)."""

    vendor: str = ""
    product: str = ""
    version: str = ""
    serial: str = ""
    uuid: str = ""
    board_vendor: str = ""
    board: str = ""
    board_serial: str = ""
    chassis_serial: str = ""
    asset_tag: str = ""


class Bios(Out, frozen=True, kw_only=True):
    """The firmware that started it."""

    kind: str  # `uefi` or `bios`
    vendor: str = ""
    version: str = ""
    date: str = ""


class Cpus(Out, frozen=True, kw_only=True):
    """`features`: those that matter to VMs. `vulnerabilities`: the kernel's word on each it knows."""

    model: str
    packages: int
    cores: int
    threads: int
    microcode: str = ""
    features: tuple[str, ...] = ()
    vulnerabilities: dict[str, str] = field(default_factory=dict)


class MemoryModule(Out, frozen=True, kw_only=True):
    """One slot; `size_bytes` 0: empty. Speeds are MT/s."""

    slot: str
    bank: str = ""
    size_bytes: int = 0
    kind: str = ""
    speed: int = 0
    configured_speed: int = 0
    vendor: str = ""
    part: str = ""
    serial: str = ""


class Memory(Out, frozen=True, kw_only=True):
    """`ecc`: as the firmware names it; `corrected` and `uncorrected`: errors counted since boot (EDAC)."""

    total_bytes: int
    ecc: str = ""
    modules: tuple[MemoryModule, ...] = ()
    corrected: int | None = None
    uncorrected: int | None = None


class NumaNode(Out, frozen=True, kw_only=True):
    id: int
    cpus: str  # such as `0-7,16-23`
    memory_bytes: int


class PciDevice(Out, frozen=True, kw_only=True):
    """Ids are four hexadecimal digits; `kind` is the class in words. Names of ids are the client's task."""

    address: str
    class_id: str
    kind: str
    vendor: str
    device: str
    subsystem: str = ""  # `vendor:device`
    driver: str = ""
    iommu_group: int | None = None
    numa_node: int | None = None


class Smart(Out, frozen=True, kw_only=True):
    """A disk's own word on its health. `worn` and `spare` are percent."""

    passed: bool | None = None
    critical: tuple[str, ...] = ()  # what is wrong, in words
    temperature: float | None = None
    worn: int | None = None
    spare: int | None = None
    power_on_hours: int | None = None
    media_errors: int | None = None
    why: str = ""  # when it could not be asked


class DiskInfo(Out, frozen=True, kw_only=True):
    """`name` is what lasts: `serial:…`, `wwn:…`, else the device. `locate`: its slot has a light."""

    name: str
    device: str
    model: str = ""
    serial: str = ""
    wwn: str = ""
    size_bytes: int = 0
    sector_bytes: int = 512
    physical_sector_bytes: int = 512
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    transport: str = ""  # nvme, sata, sas, usb, virtio, …
    locate: bool = False
    smart: Smart | None = None


class NicInfo(Out, frozen=True, kw_only=True):
    """`mac` is burnt in and names the port for ever; settings bind to it. `device`: the kernel's name now."""

    mac: str
    device: str
    address: str = ""  # the MAC it uses now
    driver: str = ""
    link: bool = False
    speed_mbps: int | None = None
    pci: str = ""
    port: str = ""  # the kernel's or the card's name of the port
    onboard: int | None = None  # the number printed on the board, when the firmware tells it
    use: str = ""  # such as `management` or `switch lan`


class Hardware(Out, frozen=True, kw_only=True):
    """The inventory."""

    system: System
    firmware: Bios
    cpus: Cpus
    memory: Memory
    numa: tuple[NumaNode, ...] = ()
    pci: tuple[PciDevice, ...] = ()
    disks: tuple[DiskInfo, ...] = ()
    nics: tuple[NicInfo, ...] = ()
    problems: tuple[str, ...] = ()


class Sensor(Out, frozen=True, kw_only=True):
    """`kind`: temperature (°C), fan (rpm), voltage (V), power (W), current (A). Limits may be None."""

    name: str
    chip: str
    kind: str
    value: float | None
    unit: str
    warn: float | None = None
    critical: float | None = None
    level: Level = Level.OK
    why: str = ""  # when it cannot be read


class BmcEvent(Out, frozen=True, kw_only=True):
    """An entry of the System Event Log. `time` 0: before the BMC's clock was set."""

    id: int
    time: float
    sensor: str
    what: str
    asserted: bool
    level: Level


class Bmc(Out, frozen=True, kw_only=True):
    """The management controller. `address`: where it answers on the network."""

    version: str
    ipmi: str
    manufacturer: int
    product: int
    address: str = ""
    mac: str = ""
    events_total: int = 0
    events: tuple[BmcEvent, ...] = ()


class Sensors(Out, frozen=True, kw_only=True):
    sensors: tuple[Sensor, ...] = ()
    bmc: Bmc | None = None  # None: this machine has none, or it does not answer
    problems: tuple[str, ...] = ()


class Finding(Out, frozen=True, kw_only=True):
    """One thing that is not well. `since`: seconds since the epoch."""

    component: str
    level: Level
    reason: str
    since: float
    hint: str = ""


class Health(Out, frozen=True, kw_only=True):
    """`checked`: when it was looked last. Components without a finding are well."""

    level: Level
    checked: float
    findings: tuple[Finding, ...] = ()


class TimeSource(Out, frozen=True, kw_only=True):
    """An NTP server. `reach`: of the last eight questions so many were answered."""

    address: str
    state: str  # selected, candidate, unreachable, falseticker, …
    stratum: int
    reach: int
    offset_s: float
    error_s: float


class Time(Out, frozen=True, kw_only=True):
    """The clock. `offset_s`: how far it is off, as far as is known."""

    now: float
    synchronized: bool
    managed: bool  # false: another operating system looks after the clock
    source: str = ""
    stratum: int | None = None
    offset_s: float | None = None
    error_s: float | None = None
    sources: tuple[TimeSource, ...] = ()
    why: str = ""


class LogLevel(StrEnum):
    """As syslog has them; the first is the worst."""

    EMERGENCY = "emergency"
    ALERT = "alert"
    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"
    INFO = "info"
    DEBUG = "debug"


class LogLine(Out, frozen=True, kw_only=True):
    """`source`: kernel, boot (PID 1), agent, or the name of a daemon."""

    time: float
    level: LogLevel
    source: str
    text: str


class Logs(Out, frozen=True, kw_only=True):
    """Oldest first."""

    lines: tuple[LogLine, ...] = ()


class Archive(Out, frozen=True, kw_only=True):
    """A `tar.gz`."""
