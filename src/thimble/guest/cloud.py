"""The guest that takes its first-boot data from cloud-init: Debian 13, as on most clouds. For tests.

It is the demonstration guest and cloud-init, with nothing else to fall back on: no network settings of its
own, and seeded without credentials. Of cloud-init it runs what first-boot data need: under TCG every other
module costs seconds. When all stages are over its console says `cloud guest: done`.
"""

from __future__ import annotations

from thimble.guest import overlay
from thimble.guest.debian import DebianGuest, Recipe
from thimble.guest.debian import ensure as ensure_like
from thimble.guest.overlay import UNITS, VENDOR, Overlay
from thimble.image.progress import Report, silent

DONE = "cloud guest: done"

SETTINGS = """\
datasource_list: [NoCloud, None]
disable_root: true
users: [default]
cloud_init_modules: [set_hostname, update_hostname, users_groups, ssh]
cloud_config_modules: [set_passwords]
cloud_final_modules: [write_files_deferred, scripts_user]
ssh_deletekeys: false
ssh_genkeytypes: []
ssh: {emit_keys_to_console: false}
system_info:
  distro: debian
  default_user: {name: debian, lock_passwd: true, shell: /bin/bash}
  network: {renderers: [networkd]}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
  ssh_svcname: ssh
"""

SAY_DONE = f"""\
[Unit]
Description=Tell the console that first-boot data are in effect
After=cloud-final.service ssh.service

[Service]
Type=oneshot
ExecStart=echo "{DONE}"
StandardOutput=tty
TTYPath=/dev/ttyS0
"""

FILES = {
    **{path: text for path, text in overlay.FILES.items() if not path.startswith("etc/systemd/network/")},
    "etc/cloud/cloud.cfg": SETTINGS,
    f"{UNITS}/cloud-done.service": SAY_DONE,
}

LINKS = {
    **overlay.LINKS,
    # the generator, which looks for a datasource before anything runs, costs as much as its answer saves
    "etc/systemd/system-generators/cloud-init-generator": "/dev/null",
    f"{UNITS}/multi-user.target.wants/cloud-init.target": f"{VENDOR}/cloud-init.target",
    f"{UNITS}/cloud-init.target.wants/cloud-done.service": f"/{UNITS}/cloud-done.service",
}

RECIPE = Recipe(
    name="cloud",
    sets=("debian", "cloud"),
    laid=Overlay(files=FILES, links=LINKS, removed=overlay.REMOVED),
)


def ensure(report: Report = silent) -> DebianGuest:
    """The guest's files in the cache, made if missing (about two minutes; root)."""
    return ensure_like(report, RECIPE)
