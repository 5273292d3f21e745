"""The kinds of pages, as values, and what a key does to each. Pure; what an act means is in flows.

`key(name)` answers the page after the key, and an `Act` when something was chosen. An unknown key changes
nothing. Every page is left with Esc.
"""

from __future__ import annotations

import msgspec

from thimble.contract.common import Task

#: Lines a page-up or page-down moves.
LEAP = 10
#: Characters of one field, and of the editor in all (an API document may have 1 MiB).
FIELD_MAX = 1024
EDITOR_MAX = 1 << 20


class Act(msgspec.Struct, frozen=True):
    """Something was chosen: `name` is a key of flows.ACTS."""

    name: str
    arg: str = ""


BACK = Act("back")


class Item(msgspec.Struct, frozen=True):
    """One line to choose. `help` is shown while the cursor is on it."""

    label: str
    act: Act
    help: str = ""


class Menu(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    items: tuple[Item, ...]
    intro: tuple[str, ...] = ()
    cursor: int = 0
    kind: str = ""
    head: str = ""  # the columns' names, when the items are rows of a table

    def key(self, name: str) -> tuple[Page, Act | None]:
        last = len(self.items) - 1
        if name in ("enter", " ", "right") and self.items:
            return self, self.items[self.cursor].act
        if name in ("up", "k", "shift tab"):
            return self.at(self.cursor - 1), None
        if name in ("down", "j", "tab"):
            return self.at(self.cursor + 1), None
        if name in ("page up", "page down"):
            return self.at(self.cursor + (LEAP if name == "page down" else -LEAP)), None
        if name in ("home", "end"):
            return self.at(0 if name == "home" else last), None
        if len(name) == 1 and name in "123456789" and int(name) - 1 <= last and not self.head:
            return self.at(int(name) - 1), self.items[int(name) - 1].act
        return self, BACK if name in ("esc", "left") else None

    def at(self, place: int) -> Menu:
        """With the cursor there, or as near as there are items."""
        return msgspec.structs.replace(self, cursor=max(0, min(place, len(self.items) - 1)))


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value. With `choices` it is one of those: space and the arrows go round."""

    name: str
    label: str
    value: str = ""
    at: int = -1  # the cursor in it; -1 is its end
    secret: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def place(self) -> int:
        return len(self.value) if self.at < 0 else min(self.at, len(self.value))

    def key(self, name: str) -> Field:
        if self.choices:
            step = {"right": 1, " ": 1, "left": -1}.get(name, 0)
            here = self.choices.index(self.value) if self.value in self.choices else 0
            return msgspec.structs.replace(self, value=self.choices[(here + step) % len(self.choices)])
        value, place = typed(self.value, self.place, name)
        return msgspec.structs.replace(self, value=value[:FIELD_MAX], at=min(place, FIELD_MAX))


def typed(value: str, place: int, name: str) -> tuple[str, int]:
    """A line of text and the cursor in it, after a key."""
    if len(name) == 1 and name.isprintable():
        return value[:place] + name + value[place:], place + 1
    if name == "backspace":
        return value[: max(0, place - 1)] + value[place:], max(0, place - 1)
    if name == "delete":
        return value[:place] + value[place + 1 :], place
    if name == "ctrl u":
        return value[place:], 0
    moved = {
        "left": place - 1,
        "right": place + 1,
        "home": 0,
        "ctrl a": 0,
        "end": len(value),
        "ctrl e": len(value),
    }
    return value, max(0, min(moved.get(name, place), len(value)))


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """Fields, then Enter. `note` says what was wrong the last time."""

    title: str
    fields: tuple[Field, ...]
    act: Act
    intro: tuple[str, ...] = ()
    note: tuple[str, ...] = ()
    cursor: int = 0
    kind: str = ""

    def key(self, name: str) -> tuple[Page, Act | None]:
        last = len(self.fields) - 1
        if name == "esc":
            return self, BACK
        if name == "f2" or (name == "enter" and self.cursor == last):
            return self, self.act
        if name in ("down", "tab", "enter"):
            return msgspec.structs.replace(self, cursor=min(last, self.cursor + 1)), None
        if name in ("up", "shift tab"):
            return msgspec.structs.replace(self, cursor=max(0, self.cursor - 1)), None
        fields = list(self.fields)
        fields[self.cursor] = fields[self.cursor].key(name)
        return msgspec.structs.replace(self, fields=tuple(fields)), None

    def value(self, name: str) -> str:
        return next((field.value for field in self.fields if field.name == name), "")

    def cleared(self, *note: str) -> Form:
        """Without the secrets that were typed, and with a note why."""
        fields = tuple(
            msgspec.structs.replace(field, value="", at=-1) if field.secret else field
            for field in self.fields
        )
        first = next((number for number, field in enumerate(fields) if field.secret), self.cursor)
        return msgspec.structs.replace(self, fields=fields, note=note, cursor=first)


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Lines to read. `act` is what Enter does, as `hint` says."""

    title: str
    lines: tuple[str, ...]
    top: int = 0  # from the end when negative
    act: Act = BACK
    hint: str = "Enter: back"
    kind: str = ""
    alarm: bool = False

    def key(self, name: str) -> tuple[Page, Act | None]:
        step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -LEAP, "page down": LEAP, " ": LEAP}.get(
            name, 0
        )
        if name in ("esc", "left", "q"):
            return self, BACK
        if name == "enter":
            return self, self.act
        top = {"home": 0, "end": len(self.lines)}.get(name, self.top + step)
        return msgspec.structs.replace(self, top=max(0, min(top, max(0, len(self.lines) - 1)))), None


