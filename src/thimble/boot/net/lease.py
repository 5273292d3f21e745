"""Reads what dhcpcd knows about its leases. Pure.

`dhcpcd --dumplease IFACE` prints, block after block, the environment its hook scripts would see. We ask it
when the addresses of the uplink change, instead of letting it run a script (docs/decisions/0020).
"""

from __future__ import annotations


def parse_dump(text: str) -> list[dict[str, str]]:
    """Blocks of shell assignments; a block starts with `reason=` or when a name comes again."""
    blocks: list[dict[str, str]] = []
    block: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals:
            continue
        if key in block or (key == "reason" and block):
            blocks.append(block)
            block = {}
        block[key.removeprefix("new_")] = unquote(value)
    return [*blocks, block] if block else blocks


def unquote(value: str) -> str:
    """`'it'\\''s'` → `it's`; plain words stay."""
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("'\\''", "'")
    return value


class LeaseFacts:
    """What DHCP and router advertisements say, merged over both families."""

    __slots__ = ("dns", "domain", "hostname", "ntp", "search")

    def __init__(self) -> None:
        self.dns: list[str] = []
        self.search: list[str] = []
        self.ntp: list[str] = []
        self.domain = ""
        self.hostname = ""


def facts(blocks: list[dict[str, str]]) -> LeaseFacts:
    """Merges the blocks of one interface in the order dhcpcd prints them, without duplicates."""
    found = LeaseFacts()
    for block in blocks:
        words: list[str] = []
        for key, value in block.items():
            if key.endswith(("domain_name_servers", "dhcp6_name_servers", "_rdnss")):
                words += value.split()
            elif key.endswith(("domain_search", "_dnssl")):
                found.search += [item for item in value.split() if item not in found.search]
            elif key in ("ntp_servers", "dhcp6_ntp_server_addr", "dhcp6_sntp_servers"):
                found.ntp += [item for item in value.split() if item not in found.ntp]
        found.dns += [word for word in words if word not in found.dns]
        found.domain = found.domain or block.get("domain_name", "").split(" ")[0]
        found.hostname = found.hostname or block.get("host_name", "")
    return found


def resolv_conf(dns: list[str], search: list[str]) -> str:
    """The text of /etc/resolv.conf; glibc reads three servers."""
    lines = [f"nameserver {server}" for server in dns[:3]]
    return "".join(f"{line}\n" for line in ([f"search {' '.join(search[:6])}"] if search else []) + lines)
