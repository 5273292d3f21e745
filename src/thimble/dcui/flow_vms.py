"""Virtual machines: the list, the actions on one, its console. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from thimble.contract.vm import StartRequest, StopRequest, VmSummary
from thimble.dcui import actions
from thimble.dcui.model import Answer, Ask, Attach, Detached, Model, Step
from thimble.dcui.pages import Act, Item, Menu, Text

#: verb of `allowed` → (label, help, whether its effects are shown first)
VERBS = {
    "start": ("Start", "A saved VM resumes where it was saved.", False),
    "resume": ("Resume", "Resume its vCPUs.", False),
    "stop": ("Shut down", "Ask the guest to shut down; it has two minutes.", True),
    "pause": ("Pause", "Stop its vCPUs.", False),
    "save": ("Save", "Suspend to disk: save its memory and stop it.", True),
    "reset": ("Reset", "Press its reset button.", True),
    "kill": ("Power off", "At once, like pulling the plug.", True),
}
INPUTS = {"start": StartRequest(), "stop": StopRequest()}


def vms(model: Model, _arg: str) -> Step:
    page = Menu(title="Virtual machines", kind="vms", items=(), head=" ", intro=("Looking ...",))
    return actions.ask(actions.push(model, page), Ask(to="vms", verb="vm.list"))


def came(model: Model, answer: Answer) -> Step:
    """A new list; the cursor stays on the same VM."""
    model = replace(model, vms=answer.value.vms)
    page = next((old for old in model.pages if old.kind == "vms"), None)
    if isinstance(page, Menu):
        model = actions.change(model, "vms", listed(page, model.vms))
    for old in model.pages:
        if isinstance(old, Menu) and old.kind.startswith("vm:"):
            vm = find(model, old.kind[3:])
            fresh = None if vm is None else of_one(vm).at(old.cursor)
            if fresh is not None and fresh.items != old.items:
                model = actions.change(model, old.kind, fresh)
    return model, ()


def listed(page: Menu, found: tuple[VmSummary, ...]) -> Menu:
    at = page.items[page.cursor].act.arg if page.items else ""
    wide = max([8, *(len(vm.name) for vm in found)])
    wide = min(wide, 32)
    items = tuple(Item(_row(vm, wide), Act("vm", vm.id), vm.why) for vm in found)
    cursor = next((number for number, vm in enumerate(found) if vm.id == at), page.cursor)
    intro = (
        ()
        if found
        else ("No virtual machines yet. Create one with `thimble vm create`, the web client or a document.",)
    )
    head = f"{'name':{wide}}  {'state':9} {'vCPUs':>5} {'memory':>9}  address"
    return replace(page, items=items, intro=intro, head=head).at(cursor)


def _row(vm: VmSummary, wide: int) -> str:
    memory = f"{vm.memory_mib} MiB" if vm.memory_mib < 10240 else f"{vm.memory_mib / 1024:.0f} GiB"
    return f"{vm.name[:wide]:{wide}}  {vm.state:9} {vm.vcpus:>5} {memory:>9}  {' '.join(vm.ip)}"


def find(model: Model, id: str) -> VmSummary | None:
    return next((vm for vm in model.vms if vm.id == id), None)


def one(model: Model, id: str) -> Step:
    vm = find(model, id)
    if vm is None:
        return actions.toast(model, "This virtual machine no longer exists."), ()
    return actions.push(model, of_one(vm)), ()


def of_one(vm: VmSummary) -> Menu:
    items = [
        Item(label, Act("vm.do", f"{verb} {vm.id}"), text)
        for verb, (label, text, _) in VERBS.items()
        if verb in vm.allowed
    ]
    if vm.state in ("running", "paused", "stopping", "starting"):
        items.append(Item("Serial console", Act("vm.console", vm.id), "Ctrl-] then . comes back here."))
    items.append(Item("Last serial output", Act("vm.log", vm.id), "What the guest said last."))
    about = f"{vm.state}, {vm.vcpus} vCPUs, {vm.memory_mib} MiB{', ' + ' '.join(vm.ip) if vm.ip else ''}"
    return Menu(
        title=vm.name, kind=f"vm:{vm.id}", items=tuple(items), intro=(about, *((vm.why,) if vm.why else ()))
    )


def do(model: Model, arg: str) -> Step:
    verb, _, id = arg.partition(" ")
    vm = find(model, id)
    if vm is None:
        return actions.toast(model, "This virtual machine no longer exists."), ()
    label, _, careful = VERBS[verb]
    question = Ask(to="vm", verb=f"vm.{verb}", path={"vm": id}, input=INPUTS.get(verb))
    title = f"{label}: {vm.name}"
    return (actions.propose if careful else actions.run)(model, title, question)


def console(model: Model, id: str) -> Step:
    vm = find(model, id)
    if vm is None or model.session is None:
        return model, ()
    return model, (Attach(vm.id, vm.name, model.session.token),)


def detached(model: Model, message: Detached) -> Step:
    model = replace(model, last_key=model.now, refreshed=-1e9)
    return (actions.toast(model, message.why) if message.why else model), ()


def log(model: Model, id: str) -> Step:
    return actions.ask(model, Ask(to="vm.log", verb="vm.log", path={"vm": id}))


def logged(model: Model, answer: Answer) -> Step:
    lines = tuple(answer.value.text.replace("\r", "").splitlines()) or ("no output yet",)
    return actions.push(model, Text(title="Last serial output", lines=lines, top=max(0, len(lines) - 16))), ()


ACTS = {"vms": vms, "vm": one, "vm.do": do, "vm.console": console, "vm.log": log}
ANSWERS = {"vms": came, "vm.log": logged}
