"""The few configuration files of a machine without configuration: /etc and empty directories; pure."""

from __future__ import annotations

from thimble.image.layout import Component, ImageEntry, Place, directory

USERS = {"root": 0, "dnsmasq": 101, "_chrony": 102, "dhcpcd": 103, "_dhcpcd": 104, "nobody": 65534}
GROUPS = {
    "root": 0,
    "tty": 5,
    "disk": 6,
    "kvm": 105,
    **{name: uid for name, uid in USERS.items() if uid > 100},
}

SERVICES = (
    "ssh 22/tcp",
    "domain 53/tcp",
    "domain 53/udp",
    "bootps 67/udp",
    "bootpc 68/udp",
    "tftp 69/udp",
    "http 80/tcp",
    "ntp 123/udp",
    "https 443/tcp",
)

MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp", "usr", "root", "mnt", "var/lib", "var/log", "var/tmp")


def _passwd() -> str:
    return "".join(f"{name}:x:{uid}:{uid}:{name}:/:/nonexistent\n" for name, uid in USERS.items())


def _group() -> str:
    return "".join(f"{name}:x:{gid}:\n" for name, gid in GROUPS.items())


def os_release(version: str, profile: str) -> str:
    """What the image calls itself; also read from the UKI by boot managers."""
    return (
        f'ID=thimble\nID_LIKE=debian\nNAME="Thimble"\nPRETTY_NAME="Thimble {version} ({profile})"\n'
        f"VERSION_ID={version}\nIMAGE_ID=thimble-{profile}\nIMAGE_VERSION={version}\n"
    )


def files(version: str, profile: str) -> dict[str, str]:
    """Path → contents, below the RAM root."""
    return {
        "etc/passwd": _passwd(),
        "etc/group": _group(),
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "etc/host.conf": "multi on\n",
        "etc/os-release": os_release(version, profile),
        "etc/ssl/openssl.cnf": "[req]\ndistinguished_name = dn\n[dn]\n",
        "etc/protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n",
        "etc/services": "".join(f"{name}\n" for name in SERVICES),
    }


def entries(version: str, profile: str) -> list[ImageEntry]:
    """/etc and the directories others mount on."""
    made = [
        directory(Place.EARLY, path, mode=0o1777 if path.endswith("tmp") else 0o755) for path in MOUNT_POINTS
    ]
    links = {
        "sbin": ("early", "bin"),
        "lib/firmware": ("early", "/usr/lib/firmware"),
        "etc/mtab": ("early", "/proc/self/mounts"),
        "etc/ssl/certs/ca-certificates.crt": ("early", "/usr/share/ca-certificates.crt"),
        "etc/mke2fs.conf": ("early", "/usr/share/mke2fs.conf"),
        "var/run": ("early", "/run"),
        "sbin ": ("root", "bin"),
        "lib/ssl/cert.pem": ("root", "/etc/ssl/certs/ca-certificates.crt"),
        "lib/ssl/certs": ("root", "/etc/ssl/certs"),
        "lib/ssl/openssl.cnf": ("root", "/etc/ssl/openssl.cnf"),
    }
    made += [
        ImageEntry(place=Place(place), path=path.strip(), component=Component.SYSTEM, link=target, mode=0o777)
        for path, (place, target) in links.items()
    ]
    made += [
        ImageEntry(place=Place.EARLY, path=path, component=Component.SYSTEM, data=text.encode())
        for path, text in files(version, profile).items()
    ]
    return made
