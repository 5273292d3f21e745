"""What goes to others as text: iPXE's scripts and dnsmasq's settings. Pure."""

from __future__ import annotations

from thimble.contract.netboot import Mode
from thimble.network.render import DhcpPlan
from thimble.network.subnet import Subnet

#: Debian's iPXE: with the card's own PXE code under BIOS, with the firmware's network driver under UEFI.
LOADERS = "/usr/lib/ipxe"
BIOS_LOADER = "undionly.kpxe"
EFI_LOADER = "snponly.efi"


def first_script(server: str) -> str:
    """Asks for this machine's own script, saying the serial number; the card is known by its address.

    A host that stopped serving half-way: the machine goes on to its next boot device.
    """
    return (
        "#!ipxe\n"
        f"chain http://{server}/boot?serial=${{serial:uristring}} || goto none\n"
        ":none\n"
        f"echo thimble: {server} serves nothing to this machine, serial ${{serial}}\n"
        "sleep 2\n"
        "exit 1\n"
    )


def script(server: str, token: str, words: str, *, document: bool) -> str:
    """Loads kernel and RAM root and starts them. `words`: the image's own of the command line."""
    base = f"http://{server}/n/{token}"
    mine = f" thimble.config={base}/thimble.toml" if document else ""
    return (
        "#!ipxe\n"
        f"kernel {base}/vmlinuz initrd=initrd {words}{mine} thimble.report={base}/report\n"
        f"initrd --name initrd {base}/initrd\n"
        "boot\n"
    )


def dhcp(
    switch: str,
    bridge: str,
    mode: Mode,
    server: str,
    net: Subnet,
    *,
    macs: tuple[str, ...],
    most: int,
    directory: str,
    account: tuple[str, str],
) -> DhcpPlan:
    """How dnsmasq is driven. `macs`: those alone are answered; all when there are none.

    dnsmasq(8). 175 is iPXE's own option; architecture 7 and 9 are UEFI on x86-64, 16 is its HTTP boot (RFC
    5970 and IANA's list of processor architectures).
    """
    lines = [
        "# Written by Thimble at every start; changes are lost.",
        f"user={account[0]}",
        f"group={account[1]}",
        f"pid-file={directory}/pid",
        "log-facility=-",
        "port=0",
        f"interface={bridge}",
        "except-interface=lo",
        "bind-interfaces",
        "enable-tftp",
        f"tftp-root={LOADERS}",
        "tftp-max=32",
        f"dhcp-leasefile={directory}/leases",
        f"dhcp-lease-max={most + 16}",
        f"dhcp-hostsfile={directory}/hosts",
        "dhcp-match=set:ipxe,175",
        "dhcp-match=set:efi,option:client-arch,7",
        "dhcp-match=set:efi,option:client-arch,9",
        "dhcp-match=set:efi,option:client-arch,16",
        "dhcp-vendorclass=set:http,HTTPClient",
    ]
    if macs:
        lines.append("dhcp-ignore=tag:!allowed")
    # iPXE's own DHCP comes second and gets the script.
    lines.append(f"dhcp-boot=tag:ipxe,http://{server}/boot.ipxe,,{server}")
    if mode is Mode.PROXY:
        lines += [
            f"dhcp-range={server},proxy,{net.netmask}",
            f"pxe-service=tag:!ipxe,x86PC,Thimble,{BIOS_LOADER}",
            f"pxe-service=tag:!ipxe,X86-64_EFI,Thimble,{EFI_LOADER}",
            f"pxe-service=tag:!ipxe,BC_EFI,Thimble,{EFI_LOADER}",
        ]
    else:
        first, last = net.dynamic
        lines += [
            f"dhcp-range={first},{last},{net.netmask},1h",
            "dhcp-option=option:router",  # this host is no way out
            "dhcp-option=option:dns-server",
            "dhcp-authoritative",
            "dhcp-option-force=tag:http,option:vendor-class,HTTPClient",
            f"dhcp-boot=tag:!ipxe,tag:http,http://{server}/{EFI_LOADER}",
            f"dhcp-boot=tag:!ipxe,tag:!http,tag:efi,{EFI_LOADER}",
            f"dhcp-boot=tag:!ipxe,tag:!http,tag:!efi,{BIOS_LOADER}",
        ]
    hosts = "".join(f"{mac},set:allowed\n" for mac in macs)
    return DhcpPlan(switch=switch, bridge=bridge, config="\n".join(lines) + "\n", hosts=hosts, names="")
