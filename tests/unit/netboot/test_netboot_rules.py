"""Who is served, under which number, with which document; and what dnsmasq and iPXE are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.contract.netboot import DocumentFor, Mode, ServeBoot
from thimble.contract.network import SwitchKind
from thimble.netboot import render, rules
from thimble.network.subnet import parse

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
KINDS = {"rack": SwitchKind.BRIDGED, "nat": SwitchKind.NAT, "alone": SwitchKind.ISOLATED}


def serve(*allow: str, documents: dict[str, str] | None = None, switch: str = "rack") -> ServeBoot:
    made = tuple(DocumentFor(match=match, text=text) for match, text in (documents or {}).items())
    return ServeBoot(switch=switch, allow=allow, documents=made)


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        (serve("any"), []),
        (serve(MAC.upper(), "serial:ABC 1"), []),
        (serve(documents={MAC: ""}), []),
        (serve("any", switch="nat"), ["$.switch"]),
        (serve("any", switch="gone"), ["$.switch"]),
        (serve(), ["$.allow"]),
        (serve("52:54:00", "serial:", "all"), ["$.allow[0]", "$.allow[1]", "$.allow[2]"]),
        (serve(documents={"x": "", "any": "{{m}} {{n}}"}), ["$.documents[0].match", "$.documents[1].text"]),
        (serve(documents={MAC: "", MAC.upper().replace("F", "f"): ""}), []),
        (ServeBoot(switch="rack", allow=("any",), mode=Mode.PROXY, subnet="10.0.0.0/24"), ["$.subnet"]),
        (ServeBoot(switch="rack", allow=("any",), mode=Mode.PROXY, subnet="10.0.0.2/24"), []),
        (ServeBoot(switch="rack", allow=("any",), subnet="10.0.0.2"), ["$.subnet"]),
        (serve(documents={"any": ""}), ["$.allow"]),
    ],
)  # fmt: skip
def test_settings_are_refused_with_all_reasons(wanted: ServeBoot, paths: list[str]) -> None:
    assert [reason.path for reason in rules.reasons(wanted, KINDS)] == paths


def test_two_documents_for_one_machine_are_refused() -> None:
    twice = (DocumentFor(match="serial:A", text=""), DocumentFor(match="serial:a", text=""))
    wanted = ServeBoot(switch="rack", documents=twice)
    assert [reason.path for reason in rules.reasons(wanted, KINDS)] == ["$.documents[1].match"]


def test_only_who_is_named_is_served() -> None:
    assert rules.allowed(serve("any"), MAC, "")
    assert rules.allowed(serve(MAC.upper()), MAC, "S1") and not rules.allowed(serve(MAC), OTHER, "S1")
    assert rules.allowed(serve("serial:s1"), MAC, "S1") and not rules.allowed(serve("serial:s1"), MAC, "")
    named = serve(documents={MAC: "", "any": ""})
    assert rules.allowed(named, MAC, "") and not rules.allowed(named, OTHER, "")
    assert not rules.allowed(serve("serial:s1"), MAC, "any"), "nobody's serial number is everybody"


def test_dhcp_answers_named_macs_alone_when_it_can_know() -> None:
    assert rules.addresses_for(serve(OTHER, documents={MAC: "", "any": ""})) == (MAC, OTHER)
    assert rules.addresses_for(serve(MAC, "serial:1")) == ()
    assert rules.addresses_for(serve(MAC, "any")) == ()


def test_the_document_is_the_one_that_fits_best() -> None:
    wanted = serve("any", documents={"any": "a", "serial:S1": "s", MAC.upper(): "m"})
    texts = [
        rules.document_for(wanted, mac, serial) for mac, serial in ((MAC, "S1"), (OTHER, "s1"), (OTHER, ""))
    ]
    assert [one.text for one in texts if one] == ["m", "s", "a"]
    assert rules.document_for(serve("any"), MAC, "") is None


def test_templates_are_filled_and_what_is_no_field_stays() -> None:
    text = 'name = "node{{n}}" # {{ mac }} { {{x}} {n}'
    assert rules.filled(text, {"n": "3", "mac": MAC}) == f'name = "node3" # {MAC} {{ {{{{x}}}} {{n}}'


@given(st.sets(st.integers(1, 40)))
def test_the_lowest_free_number_is_next(taken: set[int]) -> None:
    number = rules.next_number(taken)
    assert number not in taken and all(lower in taken for lower in range(1, number))


@given(st.text())
def test_serial_numbers_are_a_line_of_plain_text(text: str) -> None:
    found = rules.serial(text)
    assert len(found) <= 64 and found.isascii() and (found == "" or found.isprintable())


@pytest.mark.parametrize(
    ("cidr", "net"),
    [
        ("10.0.2.15/24", "10.0.2.0/24"),
        ("10.1.1.1/30", "10.1.1.0/30"),
        ("::1/64", ""),
        ("10.0.0.1/32", ""),
    ],
)
def test_an_address_tells_its_subnet(cidr: str, net: str) -> None:
    assert rules.assigned_subnet(cidr) == net


def config(mode: Mode, macs: tuple[str, ...] = ()) -> str:
    net = parse("192.168.9.0/24")
    assert net is not None
    plan = render.dhcp(
        "rack", "tb-1", mode, "192.168.9.1", net, macs=macs, most=4, directory="/r", account=("u", "g")
    )
    assert plan.hosts == "".join(f"{mac},set:allowed\n" for mac in macs)
    return plan.config


def test_with_a_foreign_dhcp_server_no_address_is_given() -> None:
    text = config(Mode.PROXY)
    assert "dhcp-range=192.168.9.1,proxy,255.255.255.0" in text.splitlines()
    assert "dhcp-authoritative" not in text and "dhcp-option" not in text.replace("dhcp-option-force", "")
    assert "pxe-service=tag:!ipxe,X86-64_EFI,Thimble,snponly.efi" in text.splitlines()


def test_alone_on_the_wire_addresses_are_given_and_no_way_out() -> None:
    lines = config(Mode.DHCP, (MAC,)).splitlines()
    assert "dhcp-range=192.168.9.205,192.168.9.254,255.255.255.0,1h" in lines
    assert "dhcp-option=option:router" in lines and "dhcp-ignore=tag:!allowed" in lines
    assert "dhcp-boot=tag:!ipxe,tag:http,http://192.168.9.1/snponly.efi" in lines
    assert "dhcp-ignore=tag:!allowed" not in config(Mode.DHCP)


def test_a_machine_is_told_what_to_load_and_where_to_report() -> None:
    text = render.script("192.168.9.1", "t0", "console=ttyS0 x=1", document=True)
    base = "http://192.168.9.1/n/t0"
    assert text.splitlines() == [
        "#!ipxe",
        f"kernel {base}/vmlinuz initrd=initrd console=ttyS0 x=1 thimble.config={base}/thimble.toml "
        f"thimble.report={base}/report",
        f"initrd --name initrd {base}/initrd",
        "boot",
    ]
    assert "thimble.config" not in render.script("192.168.9.1", "t0", "", document=False)
