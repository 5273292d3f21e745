"""Readiness is announced where somebody looks: on the terminal, or by PID 1 on the consoles."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from thimble.host.announce import Ready, admit_console, announce
from thimble.host.pid1 import Init


def ready(**more: object) -> Ready:
    given = {
        "host": "", "port": 443, "fingerprint": "ab", "password": "", "seconds": 1.25, "warnings": ("mind",),
    }  # fmt: skip
    return Ready(**(given | more))  # type: ignore[arg-type]


def test_hosted_the_terminal_shows_address_password_and_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(Init(tmp_path), ready(host="2001:db8::7", port=8443, password="AAAA-BBBB"))
    assert capsys.readouterr().err.splitlines() == [
        "thimble: ready in 1.2 s",
        "thimble: https://[2001:db8::7]:8443/",
        "thimble: certificate SHA-256 ab",
        "thimble: login admin, password AAAA-BBBB",
        "thimble: warning: mind",
    ]
    announce(Init(tmp_path), ready(host="10.0.0.7"))
    assert "https://10.0.0.7/\n" in capsys.readouterr().err


def test_in_the_image_pid_1_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "init.sock"))
        announce(Init(tmp_path), ready(password="AAAA-BBBB"))
        heard = json.loads(line.recv(4096))
    assert heard == {
        "verb": "ready",
        "lines": ["certificate SHA-256 ab", "warning: mind"],
        "login": "login admin, password AAAA-BBBB",
    }
    assert capsys.readouterr().err == ""


def test_only_root_may_read_how_the_console_looks(tmp_path: Path) -> None:
    admit_console(tmp_path, host="", port=8443, fingerprint="ab", token="t")
    path = tmp_path / "console.json"
    assert json.loads(path.read_text()) == {
        "url": "https://127.0.0.1:8443",
        "fingerprint": "ab",
        "token": "t",
    }
    assert path.stat().st_mode & 0o077 == 0
