"""DHCP's question and its answers, bytes for bytes; a real server answers it in the system tests."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from thimble.netboot.probe import discover, offered_by

MAC = bytes.fromhex("525400000001")


def offer(kind: int = 2, number: int = 7, options: bytes = bytes((54, 4, 10, 0, 0, 1))) -> bytes:
    asked = discover(MAC, number)
    return b"\x02" + asked[1:240] + b"\0" + bytes((53, 1, kind)) + options + b"\xff"


def test_the_question_is_a_discover_by_broadcast() -> None:
    asked = discover(MAC, 0x01020304)
    assert len(asked) == 300 and asked[:4] == b"\x01\x01\x06\x00"
    assert struct.unpack_from(">IHH", asked, 4) == (0x01020304, 0, 0x8000)
    assert asked[28:34] == MAC and asked[236:243] == b"\x63\x82\x53\x63\x35\x01\x01"


def test_an_offer_to_us_names_its_server() -> None:
    assert offered_by(offer(), 7) == "10.0.0.1"
    assert offered_by(offer(options=b""), 7) == "0.0.0.0"
    assert offered_by(offer(), 8) == "", "somebody else's"
    assert offered_by(offer(kind=5), 7) == "", "no offer"
    assert offered_by(discover(MAC, 7), 7) == "", "a question"


@given(st.binary(max_size=400))
def test_garbage_is_no_offer(packet: bytes) -> None:
    offered_by(packet, 0)
    offered_by(offer()[:243] + packet, 7)
