"""One stick boots the rack: a host serves its own image to its neighbours, and they say how they are.

    firmware ─ DHCP, TFTP (dnsmasq) ─► iPXE ─ HTTP ─► /boot ─► kernel, RAM root ─► /n/TOKEN/thimble.toml
                                                     rules: who, which number,      /n/TOKEN/report
                                                     which document

rules, render   pure: who gets what; scripts and dnsmasq's settings
records         what is kept: the settings, and every neighbour that came
probe           is there another DHCP server on the wire
web             the HTTP side, as an ASGI application
service         the verbs; the only place that acts
report          the other side: a booted neighbour says how it is
"""
