"""The status screen: what the host is, how it is used, how to reach it, what is wrong with it. Pure."""

from __future__ import annotations

from thimble.core.units import show_size
from thimble.dcui.draw import Pen, Row
from thimble.dcui.model import Model

KEYS = (("F2", "Sign in"), ("F5", "Refresh"), ("L", "Log"), ("F12", "Restart/Shut down"), ("Q", "Leave"))
NO_AGENT = (("L", "Log"), ("F12", "Restart/Shut down"), ("F5", "Refresh"), ("Q", "Leave"))


def home(model: Model, pen: Pen, h: int) -> list[Row]:
    top = [pen.row("head"), *_machine(model, pen)]
    below = _silent(model, pen) if model.silent else [*_reach(model, pen), *_health(model, pen)]
    room = h - 2
    top = top[: max(1, room // 2)]
    below = below[: room - len(top)]
    gap = room - len(top) - len(below)
    return [
        *top,
        *below,
        *[pen.row("gold")] * gap,
        notice(model, pen, "gold"),
        keys(pen, NO_AGENT if model.silent else KEYS),
    ]


def notice(model: Model, pen: Pen, fill: str) -> Row:
    """The word at the bottom."""
    if not model.toast:
        return pen.row(fill)
    return pen.row(fill, (fill, "  "), ("toast", f" {model.toast} "))


def keys(pen: Pen, known: tuple[tuple[str, str], ...]) -> Row:
    """What can be pressed, as much of it as there is room for."""
    parts: list[tuple[str, str]] = []
    used = 0
    for key, word in known:
        more = len(key) + len(word) + 5
        if used + more > pen.w:
            break
        parts += [("key", f" <{key}>"), ("keys", f" {word} ")]
        used += more
    return pen.row("keys", *parts)


def _machine(model: Model, pen: Pen) -> list[Row]:
    host = model.host
    title = pen.ends("head", ("title", f"  Thimble {model.version}"), ("title", f"{model.name}  "))
    if host is None:
        word = "The agent does not answer." if model.silent else "Asking the host ..."
        return [title, pen.row("head"), pen.row("head", ("head", f"  {word}")), pen.row("head")]
    used = host.memory_bytes - host.memory_available_bytes
    load = host.load[0] / max(1, host.cpus)
    accel = "KVM" if host.accel == "kvm" else "NO KVM: emulated, slow"
    rows = [
        title,
        pen.row("head"),
        pen.row("head", ("head", f"  {host.cpus} x {host.cpu_model}, {accel}")),
        pen.row("head", ("head", f"  {_vms(host.vms, host.vms_running)}, up {since(host.uptime_s)}")),
        pen.row("head"),
        _bar(pen, "CPU load", load, f"{host.load[0]:.1f} of {host.cpus}"),
        _bar(
            pen,
            "Memory",
            used / max(1, host.memory_bytes),
            f"{show_size(used)} of {show_size(host.memory_bytes)}",
        ),
    ]
    for store in model.datastores:
        if store.mounted:
            taken = store.size_bytes - store.free_bytes
            words = f"{show_size(store.free_bytes)} free{'' if store.durable else ', in RAM'}"
            rows.append(_bar(pen, store.name, taken / max(1, store.size_bytes), words))
        else:
            rows.append(
                pen.row("head", ("head", f"  {store.name[:12]:12} "), ("bad", f"not there: {store.why}"))
            )
    return [*rows, pen.row("head")]


def _vms(all_: int, running: int) -> str:
    if not all_:
        return "No virtual machines yet"
    return (
        f"{running} of {all_} virtual machines running"
        if all_ > 1
        else f"1 virtual machine, {running} running"
    )


def since(seconds: float) -> str:
    """In minutes at the finest, so that the screen stays still."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"


def _bar(pen: Pen, name: str, share: float, words: str) -> Row:
    cells = max(8, min(40, pen.w - 46))
    style = "bad" if share >= 0.9 else "bar"
    return pen.row(
        "head",
        ("head", f"  {name[:12]:12} "),
        (style, pen.bar(share, cells)),
        ("head", f" {min(999, round(share * 100)):>3} %  {words}"),
    )


def _reach(model: Model, pen: Pen) -> list[Row]:
    host = model.host
    addresses = (host.addresses if host else ()) or model.local.addresses
    rows = [pen.row("gold"), pen.row("gold", ("gold title", "  To manage this host, go to"))]
    for address in addresses[:4]:
        where = f"[{address}]" if ":" in address else address
        rows.append(pen.row("gold", ("gold", f"    https://{where}/")))
    if not addresses:
        rows.append(pen.row("gold", ("alarm", "  ! No address: is a cable plugged in? Sign in to set one. ")))
    if host is not None and host.certificate_sha256:
        digits = host.certificate_sha256
        rows.append(pen.row("gold", ("gold", "  SHA-256 of its certificate, to compare with your browser:")))
        size = 64 if pen.w >= 70 else 32
        rows += [pen.row("gold", ("gold", f"    {digits[at : at + size]}")) for at in range(0, 64, size)]
    return rows


def _health(model: Model, pen: Pen) -> list[Row]:
    host = model.host
    if host is None:
        return []
    if not host.warnings:
        return [pen.row("gold"), pen.row("gold", ("gold title", "  Health: good"))]
    rows = [pen.row("gold"), pen.row("gold", ("gold title", f"  Health: {len(host.warnings)} to look at"))]
    for line in host.warnings:
        rows += pen.wrapped("gold", f"! {line}", indent=2, hang=2)
    return rows


def _silent(model: Model, pen: Pen) -> list[Row]:
    """Without the agent: what PID 1 knows."""
    local = model.local
    rows = [
        pen.row("gold"),
        pen.row("gold", ("alarm", "  ! The agent, which manages this host, does not answer. ")),
    ]
    rows += pen.wrapped("gold", model.silent, indent=4)
    if local.managed:
        rows += pen.wrapped("gold", "It is restarted automatically; virtual machines keep running.", indent=4)
    for line in local.last_words[-3:]:
        rows += pen.wrapped("gold", f"agent: {line}", indent=4, hang=2)
    for line in local.warnings:
        rows += pen.wrapped("gold", f"! {line}", indent=2, hang=2)
    if local.state:
        rows += pen.wrapped("gold", f"State: {local.state}", indent=2)
    for address in local.addresses[:2]:
        rows.append(pen.row("gold", ("gold", f"  Address {address}")))
    return rows


def small(model: Model, pen: Pen, h: int) -> list[Row]:
    """Plain, for a window too small for screens."""
    host = model.host
    addresses = (host.addresses if host else ()) or model.local.addresses
    lines = [model.name, *addresses[:1]]
    if model.silent:
        lines.append("agent does not answer")
    elif host is not None:
        lines.append(f"VMs {host.vms_running}/{host.vms}")
        lines += [f"! {len(host.warnings)} warnings"] if host.warnings else ["health good"]
    lines.append("enlarge; F10 leaves")
    return [pen.row("body", ("body", line)) for line in lines[:h]]
