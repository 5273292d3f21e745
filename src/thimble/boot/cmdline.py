"""The kernel command line: its words, and what Thimble reads from them. Pure.

thimble.hostname=NAME      name of the host; default: from DHCP, else `thimble-<last 6 digits of the MAC>`
thimble.nic=WHICH          the management NIC: interface name, MAC, or PCI address; default: first with link
thimble.ntp=A,B            time servers; default: from DHCP, else pool.ntp.org
thimble.state=auto|ram     whether to look for a state partition
thimble.state_wait=SECONDS how long to wait at most for disks on slow buses (USB)
thimble.config=URL         the host document; it is not looked for on disks then
thimble.trial_timeout=SECONDS  a trial boot not confirmed by then is rolled back
thimble.boot=GUID          the partition this boot came from (set by GRUB and kexec)
thimble.timeline           print on the consoles when each phase of the boot was done
ip=…                       see ipparam.py
"""

from __future__ import annotations


def split_words(text: str) -> list[str]:
    """Words as the kernel sees them: separated by blanks, double quotes protect blanks and vanish."""
    words: list[str] = []
    word, quoted, started = "", False, False
    for char in text:
        if char == '"':
            quoted, started = not quoted, True
        elif char in " \t\n" and not quoted:
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + char, True
    if started:
        words.append(word)
    return words


class CommandLine:
    """What the command line asks of PID 1. `values` holds every parameter, the last one winning."""

    __slots__ = (
        "config",
        "hostname",
        "ip",
        "nic",
        "ntp",
        "state",
        "state_wait",
        "trial_timeout",
        "values",
        "warnings",
    )

    def __init__(self, text: str) -> None:
        self.values: dict[str, str] = {}
        self.ip: list[str] = []
        self.warnings: list[str] = []
        for word in split_words(text):
            key, _, value = word.partition("=")
            self.values[key] = value
            if key == "ip":
                self.ip.append(value)
        get = self.values.get
        self.hostname = valid_hostname(get("thimble.hostname", ""))
        if get("thimble.hostname") and not self.hostname:
            self.warnings.append(
                "thimble.hostname={} is not a valid host name".format(get("thimble.hostname"))
            )
        self.nic = get("thimble.nic", "").lower()
        self.ntp = [item for item in get("thimble.ntp", "").split(",") if item]
        self.state = get("thimble.state", "auto")
        if self.state not in ("auto", "ram"):
            self.warnings.append(f"thimble.state={self.state} is neither auto nor ram: using auto")
            self.state = "auto"
        self.state_wait = self._seconds("thimble.state_wait", 10.0)
        self.trial_timeout = self._seconds("thimble.trial_timeout", 300.0)
        self.config = get("thimble.config", "")

    def _seconds(self, key: str, default: float) -> float:
        try:
            value = float(self.values.get(key, default))
        except ValueError:
            value = -1.0
        if 0 <= value <= 3600:
            return value
        self.warnings.append(
            f"{key}={self.values[key]} is not a number of seconds from 0 to 3600: using {default:.0f}"
        )
        return default


def valid_hostname(name: str) -> str:
    """The name in lower case if it may be a host name (RFC 1123, dots allowed, 64 at most), else empty."""
    name = name.lower().rstrip(".")
    labels = name.split(".")
    good = all(
        0 < len(label) <= 63
        and label[0] != "-"
        and label[-1] != "-"
        and all(c.isascii() and (c.isalnum() or c == "-") for c in label)
        for label in labels
    )
    return name if good and len(name) <= 64 else ""
