"""Texts are read with every mistake at its place, however they are written and however bad they are."""

from __future__ import annotations

import time
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thimble.contract.vm import Autostart, Intent
from thimble.core.problem import Code, Problem
from thimble.document import toml
from thimble.document.positions import Places
from thimble.document.read import read


def faults(text: str) -> list[str]:
    """`line:column: message` of every mistake."""
    with pytest.raises(Problem) as caught:
        read(text)
    return [f"{one.line}:{one.column}: {one.message}" for one in caught.value.reasons]


def spots(text: str) -> dict[str, tuple[int, int]]:
    """dotted path → place of its value, for every value that tomllib finds."""
    tree = tomllib.loads(text)
    places = Places(text)
    found: dict[str, tuple[int, int]] = {}

    def walk(value: Any, path: tuple[str | int, ...]) -> None:
        spot = places.value(path)
        found[".".join(map(str, path))] = (spot.line, spot.column)
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, one in pairs:
            walk(one, (*path, key))

    walk(tree, ())
    return found


def test_every_way_to_write_a_value_is_located() -> None:
    text = (
        "a.b = 1 # c\n"
        '"q.\\u0041" = "x"\n'
        "[t]\n"
        "  x = [ 1, [2, 3], # no ] here\n"
        '    {y = \'z]\', w.v = """many\n'
        'lines\\""" ]""", k = 5} ]\n'
        "m = '''\n"
        "]]''''\n"
        "[[n]]\n"
        "o = 2020-01-01 10:00:00\n"
        "[[n]]\n"
        "[n.sub.more]\n"
        "p = 1\n"
        "[[n.list]]\n"
        "r = true\n"
    )
    assert spots(text) == {
        "": (1, 1),
        "a": (1, 1), "a.b": (1, 7),
        "q.A": (2, 14),
        "t": (3, 1), "t.x": (4, 7), "t.x.0": (4, 9), "t.x.1": (4, 12), "t.x.1.0": (4, 13), "t.x.1.1": (4, 16),
        "t.x.2": (5, 5), "t.x.2.y": (5, 10), "t.x.2.w": (5, 16), "t.x.2.w.v": (5, 22), "t.x.2.k": (6, 21),
        "t.m": (7, 5),
        "n": (9, 1), "n.0": (9, 1), "n.0.o": (10, 5),
        "n.1": (11, 1), "n.1.sub": (12, 1), "n.1.sub.more": (12, 1), "n.1.sub.more.p": (13, 5),
        "n.1.list": (14, 1), "n.1.list.0": (14, 1), "n.1.list.0.r": (15, 5),
    }  # fmt: skip


#: Machines that run tests are busy.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
keys = st.text(min_size=1, max_size=8)
plain = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.datetimes(timezones=st.just(UTC)).map(lambda one: one.replace(microsecond=0)),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, max_size=4),
        st.lists(st.dictionaries(keys, inner, max_size=3), max_size=3),
        st.lists(plain, max_size=4),
    ),
    max_leaves=20,
)
trees = st.dictionaries(keys, values, max_size=5)


@CALM
@given(trees)
def test_what_is_written_is_read_back(tree: dict[str, Any]) -> None:
    assert tomllib.loads(toml.write(tree)) == tree


@CALM
@given(trees)
def test_whatever_is_written_each_value_is_found_on_a_line_of_its_key(tree: dict[str, Any]) -> None:
    text = toml.write(tree)
    lines = text.split("\n")
    for path, (line, column) in spots(text).items():
        assert 1 <= line <= len(lines), path
        assert 1 <= column <= len(lines[line - 1]) + 1, path


def test_no_mistake_hides_another() -> None:
    text = (
        'format = 2\n[host]\nnmae = "x"\n[[vm]]\nname = "web1"\nvcpus = 0\nmemory_mib = "12"\n'
        'firmware = "uefy"\ndisks = [{ size_bytes = 10, "bus" = \'ide\' },\n  { foo.bar = 1 }]\n'
        "[vm.direct]\nkernel = 5\n[[vm]]\n[datastore]\na = 1\n"
        '[[user]]\nname = "a"\npassword_hash = "secret"\n'
        '[[token]]\nname = "t"\nuser = "a"\nsha256 = "ab"\nexpires = 2030-01-01\n'
    )
    assert faults(text) == [
        "1:10: only 1 is known here, not 2",
        "2:2: 'name' is missing here",
        "3:1: there is no 'nmae' here; did you mean 'name'?",
        "6:9: this must be at least 1",
        "7:14: a whole number belongs here, not text in quotes",
        "8:12: 'uefy' is none of uefi, bios, direct; did you mean 'uefi'?",
        "9:37: 'ide' is none of virtio, sata, nvme",
        "10:5: there is no 'foo' here; there is bus, format, image, name, read_only, size_bytes, volume",
        "12:10: text in quotes belongs here, not a whole number",
        "13:1: 'name' is missing here",
        "14:1: a list in brackets belongs here, not a table: write [[datastore]] with double brackets",
        "18:17: this is no password hash: make one with `thimble user hash`",
        "22:10: a SHA-256 digest has 64 digits of 0-9 and a-f",
        "23:11: a date and time such as 2030-01-01T00:00:00Z belongs here, not a date",
    ]


