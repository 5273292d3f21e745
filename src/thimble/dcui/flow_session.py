"""Signing in and out, the main menu, the password, power, logs, tasks. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from thimble.contract.host import Login, PasswordChange
from thimble.dcui import actions
from thimble.dcui.model import (
    Answer,
    Ask,
    Failed,
    Model,
    Quit,
    SignedIn,
    Step,
)
from thimble.dcui.pages import Act, Field, Form, Item, Menu

MENU = (
    Item("Virtual machines", Act("vms"), "List them, start and stop them, open their serial consoles."),
    Item("Management network", Act("management"), "Card, VLAN and addresses by which this host is reached."),
    Item("Host document", Act("document"), "Make it what a thimble.toml says."),
    Item("Install, update, roll back", Act("deploy"), "Onto a disk; to another version; back."),
    Item("Change password", Act("password"), "The password of whoever is signed in."),
    Item("Tasks", Act("tasks"), "Running and finished tasks."),
    Item("Log", Act("log"), "The last lines of the host's log, which is kept in memory."),
    Item("Support bundle", Act("bundle"), "How to get everything support needs, without secrets."),
    Item("Restart or shut down", Act("power"), "Virtual machines first, each as its own setting says."),
    Item("Sign out", Act("sign-out"), "Back to the status screen."),
)  # fmt: skip


def back(model: Model, _arg: str) -> Step:
    return actions.pop(model), ()


def leave(model: Model, _arg: str) -> Step:
    return model, (Quit(model.session.token if model.session else ""),)


def sign_in(model: Model, after: str) -> Step:
    """The form; then `after`, or the menu."""
    if model.session is not None:
        return menu(model, after)
    if model.silent:
        return actions.toast(model, "You cannot sign in while the agent does not answer."), ()
    form = Form(
        title="Sign in",
        kind="sign-in",
        act=Act("sign-in.do"),
        intro=("The first password of `admin` was shown on this console when the host first started.",),
        fields=(
            Field(name="user", label="User", value="admin"),
            Field(name="password", label="Password", secret=True),
        ),
        cursor=1,
    )
    return actions.push(replace(model, after_sign_in=after), form), ()


def sign_in_do(model: Model, _arg: str) -> Step:
    form = model.page
    if not isinstance(form, Form) or "session" in model.asking:
        return model, ()
    given = Login(user=form.value("user").strip(), password=form.value("password"))
    model = actions.swap(model, form.cleared("Checking the password ..."))
    return actions.ask(model, Ask(to="session", verb="session.create", input=given, signed=False))


def signed_in(model: Model, answer: Answer) -> Step:
    made = answer.value
    session = SignedIn(user=made.user, role=str(made.role), token=made.token)
    return menu(replace(model, session=session, pages=()), model.after_sign_in)


def not_signed_in(model: Model, failed: Failed) -> Step:
    form = model.page
    if isinstance(form, Form) and form.kind == "sign-in":
        return actions.swap(model, form.cleared(*actions.problem_lines(failed.problem))), ()
    return model, ()


def menu(model: Model, after: str = "") -> Step:
    if not any(page.kind == "main" for page in model.pages):
        model = actions.push(model, Menu(title="This host", kind="main", items=MENU))
    if after:
        model = replace(model, after_sign_in="", next_act=Act(after))
    return model, ()


def sign_out(model: Model, _arg: str) -> Step:
    token = model.session.token if model.session else ""
    model = actions.toast(replace(model, session=None, pages=(), refreshed=-1e9), "Signed out.")
    return model, (Ask(to="", verb="session.delete", token=token),) if token else ()


def password(model: Model, _arg: str) -> Step:
    fields = (("old", "Old password"), ("new", "New password"), ("again", "New password again"))
    form = Form(
        title="Change password",
        kind="password",
        act=Act("password.do"),
        intro=("At least 8 characters. All other sessions of this user are signed out.",),
        fields=tuple(Field(name=name, label=label, secret=True) for name, label in fields),
    )
    return actions.push(model, form), ()


def password_do(model: Model, _arg: str) -> Step:
    form = model.page
    if not isinstance(form, Form) or "password" in model.asking:
        return model, ()
    old, new = form.value("old"), form.value("new")
    if new != form.value("again"):
        return actions.swap(model, form.cleared("The two new passwords differ.")), ()
    if len(new) < 8:
        return actions.swap(model, form.cleared("A password needs at least 8 characters.")), ()
    model = actions.swap(model, form.cleared("Changing the password ..."))
    return actions.ask(
        model, Ask(to="password", verb="session.password", input=PasswordChange(old=old, new=new))
    )


def password_done(model: Model, _answer: Answer) -> Step:
    return actions.toast(actions.pop(model), "The password is changed."), ()


def password_failed(model: Model, failed: Failed) -> Step:
    form = model.page
    if isinstance(form, Form) and form.kind == "password":
        return actions.swap(model, form.cleared(*actions.problem_lines(failed.problem))), ()
    return model, ()


ACTS = {
    "back": back,
    "leave": leave,
    "sign-in": sign_in,
    "sign-in.do": sign_in_do,
    "sign-out": sign_out,
    "password": password,
    "password.do": password_do,
    "proposal.do": actions.do_proposed,
}
ANSWERS = {
    "session": signed_in,
    "password": password_done,
    "proposed": actions.proposed,
    "started": actions.started,
    "task": actions.polled,
}
FAILURES = {"session": not_signed_in, "password": password_failed}
