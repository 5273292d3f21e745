"""An idle Thimble server's memory, processor time and disk writes, by the same definitions as probe.sh.

Our own process is left out: of the processes, of their processor time, and its private memory of what is in
use.
"""

from __future__ import annotations

import os
import time

TICKS = 100
SECTOR = 512
TOLD = (
    "MemFree",
    "Cached",
    "Unevictable",
    "AnonPages",
    "Slab",
    "SUnreclaim",
    "KernelStack",
    "PageTables",
    "Percpu",
)


def processes() -> list[int]:
    """Every process with memory of its own, but us."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and int(name) != os.getpid() and private_kib(int(name)) is not None:
            found.append(int(name))
    return found


def private_kib(pid: int) -> int | None:
    """Private_Clean + Private_Dirty; None for kernel threads and what has gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as handle:
            lines = handle.read().splitlines()
    except OSError:
        return None
    amounts = [
        int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))
    ]
    return sum(amounts) if amounts else None


def name_of(pid: int) -> str:
    """Its program's own name; PID 1 is told apart from the agent it forked."""
    try:
        with open(f"/proc/{pid}/comm") as handle:
            return "PID 1" if pid == 1 else handle.read().strip()
    except OSError:
        return "?"


def cpu_ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as handle:
            fields = handle.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def is_python(pid: int) -> bool:
    """PID 1 and the agent are the only Python processes beside us."""
    try:
        return "python" in os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    except OSError:
        return False


def meminfo() -> dict[str, int]:
    with open("/proc/meminfo") as handle:
        return {line.split(":")[0]: int(line.split()[1]) for line in handle}


def written_bytes() -> int:
    """By all real disks since boot."""
    total = 0
    with open("/proc/diskstats") as handle:
        for line in handle:
            fields = line.split()
            if fields[2].startswith(("vd", "sd", "nvme")):
                total += int(fields[9]) * SECTOR
    return total


def watch(settle_s: float, over_s: float) -> dict[str, object]:
    """Wait, watch, tell."""
    time.sleep(settle_s)
    os.sync()
    before = {pid: cpu_ticks(pid) for pid in processes()}
    ours = [pid for pid in before if is_python(pid)]
    written = written_bytes()
    time.sleep(over_s)
    after = {pid: cpu_ticks(pid) for pid in processes()}
    used = {pid: (ticks - before.get(pid, 0)) / TICKS for pid, ticks in after.items()}
    memory = meminfo()
    own = private_kib(os.getpid()) or 0
    return {
        "total_kib": memory["MemTotal"],
        "available_kib": memory["MemAvailable"] + own,
        "private_kib": sum(private_kib(pid) or 0 for pid in after),
        "processes": len(after),
        "cpu_s": sum(used.values()),
        "agent_cpu_s": sum(seconds for pid, seconds in used.items() if pid in ours),
        "over_s": over_s,
        "written_bytes": written_bytes() - written,
        "own_kib": own,
        "meminfo": {field: memory[field] for field in TOLD},
        "by_process": sorted(((private_kib(pid) or 0, name_of(pid)) for pid in after), reverse=True),
    }
