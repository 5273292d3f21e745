"""The host document: found at boot, by URL, of this host, or written here; checked, then applied. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from thimble.contract.document_api import DocumentPlan, DocumentText
from thimble.dcui import actions
from thimble.dcui.flow_network import CONFIRM_S
from thimble.dcui.model import Answer, Ask, Failed, Load, Model, Step
from thimble.dcui.pages import Act, Editor, Field, Form, Item, Menu, Proposal, Text, Wait

TEMPLATE = ("format = 1", "", "[host]", 'name = "{name}"', "")


def document(model: Model, _arg: str) -> Step:
    items = []
    if model.local.document:
        source = f"It is on {model.local.document_source}." if model.local.document_source else ""
        items.append(Item("Use the one found at boot", Act("document.load", model.local.document), source))
    if model.draft:
        items.append(Item("Continue editing", Act("document.write"), "As it was left."))
    items += [
        Item("From a URL", Act("document.url"), "http or https."),
        Item(
            "Type or paste one", Act("document.new"), "Into an editor; it is checked before anything is done."
        ),
        Item(
            "Edit the present configuration of this host",
            Act("document.edit"),
            "What `thimble export` writes.",
        ),
    ]
    intro = ("It describes this host. Nothing is applied before you have seen a preview.",)
    return actions.push(model, Menu(title="Host document", items=tuple(items), intro=intro)), ()


def load(model: Model, where: str) -> Step:
    if "document.text" in model.asking:
        return model, ()
    model = actions.push(model, Wait(title="Host document", note=f"reading {where}", since=model.now))
    return replace(model, asking=(*model.asking, "document.text")), (Load("document.text", where),)


def url(model: Model, _arg: str) -> Step:
    fields = (Field(name="url", label="URL", value="https://"),)
    return actions.push(
        model, Form(title="A document from a URL", fields=fields, act=Act("document.fetch"))
    ), ()


def fetch(model: Model, _arg: str) -> Step:
    form = model.page
    if not isinstance(form, Form):
        return model, ()
    where = form.value("url").strip()
    if not where.startswith(("http://", "https://")) or len(where) < 10:
        return actions.swap(model, replace(form, note=("A URL begins with http:// or https://.",))), ()
    return load(model, where)


def edit(model: Model, _arg: str) -> Step:
    model = actions.push(model, Wait(title="Host document", note="writing down this host", since=model.now))
    return actions.ask(model, Ask(to="document.text", verb="document.export"))


def came(model: Model, answer: Answer) -> Step:
    """The text has arrived: opens it in the editor, so that it is seen before it is used."""
    text = answer.value if isinstance(answer.value, str) else answer.value.text
    if isinstance(model.page, Wait):
        model = actions.pop(model)
    lines = tuple(text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(2).rstrip("\n").split("\n"))
    return _editor(replace(model, draft=lines))


def new(model: Model, _arg: str) -> Step:
    lines = tuple(line.replace("{name}", model.name) for line in TEMPLATE)
    model, effects = _editor(replace(model, draft=lines))
    page = model.page
    if isinstance(page, Editor):
        model = actions.swap(model, replace(page, row=len(lines) - 1))
    return model, effects


def write(model: Model, _arg: str) -> Step:
    return _editor(model)


def _editor(model: Model) -> Step:
    page = Editor(title="Host document", kind="editor", lines=model.draft or ("",), act=Act("document.check"))
    return actions.push(model, page), ()


def keep_draft(model: Model) -> Model:
    """Keeps the text when the editor is left."""
    page = model.page
    return replace(model, draft=page.lines) if isinstance(page, Editor) else model


def check(model: Model, _arg: str) -> Step:
    page = model.page
    if not isinstance(page, Editor):
        return model, ()
    model = actions.push(
        keep_draft(model), Wait(title="Host document", note="looking what it would do", since=model.now)
    )
    return actions.ask(model, Ask(to="document.plan", verb="document.plan", input=_text(model)))


def _text(model: Model) -> DocumentText:
    text = "\n".join(model.draft) + "\n"
    return DocumentText(text=text, source="the console", confirm_within=CONFIRM_S)


def planned(model: Model, answer: Answer) -> Step:
    plan: DocumentPlan = answer.value
    if not isinstance(model.page, Wait):
        return model, ()
    blockers = tuple(actions.in_words(reason) for reason in plan.blockers)
    effects = tuple(effect.what for effect in plan.effects)
    drift = tuple(f"on the host but not in the document (stays): {line}" for line in plan.drift)
    page = Proposal(
        title="Apply the host document",
        effects=effects,
        warnings=(*plan.warnings, *drift),
        blockers=blockers,
        act=Act("document.apply") if effects and not blockers else None,
    )
    return actions.swap(model, page), ()


def not_planned(model: Model, failed: Failed) -> Step:
    """Every error with its line and column; the editor's cursor goes to the first."""
    if isinstance(model.page, Wait):
        model = actions.pop(model)
    editor, first = model.page, next((reason for reason in failed.problem.reasons if reason.line), None)
    if isinstance(editor, Editor) and first is not None:
        row = max(0, min(first.line, len(editor.lines)) - 1)
        model = actions.swap(model, replace(editor, row=row, col=max(0, first.column - 1)))
    page = Text(
        title="The document cannot be used",
        lines=actions.problem_lines(failed.problem),
        hint="Enter: back to the editor",
        alarm=True,
    )
    return actions.push(model, page), ()


def apply(model: Model, _arg: str) -> Step:
    question = Ask(to="document", verb="document.apply", input=_text(model))
    return actions.run(actions.pop(model), "Apply the host document", question, Act("management.after"))


ACTS = {
    "document": document,
    "document.load": load,
    "document.url": url,
    "document.fetch": fetch,
    "document.edit": edit,
    "document.new": new,
    "document.write": write,
    "document.check": check,
    "document.apply": apply,
}
ANSWERS = {"document.text": came, "document.plan": planned}
FAILURES = {"document.plan": not_planned}
