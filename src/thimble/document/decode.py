"""From a TOML tree to a typed value, value by value, so that no mistake hides another. Pure.

`msgspec.convert` stops at the first thing it does not like; here it only ever sees single values.
"""

from __future__ import annotations

import re
import types
import typing
from typing import Any

import msgspec

from thimble.document.positions import Path

#: How TOML's kinds of values are called in front of people; the keys are msgspec's words.
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list in brackets",
    "object": "a table",
    "datetime": "a date and time such as 2030-01-01T00:00:00Z",
    "date": "a date",
    "time": "a time of day",
}
_TYPES = {bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object"}

#: What to do about a value that does not fit its pattern, by field.
_HINTS = {
    "password_hash": "this is no password hash: make one with `thimble user hash`",
    "sha256": "a SHA-256 digest has 64 digits of 0-9 and a-f",
    "expires": "write a date and time with its zone, such as 2030-01-01T00:00:00Z",
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake. `at_key`: it is about the key itself, not about its value."""

    path: Path
    message: str
    at_key: bool = False


class _Missing(msgspec.Struct, frozen=True):
    """Stands for a value that could not be made."""


_NONE = _Missing()


def decode(tree: dict[str, Any], kind: type[msgspec.Struct]) -> tuple[Any, list[Fault]]:
    """(a `kind`, []) or (None, every mistake)."""
    faults: list[Fault] = []
    value = _table(tree, kind, (), faults)
    return (None, faults) if faults else (value, [])


def _value(value: Any, kind: Any, path: Path, faults: list[Fault]) -> Any:
    kind = _plain(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _table(value, kind, path, faults)
    if typing.get_origin(kind) is tuple:
        return _list(value, typing.get_args(kind)[0], path, faults)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        faults.append(Fault(path=path, message=_in_words(str(error), value, kind, path)))
        return _NONE


def _table(value: Any, kind: type[msgspec.Struct], path: Path, faults: list[Fault]) -> Any:
    if not isinstance(value, dict):
        faults.append(Fault(path=path, message=_wrong_kind("object", value)))
        return _NONE
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    before = len(faults)
    for name in value.keys() - fields.keys():
        faults.append(Fault(path=(*path, name), message=_unknown(name, list(fields)), at_key=True))
    given = {
        name: _value(value[name], field.type, (*path, name), faults)
        for name, field in fields.items()
        if name in value
    }
    for name, field in fields.items():
        if field.required and name not in value:
            faults.append(Fault(path=path, message=f"{name!r} is missing here", at_key=True))
    return kind(**given) if len(faults) == before else _NONE


def _list(value: Any, kind: Any, path: Path, faults: list[Fault]) -> Any:
    if not isinstance(value, list):
        double = isinstance(value, dict) and len(path) == 1
        hint = f": write [[{path[0]}]] with double brackets" if double else ""
        faults.append(Fault(path=path, message=_wrong_kind("array", value) + hint))
        return _NONE
    return tuple([_value(one, kind, (*path, number), faults) for number, one in enumerate(value)])


def _plain(kind: Any) -> Any:
    """Without `None`, which TOML cannot say, and without notes that are not about the value."""
    if typing.get_origin(kind) is typing.Annotated:
        bare, *notes = typing.get_args(kind)
        about = [note for note in notes if isinstance(note, msgspec.Meta)]
        return typing.Annotated[_plain(bare), *about] if about else _plain(bare)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        left = [one for one in typing.get_args(kind) if one is not type(None)]
        return left[0] if len(left) == 1 else typing.Union[tuple(left)]  # noqa: UP007 — made at run time
    return kind


def _unknown(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    name = name[:40]
    near = get_close_matches(name, known, n=1)
    if near:
        return f"there is no {name!r} here; did you mean {near[0]!r}?"
    return f"there is no {name!r} here; there is {', '.join(sorted(known))}"


def _wrong_kind(wanted: str, value: Any) -> str:
    found = _TYPES.get(type(value), type(value).__name__)
    return f"{_WORDS[wanted]} belongs here, not {_WORDS.get(found, found)}"


def _in_words(said: str, value: Any, kind: Any, path: Path) -> str:
    """msgspec's complaint about one value, for people."""
    field = str(path[-1])
    if field in _HINTS and isinstance(value, str | int):
        return _HINTS[field]
    if found := re.match(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", said):
        return _wrong_kind(found[1], value) if found[1] in _WORDS else said
    if found := re.match(r"Expected `\w+` (>=|<=|>|<) (\S+)", said):
        words = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[found[1]]
        return f"this must be {words} {found[2]}"
    if said.startswith("Invalid enum value"):
        choices = [str(one) for one in typing.get_args(kind) or kind]
        if isinstance(value, str):
            value = value[:40]
            return f"{value!r} is none of {', '.join(choices)}{_near(value, choices)}"
        return f"only {', '.join(choices)} is known here, not {str(value)[:40]}"
    return said[0].lower() + said[1:]


def _near(value: str, choices: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(value, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
