"""CPU models: `host`, the named baselines, and QEMU's own. Pure.

The baselines are the levels of the x86-64 psABI on top of QEMU's plain `qemu64`, so that a VM sees the same
CPU on every host that has at least that level, under KVM as under TCG (which has no AVX-512).
"""

from __future__ import annotations

import msgspec

_V2 = "+cx16,+lahf-lm,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"
_V3 = f"{_V2},+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave"
_V4 = f"{_V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"

BASELINES = {
    "x86-64-v1": "qemu64",
    "x86-64-v2": f"qemu64,{_V2}",
    "x86-64-v3": f"qemu64,{_V3}",
    "x86-64-v4": f"qemu64,{_V4}",
}

#: Models of QEMU 10.0 that make sense for a server's guest; each also as `NAME-vN`.
MODELS = frozenset(
    [
        "Broadwell",
        "Broadwell-IBRS",
        "Broadwell-noTSX",
        "Broadwell-noTSX-IBRS",
        "Cascadelake-Server",
        "Cascadelake-Server-noTSX",
        "ClearwaterForest",
        "Conroe",
        "Cooperlake",
        "Denverton",
        "Dhyana",
        "EPYC",
        "EPYC-Genoa",
        "EPYC-IBPB",
        "EPYC-Milan",
        "EPYC-Rome",
        "GraniteRapids",
        "Haswell",
        "Haswell-IBRS",
        "Haswell-noTSX",
        "Haswell-noTSX-IBRS",
        "Icelake-Server",
        "Icelake-Server-noTSX",
        "IvyBridge",
        "IvyBridge-IBRS",
        "Nehalem",
        "Nehalem-IBRS",
        "Opteron_G1",
        "Opteron_G2",
        "Opteron_G3",
        "Opteron_G4",
        "Opteron_G5",
        "Penryn",
        "SandyBridge",
        "SandyBridge-IBRS",
        "SapphireRapids",
        "SierraForest",
        "Skylake-Client",
        "Skylake-Client-IBRS",
        "Skylake-Client-noTSX-IBRS",
        "Skylake-Server",
        "Skylake-Server-IBRS",
        "Skylake-Server-noTSX-IBRS",
        "Snowridge",
        "Westmere",
        "Westmere-IBRS",
        "YongFeng",
        "kvm64",
        "max",
        "qemu64",
    ]
)


def known(cpu: str) -> bool:
    """Is `cpu` a name we take?"""
    name, _, version = cpu.rpartition("-v")
    return (
        cpu == "host"
        or cpu in BASELINES
        or cpu in MODELS
        or (name in MODELS and version in ("1", "2", "3", "4", "5", "6", "7"))
    )


def refusal(cpu: str, accel: str) -> str:
    """Why `cpu` cannot be had with `accel`; empty when it can."""
    if not known(cpu):
        return f"{cpu!r} is no CPU model: use host, x86-64-v2, x86-64-v3, x86-64-v4 or one of QEMU's"
    if cpu == "x86-64-v4" and accel == "tcg":
        return "x86-64-v4 needs AVX-512, which emulation (TCG) does not have: use x86-64-v3 or host"
    return ""


def argument(cpu: str, accel: str) -> str:
    """QEMU's `-cpu`: `host` is everything this host can give."""
    if cpu == "host":
        return "host" if accel == "kvm" else "max"
    return BASELINES.get(cpu, cpu)


#: What programs in a guest may have found and rely on, as /proc/cpuinfo calls it. Others come and go with
#: kernels.
_GUEST_FLAGS = frozenset(
    """
    ssse3 sse4_1 sse4_2 sse4a popcnt aes pclmulqdq avx avx2 f16c fma bmi1 bmi2 abm movbe adx rdrand rdseed
    rtm hle sha_ni vaes vpclmulqdq gfni xsave xsavec xsaves pku erms fsrm rdtscp pdpe1gb svm vmx la57
    avx_vnni amx_tile avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi avx512_vbmi2
    avx512_vnni avx512_bf16
    """.split()  # noqa: SIM905
)


class HostCpu(msgspec.Struct, frozen=True):
    """What of the host's CPU a saved guest depends on."""

    model: str = ""  # vendor, family, model
    flags: tuple[str, ...] = ()


def host_cpu(cpuinfo: str) -> HostCpu:
    """From the text of /proc/cpuinfo: its first CPU."""
    found: dict[str, str] = {}
    for line in cpuinfo.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = value.strip()
    model = "/".join(found.get(name, "?") for name in ("vendor_id", "cpu family", "model"))
    return HostCpu(model, tuple(sorted(_GUEST_FLAGS & set(found.get("flags", "").split()))))


def change_refusal(cpu: str, accel: str, then: HostCpu, now: HostCpu) -> str:
    """Why a guest that ran with `cpu` on `then` cannot go on on `now`; empty when it can."""
    if accel != "kvm" or cpu in BASELINES:  # emulated, or the same on all CPUs
        return ""
    if cpu == "host" and then.model != now.model:
        return f"it ran on another CPU ({then.model}; this is {now.model})"
    if missing := set(then.flags) - set(now.flags):
        return f"this CPU does not have {', '.join(sorted(missing))}, which it ran with"
    return ""