def test_what_the_types_cannot_say_is_said_as_well() -> None:
    text = (
        'format = 1\n[host]\nname = "No Name"\n[management]\nnic = "eth0"\naddress = "10.0.0.255/24"\n'
        'gateway = "10.0.1.1"\ndns = ["8.8.8.8", "dns.example"]\naddress6 = "off"\n'
        '[time]\nservers = ["a b"]\n'
        '[update]\nurl = "ftp://x"\ntrust = ["-----BEGIN PRIVATE KEY-----"]\n'
        '[install]\ndisk = "sda"\nmirror = "largest"\nerase = ["serial:"]\n'
        '[[datastore]]\nname = "local"\nkind = "ram"\n'
        '[[datastore]]\nname = "big"\nkind = "disk"\ndevice = "sdb"\n'
        '[[switch]]\nname = "lan"\nkind = "bridged"\nsubnet = "10.0.0.0/24"\n'
        '[[switch]]\nname = "lan"\nkind = "nat"\nsubnet = "8.8.8.0/24"\n'
        'forwards = [{ port = 80, vm = "a", to_port = 80 }, { port = 80, vm = "b", to_port = 80 }]\n'
        '[[vm]]\nname = "a"\nfirmware = "direct"\ndisks = [{}, { volume = "v", size_bytes = 512 }]\n'
        '[[vm]]\nname = "a"\nmemory_mib = 32\nnics = [{ switch = "lan", mac = "01:00:00:00:00:00" }]\n'
        'seed = { password_hash = "(hidden)" }\n'
        '[[vm]]\nname = "b"\ndisks = [{ volume = "local/v" }]\n'
    )
    told = "\n".join(faults(text))
    for words in (
        "3:8: 'No Name': use a-z",
        "5:7: 'eth0' is not a MAC address",
        "6:11: 10.0.0.255/24 is the network's own or broadcast address",
        "7:11: 10.0.1.1 is not in 10.0.0.0/24",
        "8:19: 'dns.example' is no IP address",
        "11:12: 'a b' is neither a host name nor an address",
        "13:7: this is no address",
        "14:10: this is a private key",
        "16:8: a disk is serial:",
        "18:10: a disk is serial:",
        "20:8: the datastore local is always there",
        "19:1: kind ram needs size_bytes",
        "25:10: write serial:",
        "26:1: kind bridged needs uplink",
        "29:10: subnet goes with kind nat",
        "31:8: there is a switch 'lan' above already",
        "33:10: 8.8.8.0/24 is not private address space",
        "34:61: tcp port 80 is forwarded by lan already",
        "35:1: firmware direct needs `direct`",
        "38:10: a disk needs one of volume, image and size_bytes",
        "38:43: size_bytes does not go with volume",
        "40:8: there is a vm 'a' above already",
        "41:14: UEFI firmware needs at least 64 MiB",
        "42:33: 01:00:00:00:00:00 is not the address of a single card",
        "43:8: (hidden) stands for a value that the API does not show",
        "46:21: local/v is a disk of a already",
    ):
        assert words in told, f"{words!r} is not among\n{told}"


def test_a_host_that_nobody_could_reach_is_refused() -> None:
    text = 'format = 1\n[management]\naddress = "off"\naddress6 = "off"\n'
    assert faults(text) == ["4:12: without any address nobody could reach the host"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = \n", "1:5"),
        ("[a\n", "1:3"),
        ("a = 1\na = 2\n", "2:6"),
        ('x = "', "1:6"),
        ("\n\n[t]\nk k = 1", "4:3"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(text: str, place: str) -> None:
    (told,) = faults(text)
    assert told.startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a = " + "[" * 200_000, Code.MALFORMED),
        ("a = " + "{b=" * 100_000, Code.MALFORMED),
        ("a." * 200_000 + "b = 1", Code.MALFORMED),
        ("'a' . " * 100_000 + "b = 1", Code.MALFORMED),
        ("[" + "a." * 200_000 + "b]", Code.MALFORMED),
        ("x = " + "9" * 100_000, Code.MALFORMED),
        ("#" * ((1 << 20) + 1), Code.TOO_LARGE),
        ("é" * ((1 << 19) + 1), Code.TOO_LARGE),
        ("a" * 1_000_000 + " = 1", Code.INVALID),
    ],
)
def test_giant_and_deep_texts_are_refused_soon_and_briefly(text: str, code: Code) -> None:
    begun = time.monotonic()
    with pytest.raises(Problem) as caught:
        read(text)
    assert caught.value.code is code
    assert time.monotonic() - begun < 20
    assert sum(len(one.message + one.path) for one in caught.value.reasons) < 10_000


def test_hundreds_of_mistakes_are_cut() -> None:
    told = faults("format = 1\n" + "".join(f"x{n} = 1\n" for n in range(500)))
    assert len(told) == 100


def test_line_ends_and_marks_of_other_systems_do_not_matter() -> None:
    text = '\ufeffformat = 1\r\n[[vm]]\r\nname = "web1"\r\nvcpus = "3"\r\n'
    assert faults(text) == ["4:9: a whole number belongs here, not text in quotes"]


def test_a_vm_that_is_to_run_starts_with_the_host_unless_it_is_said_otherwise() -> None:
    text = (
        'format = 1\n[[vm]]\nname = "a"\n[[vm]]\nname = "b"\nstate = "stopped"\n'
        '[[vm]]\nname = "c"\nautostart = { enabled = false, order = 7 }\n'
    )
    a, b, c = read(text).document.vm
    assert (a.state, a.autostart) == (Intent.RUNNING, Autostart(enabled=True))
    assert (b.state, b.autostart) == (Intent.STOPPED, Autostart())
    assert (c.state, c.autostart) == (Intent.RUNNING, Autostart(order=7))


def test_dates_are_written_as_toml_has_them() -> None:
    assert toml.write({"d": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)}) == "d = 2030-01-02T03:04:05Z\n"
