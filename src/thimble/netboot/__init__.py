"""One stick boots the rack: a host serves its own image to its neighbours, and they report how they are.

    firmware ─ DHCP, TFTP (dnsmasq) ─► iPXE ─ HTTP ─► /boot ─► kernel, RAM root ─► /n/TOKEN/thimble.toml
                                                     rules: who, which number,      /n/TOKEN/report
                                                     which document

rules, render   pure: who gets what; scripts and dnsmasq's settings
addressing      where neighbours are served, and the blockers
records         what is kept: the settings, and every neighbour that came
probe           is there another DHCP server on the wire
http, image     the HTTP side, as an ASGI application; the image in memory
responder       who is answered with what, and how the neighbours are
server          serving as a whole: started, ended, tried again
service         the verbs
report          the other side: a booted neighbour reports (`report_http`: over the wire)
"""

from __future__ import annotations

from pathlib import Path


def asked(state: Path) -> bool:
    """Did anybody ever say `serve`? Where not, the rest of this package need not even be imported."""
    return (state / "netboot").exists()
