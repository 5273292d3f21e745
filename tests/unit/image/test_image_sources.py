"""From the machine's sources to those of the private root."""

from __future__ import annotations

from thimble.image import sources

DEB822 = """
Types: deb deb-src
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""

LINES = """
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/apt bookworm main
deb http://docker.example/linux/debian bookworm stable
deb cdrom:[Debian]/ bookworm main
deb http://old.example/debian/ bullseye main contrib
deb http://old.example/security bullseye/updates main
"""


def derived(found: list[sources.AptSource]) -> str:
    return sources.derive(found, suite="trixie", keyring="/keyring.gpg")


def test_the_mirror_stays_and_the_suite_is_replaced() -> None:
    text = derived(sources.parse_deb822(DEB822))
    assert "URIs: http://mirror.example/debian\nSuites: trixie trixie-updates\n" in text
    assert "URIs: http://mirror.example/debian-security\nSuites: trixie-security\n" in text


def test_every_stanza_demands_debians_keyring_and_offers_firmware() -> None:
    text = derived(sources.parse_deb822(DEB822))
    assert text.count("Signed-By: /keyring.gpg") == text.count("Types: deb") == 2
    assert text.count("Components: main non-free-firmware") == 2


def test_disabled_stanzas_are_left_out() -> None:
    assert "off.example" not in derived(sources.parse_deb822(DEB822))


def test_third_parties_discs_and_comments_are_left_out() -> None:
    text = derived(sources.parse_lines(LINES))
    assert "vendor.example" not in text
    assert "docker.example" not in text
    assert "cdrom" not in text
    assert "commented" not in text


def test_old_style_lines_are_understood() -> None:
    text = derived(sources.parse_lines(LINES))
    assert "URIs: http://old.example/debian/\n" in text
    assert "URIs: http://old.example/security\nSuites: trixie-security\n" in text


def test_a_machine_without_debian_gets_no_sources() -> None:
    assert derived(sources.parse_lines("deb http://other.example/os jammy main")) == ""
