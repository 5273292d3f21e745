"""What makes the Debian guest answer SSH soon: files laid over a plain Debian tree. Pure, a literal table.

The rule behind it: only what a login needs runs before sshd; the rest of Debian follows right after it. So
sshd waits for host keys, first-boot data and a mounted root, nothing else; coldplug of all devices, D-Bus,
logind and the console's login prompt are ordered behind it. First-boot data come as systemd credentials, so
no cloud-init:

    system.hostname                  host name, read by PID 1 at each boot
    ssh.authorized_keys.root         root's keys (tmpfiles.d/provision.conf)
    passwd.hashed-password.root      root's password (systemd-firstboot, at any boot that has it)
    sysusers.extra, tmpfiles.extra   more users, more files; passwd.hashed-password.USER their passwords
    network.network.NAME, …          networkd files; without any, DHCP on every Ethernet port
"""

from __future__ import annotations

import msgspec


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """By path from the root: texts, targets of symbolic links; what is removed before either is laid down."""

    files: dict[str, str]
    links: dict[str, str]
    removed: tuple[str, ...]


DHCP_ON_ALL = """\
[Match]
Kind=!*
Type=ether

[Network]
DHCP=yes
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
"""

SSH_FIRST = """\
[Unit]
Description=OpenBSD Secure Shell server
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service systemd-firstboot.service sshd-keygen.service
Wants=sshd-keygen.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
EnvironmentFile=-/etc/default/ssh
ExecStart=/usr/sbin/sshd -D $SSHD_OPTS
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
Restart=on-failure
RestartPreventExitStatus=255
Type=notify
StartupCPUWeight=1000
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755

[Install]
WantedBy=sysinit.target
Alias=sshd.service
"""

HOST_KEY = """\
[Unit]
Description=Make this machine's SSH host key
DefaultDependencies=no
After=local-fs.target
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key
"""

ED25519_ONLY = "HostKey /etc/ssh/ssh_host_ed25519_key\n"

COLDPLUG_NETWORK = """\
[Unit]
Description=Announce network ports to udev before all other devices
DefaultDependencies=no
Wants=systemd-udevd.service
After=systemd-udevd-kernel.socket systemd-udevd-control.socket
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net
"""

COLDPLUG_AFTER_SSH = """\
[Unit]
Description=Announce all devices to udev
DefaultDependencies=no
Wants=systemd-udevd.service
After=systemd-udevd-kernel.socket systemd-udevd-control.socket
After=ssh.service systemd-networkd-wait-online.service
ConditionPathIsReadWrite=/sys

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-udevadm trigger --type=all --action=add
"""

STATIC_NODES_AFTER_SSH = """\
[Unit]
Description=Create static device nodes
DefaultDependencies=no
After=ssh.service systemd-networkd-wait-online.service
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=mkdir -p /run/tmpfiles.d
ExecStart=-kmod static-nodes --format=tmpfiles --output=/run/tmpfiles.d/static-nodes.conf
ExecStart=-systemd-tmpfiles --prefix=/dev --create --boot
"""

ANY_ADDRESS = """\
[Service]
ExecStart=
ExecStart=-/usr/lib/systemd/systemd-networkd-wait-online --any --ipv4 --timeout=20
"""

AFTER_SSH = "[Unit]\nAfter=ssh.service systemd-networkd-wait-online.service\n"

PASSWORD_BY_CREDENTIAL = """\
[Unit]
ConditionFirstBoot=
ConditionCredential=passwd.hashed-password.root

[Service]
ExecStart=
ExecStart=systemd-firstboot
StandardInput=null
"""

PASSWORDS_OF_USERS = "[Service]\nImportCredential=passwd.*\n"

MASKED_UNITS = (
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "remote-fs.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-creds.socket",
    "systemd-hibernate-clear.service",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-modules-load.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-pcrextend.socket",
    "systemd-pcrlock.socket",
    "systemd-pcrmachine.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-rfkill.socket",
    "systemd-sysext.socket",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
    "getty@tty1.service",
)

SILENT_GENERATORS = (
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
)

LATE_UNITS = (
    "dbus.service",
    "dbus.socket",
    "serial-getty@.service",
    "systemd-logind.service",
    "systemd-resolved.service",
    "systemd-user-sessions.service",
)

UNITS = "etc/systemd/system"
VENDOR = "/usr/lib/systemd/system"

FILES: dict[str, str] = {
    "etc/systemd/network/80-dhcp.network": DHCP_ON_ALL,
    "etc/systemd/journald.conf.d/ram.conf": "[Journal]\nStorage=volatile\nAudit=no\n",
    "etc/ssh/sshd_config.d/10-thimble.conf": ED25519_ONLY,
    f"{UNITS}/ssh.service": SSH_FIRST,
    f"{UNITS}/sshd-keygen.service": HOST_KEY,
    f"{UNITS}/coldplug-network.service": COLDPLUG_NETWORK,
    f"{UNITS}/systemd-udev-trigger.service": COLDPLUG_AFTER_SSH,
    f"{UNITS}/systemd-tmpfiles-setup-dev.service": STATIC_NODES_AFTER_SSH,
    f"{UNITS}/systemd-firstboot.service.d/credential.conf": PASSWORD_BY_CREDENTIAL,
    f"{UNITS}/systemd-sysusers.service.d/passwords.conf": PASSWORDS_OF_USERS,
    f"{UNITS}/systemd-networkd-wait-online.service.d/any.conf": ANY_ADDRESS,
    **{f"{UNITS}/{unit}.d/after-ssh.conf": AFTER_SSH for unit in LATE_UNITS},
}

LINKS: dict[str, str] = {
    # Users other than root may log in as soon as sshd answers, not only when all of Debian is up.
    "etc/tmpfiles.d/systemd-nologin.conf": "/dev/null",
    **{f"{UNITS}/{unit}": "/dev/null" for unit in MASKED_UNITS},
    **{f"etc/systemd/system-generators/{name}": "/dev/null" for name in SILENT_GENERATORS},
    "etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf",
    f"{UNITS}/sysinit.target.wants/ssh.service": f"/{UNITS}/ssh.service",
    f"{UNITS}/sysinit.target.wants/coldplug-network.service": f"/{UNITS}/coldplug-network.service",
    f"{UNITS}/sysinit.target.wants/systemd-networkd.service": f"{VENDOR}/systemd-networkd.service",
    f"{UNITS}/multi-user.target.wants/systemd-networkd-wait-online.service": (
        f"{VENDOR}/systemd-networkd-wait-online.service"
    ),
    f"{UNITS}/sysinit.target.wants/systemd-network-generator.service": (
        f"{VENDOR}/systemd-network-generator.service"
    ),
    f"{UNITS}/sockets.target.wants/systemd-networkd.socket": f"{VENDOR}/systemd-networkd.socket",
    f"{UNITS}/getty.target.wants/serial-getty@ttyS0.service": f"{VENDOR}/serial-getty@.service",
}

REMOVED = (
    "etc/hostname",
    "etc/resolv.conf",
    f"{UNITS}/getty.target.wants/getty@tty1.service",
    f"{UNITS}/multi-user.target.wants/ssh.service",
    f"{UNITS}/multi-user.target.wants/remote-fs.target",
    f"{UNITS}/timers.target.wants",
    f"{UNITS}/sysinit.target.wants/systemd-pstore.service",
)

DEBIAN = Overlay(files=FILES, links=LINKS, removed=REMOVED)
