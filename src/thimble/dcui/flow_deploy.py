"""Install on a disk, update, roll back: a preview, then the progress. Pure."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from thimble.contract.deploy import Deploy, InstallRequest, OldState, RollbackRequest, UpdateRequest
from thimble.dcui import actions
from thimble.dcui.model import Answer, Ask, Model, Step
from thimble.dcui.pages import Act, Field, Form, Item, Menu


def deploy(model: Model, _arg: str) -> Step:
    return actions.ask(model, Ask(to="deploy", verb="deploy.get"))


def deploy_came(model: Model, answer: Answer) -> Step:
    here: Deploy = answer.value
    first = "On an internal disk or flash; a preview is shown first."
    second = "Trial boot: rolled back automatically unless the new version works."
    items = [
        Item("Install on a disk", Act("deploy.install"), first),
        Item("Update from a URL", Act("deploy.update"), second),
    ]
    if here.installed:
        items.append(Item("Roll back", Act("deploy.rollback"), "Boot the other slot's version again."))
    menu = Menu(title="Install, update, roll back", items=tuple(items), intro=deploy_lines(here))
    return actions.push(replace(model, deploy=here), menu), ()


def deploy_lines(here: Deploy) -> tuple[str, ...]:
    secure = ", Secure Boot" if here.secure_boot else ""
    where = here.medium or "network"
    lines = [f"Version {here.version}, booted from {where} by {here.firmware.upper() or 'firmware'}{secure}."]
    lines += [
        f"slot {slot.slot}: {slot.state} {slot.version}{' (running)' if slot.running else ''}"
        for slot in here.slots
    ]
    if not here.installed:
        lines.append("Not installed: running from RAM.")
    if here.last is not None:
        why = f": {here.last.why}" if here.last.why else ""
        lines.append(f"last {here.last.kind} to {here.last.version}: {here.last.state}{why}")
    return tuple(lines)


def install(model: Model, _arg: str) -> Step:
    form = Form(
        title="Install on a disk",
        kind="install",
        act=Act("deploy.install.check"),
        intro=("A preview is shown before anything is written.",),
        fields=(
            Field(
                name="disk", label="Disk", value="largest", help="largest, serial:..., wwn:... or /dev/..."
            ),
            Field(name="mirror", label="Mirror", help="A second disk as a mirror, or empty."),
            _choice("erase", "Erase it", ("no", "yes"), "Needed if the disk is not empty."),
            _choice("state", "State found", ("keep", "replace"), "State of an existing installation."),
            _choice("reboot", "Restart after", ("no", "yes"), "From the disk, when it is installed."),
        ),
    )
    return actions.push(model, form), ()


def _choice(name: str, label: str, choices: tuple[str, ...], text: str) -> Field:
    return Field(name=name, label=label, value=choices[0], choices=choices, help=text)


def install_check(model: Model, _arg: str) -> Step:
    form = model.page
    if not isinstance(form, Form):
        return model, ()
    request = InstallRequest(
        disk=form.value("disk").strip(),
        mirror=form.value("mirror").strip(),
        erase=form.value("erase") == "yes",
        state=OldState(form.value("state")),
        reboot=form.value("reboot") == "yes",
    )
    return actions.propose(model, "Install", Ask(to="install", verb="deploy.install", input=request))


def update(model: Model, _arg: str) -> Step:
    form = Form(
        title="Update from a URL",
        kind="update",
        act=Act("deploy.update.check"),
        intro=("The image must be signed by a key this host trusts.",),
        fields=(
            Field(
                name="image",
                label="Image",
                help="A URL, or datastore/name; empty: as the update policy says.",
            ),
            Field(name="sha256", label="SHA-256", help="SHA-256 of the file; may be empty."),
        ),
    )
    return actions.push(model, form), ()


def update_check(model: Model, _arg: str) -> Step:
    form = model.page
    if not isinstance(form, Form):
        return model, ()
    request = UpdateRequest(
        image=form.value("image").strip() or UNSET, sha256=form.value("sha256").strip().lower()
    )
    return actions.propose(model, "Update", Ask(to="update", verb="deploy.update", input=request))


def rollback(model: Model, _arg: str) -> Step:
    return actions.propose(
        model, "Roll back", Ask(to="rollback", verb="deploy.rollback", input=RollbackRequest())
    )


ACTS = {
    "deploy": deploy,
    "deploy.install": install,
    "deploy.install.check": install_check,
    "deploy.update": update,
    "deploy.update.check": update_check,
    "deploy.rollback": rollback,
}
ANSWERS = {
    "deploy": deploy_came,
}
