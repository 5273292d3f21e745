"""`thimble host run`: the agent's argument vector."""

from __future__ import annotations

from thimble import options
from thimble.cli.host import arguments

NONE = dict.fromkeys(("state", "run_dir", "listen", "qemu_dir", "share", "password_file"))


def test_roots_host_is_the_systems() -> None:
    assert arguments(NONE, {"HOME": "/root"}, root=True) == ["--hosted", "yes"]


def test_anybody_elses_host_lies_at_home() -> None:
    argv = arguments(NONE, {"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/7"}, root=False)
    read = options.parse(argv)
    assert str(read.state) == "/home/me/.local/state/thimble/host"
    assert str(read.run) == "/run/user/7/thimble"


def test_every_option_is_one_the_agent_knows() -> None:
    given = {name: f"/{name}" for name in NONE} | {"listen": "127.0.0.1:9443"}
    read = options.parse(arguments(given, {}, root=True))
    assert (str(read.state), str(read.run), read.host, read.port) == ("/state", "/run_dir", "127.0.0.1", 9443)
    assert (str(read.qemu_dir), str(read.share), str(read.password_file)) == (
        "/qemu_dir",
        "/share",
        "/password_file",
    )
