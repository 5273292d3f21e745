"""No event and no task result that the table does not know: the sources are searched for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

import thimble
from thimble.contract.kinds import KIND_BY_NAME, KINDS, NOTE, RESULT_BY_VERB, RESULTS, Field
from thimble.contract.openapi import document
from thimble.contract.verbs import BY_NAME, VERBS, Shape

SOURCE = Path(thimble.__file__).parent
#: PID 1 and the tools have no events and no tasks.
PARTS = [
    part for part in SOURCE.iterdir() if part.name not in ("boot", "image", "lab", "guest", "cli", "dcui")
]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for part in PARTS:
        for path in [part] if part.suffix == ".py" else sorted(part.rglob("*.py")):
            yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def published() -> Iterator[tuple[str, ast.Call]]:
    """(where, the call) of every `….publish(…)`."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "publish"
            ):
                yield f"{path}:{node.lineno}", node


def results() -> Iterator[tuple[str, ast.expr | None]]:
    """(where, key) of every dict written down in a coroutine that answers `dict[str, str]`, as tasks do.

    A `**spread` has no key: what is spread was made by such a function, too.
    """
    for path, tree in trees():
        for function in ast.walk(tree):
            if not isinstance(function, ast.AsyncFunctionDef) or function.returns is None:
                continue
            if not {"Result", "dict[str, str]"} & set(ast.unparse(function.returns).split(" | ")):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Dict):
                    yield from ((f"{path}:{node.lineno}", key) for key in node.keys if key is not None)


def test_every_published_kind_is_in_the_table_with_its_details() -> None:
    seen = set()
    for where, call in published():
        kind, subject = call.args
        assert isinstance(kind, ast.Constant), f"{where}: the kind is written down, not computed"
        assert kind.value in KIND_BY_NAME, f"{where}: {kind.value} is missing in contract/kinds.py"
        assert subject is not None
        known = {field.name for field in KIND_BY_NAME[kind.value].detail}
        given = {keyword.arg for keyword in call.keywords}
        assert given <= known, (
            f"{where}: {kind.value} tells {given - known}, which contract/kinds.py does not"
        )
        seen.add(kind.value)
    assert seen == set(KIND_BY_NAME), "and what nobody publishes any more leaves the table"


def test_every_result_of_a_task_is_in_the_table() -> None:
    known = {field.name for result in RESULTS for field in (*result.fields, NOTE)}
    seen = set()
    for where, key in results():
        assert isinstance(key, ast.Constant), f"{where}: the name of a result is written down, not computed"
        assert key.value in known, f"{where}: {key.value} is missing in contract/kinds.py"
        seen.add(key.value)
    assert seen == known, "and what nobody answers any more leaves the table"


def test_every_task_has_its_row() -> None:
    assert set(RESULT_BY_VERB) == {verb.name for verb in VERBS if verb.shape is Shape.TASK}


@pytest.mark.parametrize("name", [*KIND_BY_NAME, *RESULT_BY_VERB])
def test_a_row_is_written_as_the_others(name: str) -> None:
    fields: tuple[Field, ...] = (
        KIND_BY_NAME[name].detail if name in KIND_BY_NAME else RESULT_BY_VERB[name].fields
    )
    assert len({field.name for field in fields}) == len(fields)
    for field in fields:
        assert (field.means and field.means[0].islower()) or field.means.startswith(("A ", "QEMU"))
        assert field.type in (str, int, bool) or issubclass(field.type, StrEnum)


def test_names_are_unique() -> None:
    assert len(KIND_BY_NAME) == len(KINDS) and len(RESULT_BY_VERB) == len(RESULTS)


def test_the_description_lists_them() -> None:
    described: dict[str, Any] = msgspec.json.decode(document("1"))
    stream = described["paths"]["/api/v1/events"]["get"]["x-event-kinds"]
    assert set(stream) == set(KIND_BY_NAME)
    assert stream["vm.changed"]["detail"]["state"]["enum"][0] == "creating"
    create = described["paths"]["/api/v1" + BY_NAME["volume.create"].path]["post"]["x-task-result"]
    assert create["size_bytes"]["pattern"] and "note" in create
