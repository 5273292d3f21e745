"""Which NIC carries the management network. Pure.

named on the command line                         that one as soon as it appears, with or without link
the first NIC has link                            that one
another has link, the first none for `patience`   the other
none has link                                     none yet; asked again at each change
"""

from __future__ import annotations


class NicCandidate:
    """A NIC that may carry the management network; `order` sorts NICs (bus address)."""

    __slots__ = ("carrier", "mac", "name", "order")

    def __init__(self, name: str, mac: str, order: str, carrier: bool) -> None:  # noqa: FBT001
        self.name, self.mac, self.order, self.carrier = name, mac, order, carrier


def choose(nics: list[NicCandidate], wanted: str, patient: bool) -> str:  # noqa: FBT001
    """The name of the NIC to take now, or nothing; `patient` while the first may still get its link."""
    ordered = sorted(nics, key=lambda nic: (nic.order, nic.name))
    if wanted:
        return next((nic.name for nic in ordered if wanted in (nic.name, nic.mac, nic.order)), "")
    if ordered and ordered[0].carrier:
        return ordered[0].name
    if patient:
        return ""
    return next((nic.name for nic in ordered if nic.carrier), "")
