"""Virtual switches, their ports, DHCP, DNS and address translation.

`subnet`, `rules`, `plan` and `render` decide; `dhcp` drives dnsmasq, `service` brings the kernel to what is
wanted and is the seam for VMs, `verbs` the one for the API.

    tb-1a2b3c4d   the bridge of a switch          (made by us: its alias says so)
    tp-1a2b3c4d   a port: the tap of a VM's NIC   (vanishes with its QEMU)
    table inet thimble                            all our packet rules, replaced as a whole
"""
