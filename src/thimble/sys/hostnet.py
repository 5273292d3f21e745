"""What the kernel tells of this host's links, IPv4 routes, listening ports and settings."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"
_UNCONNECTED = "07"


def exists(link: str) -> bool:
    return Path(f"/sys/class/net/{link}").exists()


def is_bridge(link: str) -> bool:
    return Path(f"/sys/class/net/{link}/bridge").exists()


def ports(bridge: str) -> list[str]:
    """The links that are ports of `bridge`; empty when there is no such bridge."""
    try:
        return sorted(path.name for path in Path(f"/sys/class/net/{bridge}/brif").iterdir())
    except OSError:
        return []


def macs() -> dict[str, str]:
    """MAC address → link, for uplinks of switches; of several with one MAC the hardware."""
    found: dict[str, str] = {}
    for entry in sorted(Path("/sys/class/net").iterdir()):
        try:
            mac = (entry / "address").read_text().strip()
        except OSError:
            continue
        own = not (entry / "bridge").exists() and not (entry / "tun_flags").exists()
        if own and len(mac) == 17 and mac.strip("0:") and (mac not in found or (entry / "device").exists()):
            found[mac] = entry.name
    return found


def lasting_name(link: str) -> str:
    """The MAC of a network card, which it keeps when cards come and go; of other links their name."""
    card = Path(f"/sys/class/net/{link}")
    if not (card / "device").exists():
        return link
    found = [mac for mac, name in macs().items() if name == link]
    return found[0] if found else link


def routes() -> list[tuple[str, int, int]]:
    """(link, base, prefix) of every IPv4 route; (…, 0, 0) is a default one."""
    found = []
    for words in _table("/proc/net/route"):
        # both are little-endian hexadecimal
        base, mask = (int.from_bytes(bytes.fromhex(words[n]), "little") for n in (1, 7))
        found.append((words[0], base, mask.bit_count()))
    return found


def listening() -> list[tuple[str, int]]:
    """(`tcp` or `udp`, port) of everything that waits for others to come."""
    found = []
    for protocol, state in (("tcp", _LISTEN), ("udp", _UNCONNECTED)):
        for family in ("", "6"):
            for words in _table(f"/proc/net/{protocol}{family}"):
                if words[3] == state:
                    found.append((protocol, int(words[1].rpartition(":")[2], 16)))
    return found


def mac_of(address: str, link: str) -> str:
    """The MAC behind an IPv4 address, as the kernel saw it on `link`; empty when it has not."""
    for words in _table("/proc/net/arp"):
        if words[0] == address and words[5] == link and words[3].strip("0:"):
            return words[3].lower()
    return ""


def sysctl(key: str) -> str:
    """A value below /proc/sys; empty when there is none."""
    try:
        return Path("/proc/sys", key).read_text().strip()
    except OSError:
        return ""


def set_sysctl(key: str, value: str) -> None:
    """Raises OSError."""
    Path("/proc/sys", key).write_text(value)


def _table(path: str) -> list[list[str]]:
    try:
        lines = Path(path).read_text().splitlines()[1:]
    except OSError:
        return []
    return [line.split() for line in lines]
