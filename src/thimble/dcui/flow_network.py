"""The management network: a change is undone unless somebody keeps it (commit-confirm). Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from thimble.contract.management import Management, ManagementChange, ManagementSettings
from thimble.dcui import actions
from thimble.dcui.model import Answer, Ask, Failed, Model, Step
from thimble.dcui.pages import Act, ConfirmPage, Editor, Field, Form, Wait

#: Seconds a change of the management network stays without being kept.
CONFIRM_S = 90

NET_FIELDS = (
    ("nic", "Network card", "MAC address of the NIC; empty: the first with a link."),
    ("vlan", "VLAN", "0: untagged."),
    ("address", "IPv4 address", "dhcp, off, or address/prefix such as 10.0.0.5/24."),
    ("gateway", "IPv4 gateway", "Only with a static address."),
    ("dns", "DNS servers", "Addresses separated by spaces; empty: from DHCP."),
    ("address6", "IPv6 address", "auto, off, or address/prefix such as 2001:db8::5/64."),
    ("gateway6", "IPv6 gateway", "Only with a static address."),
)


def management(model: Model, _arg: str) -> Step:
    return actions.ask(model, Ask(to="management", verb="management.get"))


def management_came(model: Model, answer: Answer) -> Step:
    found: Management = answer.value
    model = replace(model, management=found)
    if found.pending is not None:
        return actions.push(model, trial_page(found)), ()
    cards = tuple(f"NICs of this host: {', '.join(model.local.nics)}" for _ in model.local.nics[:1])
    there = tuple(f"Present addresses: {', '.join(model.host.addresses)}" for _ in (1,) if model.host)
    fields = tuple(
        Field(name=name, label=label, value=shown(found.settings, name), help=text)
        for name, label, text in NET_FIELDS
    )
    form = Form(
        title="Management network",
        kind="management",
        act=Act("management.check"),
        intro=(*there, *cards, f"A change is undone after {CONFIRM_S} s unless you keep it."),
        fields=fields,
    )
    return actions.push(model, form), ()


def shown(settings: ManagementSettings, name: str) -> str:
    value = getattr(settings, name)
    return " ".join(value) if isinstance(value, tuple) else str(value)


def wanted(form: Form, now: ManagementSettings) -> ManagementChange | str:
    """What differs from `now`; a message when a field is invalid."""
    changes: dict[str, object] = {}
    for name, _, _ in NET_FIELDS:
        text = form.value(name).strip()
        value: object = tuple(text.replace(",", " ").split()) if name == "dns" else text
        if name == "vlan":
            if not text.isascii() or not text.isdigit() or int(text) > 4094:
                return "VLAN: a number from 0 to 4094."
            value = int(text)
        if value != getattr(now, name):
            changes[name] = value
    return (
        msgspec.convert(changes | {"confirm_within": CONFIRM_S}, ManagementChange)
        if changes
        else "Nothing to change."
    )


def management_check(model: Model, _arg: str) -> Step:
    form, here = model.page, model.management
    if not isinstance(form, Form) or here is None:
        return model, ()
    change = wanted(form, here.settings)
    if isinstance(change, str):
        return actions.swap(model, replace(form, note=(change,))), ()
    question = Ask(to="management.changed", verb="management.change", input=change, if_match=here.rev)
    return actions.propose(
        actions.swap(model, replace(form, note=())), "Change the management network", question
    )


def management_changed(model: Model, answer: Answer) -> Step:
    """The change is made; it is to be confirmed."""
    found: Management = answer.value
    model = replace(model, management=found)
    while isinstance(model.page, Wait | Form | ConfirmPage):
        model = actions.pop(model)
    if found.pending is None:
        return actions.toast(model, "The management network is changed."), ()
    return actions.push(model, trial_page(found)), ()


def after_document(model: Model, _arg: str) -> Step:
    """A document may have changed the management network: that is to be confirmed, too."""
    if isinstance(model.page, Editor):
        model = actions.pop(model)
    return actions.ask(model, Ask(to="management.seen", verb="management.get"))


def seen(model: Model, answer: Answer) -> Step:
    found: Management = answer.value
    model = replace(model, management=found)
    return (actions.push(model, trial_page(found)) if found.pending else model), ()


def trial_page(found: Management) -> ConfirmPage:
    assert found.pending is not None
    new = found.settings
    lines = [f"IPv4 {new.address}", f"IPv6 {new.address6}", f"VLAN {new.vlan}"]
    lines += [f"gateway {new.gateway}"] if new.gateway else []
    before = found.pending.previous
    lines += ["", f"before: IPv4 {before.address}, IPv6 {before.address6}, VLAN {before.vlan}"]
    if found.pending.problem:
        lines += ["", f"not in force yet: {found.pending.problem}"]
    lines += ["", "Check that the host can be reached at its new address, then keep the change."]
    return ConfirmPage(
        title="The management network is changed, not confirmed yet",
        lines=tuple(lines),
        until=found.pending.until,
    )


def _decide(model: Model, verb: str) -> Step:
    return actions.ask(model, Ask(to=f"management.{verb}", verb=f"management.{verb}", fresh=True))


def keep(model: Model, _arg: str) -> Step:
    return _decide(model, "confirm")


def undo(model: Model, _arg: str) -> Step:
    return _decide(model, "undo")


def kept(model: Model, answer: Answer) -> Step:
    return actions.toast(
        _off_trial(replace(model, management=answer.value)),
        "The new settings of the management network are kept.",
    ), ()


def undone(model: Model, answer: Answer) -> Step:
    return actions.toast(
        _off_trial(replace(model, management=answer.value)), "The management network is as before."
    ), ()


def _off_trial(model: Model) -> Model:
    return actions.pop(model) if isinstance(model.page, ConfirmPage) else model


def not_kept(model: Model, failed: Failed) -> Step:
    """Too late, or not in force yet: the page stays until the time is over."""
    page = model.page
    if isinstance(page, ConfirmPage):
        return actions.swap(
            model, replace(page, lines=(*page.lines[:4], "", *actions.problem_lines(failed.problem)))
        ), ()
    return actions.push(model, actions.problem_page(failed.problem, "Keep the management network")), ()


def overdue(model: Model) -> Model:
    """The time to keep it is over."""
    page = model.page
    if isinstance(page, ConfirmPage) and model.clock > page.until + 1:
        return actions.toast(
            actions.pop(model), "Nobody kept the change: the management network has its old settings again."
        )
    return model


ACTS = {
    "management": management,
    "management.check": management_check,
    "management.after": after_document,
    "management.keep": keep,
    "management.undo": undo,
}
ANSWERS = {
    "management": management_came,
    "management.changed": management_changed,
    "management.seen": seen,
    "management.confirm": kept,
    "management.undo": undone,
}
FAILURES = {
    "management.confirm": not_kept,
    "management.undo": not_kept,
}
