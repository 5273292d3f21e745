"""The first program of each guest, as cpio entries. Pure.

Debian: load the few drivers its disk, network and power button need, find the file system labelled
`thimble-guest`, go on there. Tiny: everything it is. Its very first output is the line `tiny guest: up`,
which tests wait for.
"""

from __future__ import annotations

from collections.abc import Mapping

from thimble.image import cpio
from thimble.image.cpio import CpioEntry

LABEL = "thimble-guest"

DEBIAN_MODULES = ("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "evdev", "button")
TINY_MODULES = (*DEBIAN_MODULES, "virtio_balloon", "virtio-rng", "pvpanic", "pvpanic-pci")

DEBIAN_INIT = f"""\
#!/bin/busybox sh
echo "debian guest: first program"
busybox mount -t devtmpfs dev /dev
for module in {" ".join(DEBIAN_MODULES)}; do busybox insmod /modules/$module.ko; done
tries=0
until root=$(busybox findfs LABEL={LABEL} 2>/dev/null); do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || {{ echo "no file system labelled {LABEL}"; exec busybox sh; }}
  busybox usleep 100000
done
busybox mount -t ext4 -o noatime $root /mnt && exec busybox switch_root /mnt /usr/lib/systemd/systemd
exec busybox sh
"""

TINY_INIT = f"""\
#!/bin/busybox sh
echo "tiny guest: up"
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {" ".join(TINY_MODULES)}; do insmod /modules/$module.ko 2>/dev/null; done
ip link set lo up
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
acpid -f -l /dev/null >/dev/null 2>&1 &
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  nc -ll -p 7 -e /bin/greet >/dev/null 2>&1 &
  udhcpc -i eth0 -t 3 -T 1 -b -S -s /etc/dhcp -x hostname:tiny >/dev/null 2>&1
fi
for word in $(cat /proc/cmdline); do
  case $word in
    tiny.run=*) /bin/busybox sh -c "$(echo "${{word#tiny.run=}}" | tr , ' ')" ;;
  esac
done
while :; do setsid -c sh -l </dev/console >/dev/console 2>&1; done
"""

DHCP = """\
#!/bin/busybox sh
case $1 in
  bound|renew)
    ip addr flush dev $interface
    ip addr add $ip/$mask dev $interface
    [ -z "$router" ] || ip route replace default via $router
    [ -z "$dns" ] || for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    [ $1 = renew ] || echo "tiny guest: address $ip" >/dev/console ;;
esac
"""

POWER_BUTTON = """\
#!/bin/busybox sh
echo "tiny guest: power button" >/dev/console
poweroff -f
"""

SCRIPTS = {
    "etc/dhcp": DHCP,
    "etc/acpi/PWRF/00000080": POWER_BUTTON,
    "etc/profile": "PS1='tiny# '\n",
    "bin/greet": '#!/bin/busybox sh\necho "tiny guest: hello"\n',
    "bin/crash": "#!/bin/busybox sh\necho c >/proc/sysrq-trigger\n",
}


def debian(busybox: bytes, modules: Mapping[str, bytes]) -> list[CpioEntry]:
    """The Debian guest's initrd."""
    return [*_base(busybox, modules, DEBIAN_MODULES), cpio.file("init", DEBIAN_INIT.encode(), 0o755)]


def tiny(busybox: bytes, modules: Mapping[str, bytes]) -> list[CpioEntry]:
    """The whole tiny guest."""
    return [
        *_base(busybox, modules, TINY_MODULES),
        cpio.file("init", TINY_INIT.encode(), 0o755),
        *(cpio.file(path, text.encode(), 0o755) for path, text in SCRIPTS.items()),
    ]


def _base(busybox: bytes, modules: Mapping[str, bytes], wanted: tuple[str, ...]) -> list[CpioEntry]:
    return [
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.character_device("dev/console", 5, 1),
        *(cpio.directory(name) for name in ("mnt", "proc", "run", "sys", "tmp")),
        *(cpio.file(f"modules/{name}.ko", modules[name]) for name in wanted),
    ]