class Editor(msgspec.Struct, frozen=True, kw_only=True):
    """A text to write. F2 or Ctrl-D ends it."""

    title: str
    lines: tuple[str, ...]
    act: Act
    row: int = 0
    col: int = 0
    kind: str = ""
    note: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def key(self, name: str) -> tuple[Page, Act | None]:
        if name == "esc":
            return self, BACK
        if name in ("f2", "ctrl d"):
            return self, self.act
        lines, row, col = list(self.lines), self.row, min(self.col, len(self.lines[self.row]))
        here = lines[row]
        grows = name in ("enter", "tab") or (len(name) == 1 and name.isprintable())
        if grows and sum(map(len, lines)) + len(lines) >= EDITOR_MAX:
            return self, None
        if name == "enter":
            lines[row : row + 1] = [here[:col], here[col:]]
            row, col = row + 1, 0
        elif name == "tab":
            lines[row], col = here[:col] + "  " + here[col:], col + 2
        elif name == "backspace" and col == 0 and row > 0:
            col = len(lines[row - 1])
            lines[row - 1 : row + 1] = [lines[row - 1] + here]
            row -= 1
        elif name == "delete" and col == len(here) and row + 1 < len(lines):
            lines[row : row + 2] = [here + lines[row + 1]]
        elif name == "ctrl k":
            lines[row : row + 1] = [] if row + 1 < len(lines) else [""]
            col = 0
        elif name in ("up", "down", "page up", "page down"):
            step = {"up": -1, "down": 1, "page up": -LEAP, "page down": LEAP}[name]
            row, col = max(0, min(row + step, len(lines) - 1)), self.col
        else:
            lines[row], col = typed(here, col, name)
        return msgspec.structs.replace(self, lines=tuple(lines), row=row, col=col), None


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A preview (dry run). Without `act` it cannot be done."""

    title: str
    effects: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    act: Act | None = None
    top: int = 0
    kind: str = ""

    def key(self, name: str) -> tuple[Page, Act | None]:
        step = {"up": -1, "down": 1, "page up": -LEAP, "page down": LEAP}.get(name, 0)
        if name in ("esc", "left", "n"):
            return self, BACK
        if name in ("enter", "f2", "y"):
            return self, self.act or BACK
        return msgspec.structs.replace(self, top=max(0, min(self.top + step, 10_000))), None


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Something is under way. `task` is its last known state; leaving this page does not end it."""

    title: str
    task: Task | None = None
    note: str = ""
    since: float = 0.0
    then: Act | None = None  # when it is done
    kind: str = "wait"

    def key(self, name: str) -> tuple[Page, Act | None]:
        return self, BACK if name == "esc" else None


class ConfirmPage(msgspec.Struct, frozen=True, kw_only=True):
    """The management network was changed; the change is undone at `until` unless somebody keeps it."""

    title: str
    lines: tuple[str, ...]
    until: float  # the epoch's seconds
    kind: str = "trial"
    choice: int = 0

    def key(self, name: str) -> tuple[Page, Act | None]:
        if name in ("left", "right", "up", "down", "tab"):
            return msgspec.structs.replace(self, choice=1 - self.choice), None
        if name in ("k", "f2") or (name == "enter" and self.choice == 0):
            return self, Act("management.keep")
        if name == "u" or (name == "enter" and self.choice == 1):
            return self, Act("management.undo")
        return self, BACK if name == "esc" else None


Page = Menu | Form | Text | Editor | Proposal | Wait | ConfirmPage
