"""Does a service fit the contract? Its methods are compared with the rows of `contract.verbs`, by annotation.

As Subiquity's `bind()` does when it starts; here it costs the agent nothing, for it is done in the tests.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.verbs import VERBS, Shape, Started, Verb

BY_NOUN: dict[str, dict[str, Verb]] = {}
for _verb in VERBS:
    _noun, _, _name = _verb.name.partition(".")
    BY_NOUN.setdefault(_noun, {})[_name] = _verb


def misfits(noun: str, service: object, *, narrow: bool = False) -> list[str]:
    """What of the verbs of `noun` the `service` lacks or has in another form; empty when it fits.

    `narrow`: for stand-ins, which need not have every answer there is, such as that to a dry run.
    """
    verbs = BY_NOUN.get(noun)
    if verbs is None:
        return [f"{noun}: the contract has no such noun"]
    return [line for name, verb in verbs.items() for line in _of(verb, _method(service, name), narrow=narrow)]


def _method(service: object, name: str) -> Callable[..., Any] | None:
    """Of a service, or of the one of several that has it."""
    parts = service if isinstance(service, tuple) else (service,)
    return next((found for part in parts if (found := getattr(part, name, None)) is not None), None)


def check_stand_ins(services: Mapping[str, object]) -> None:
    """Raises `AssertionError` with the name of every method that one lacks, or has beside the contract."""
    wrong = [line for noun, service in services.items() for line in misfits(noun, service, narrow=True)]
    for noun, service in services.items():
        wrong += [
            f"{noun}.{name}: the contract has no such verb"
            for name in _called(service) - BY_NOUN[noun].keys()
        ]
    assert not wrong, "stand-ins do not fit the contract:\n" + "\n".join(wrong)


def _of(verb: Verb, method: Callable[..., Any] | None, *, narrow: bool) -> list[str]:
    if method is None:
        return [f"{verb.name}: there is no such method"]
    asked = list(inspect.signature(method).parameters.values())
    if len(asked) != 1:
        return [f"{verb.name}: it takes {len(asked)} parameters, not the call alone"]
    hints = _hints(method)
    taken, answered = hints.get(asked[0].name), hints.get("return")
    wanted = Call[verb.input]  # type: ignore[name-defined]
    found = []
    if not {wanted, Call[Any]} & _parts(taken):
        found.append(f"{verb.name}: it takes {_shown(taken)}, the contract gives {_shown(wanted)}")
    if words := _wrong(verb, answered, narrow=narrow):
        found.append(f"{verb.name}: it answers {_shown(answered)}, {words}")
    return found


def _called(service: object) -> set[str]:
    """The methods that take a call."""
    methods = inspect.getmembers(type(service), inspect.isfunction)
    return {
        name
        for name, method in methods
        if any("Call[" in str(one.annotation) for one in inspect.signature(method).parameters.values())
    }


def _wrong(verb: Verb, answered: Any, *, narrow: bool) -> str:
    """About the type of the answer; empty when it is right."""
    if verb.shape is Shape.SOCKET:
        lacking = {"__aiter__", "write", "close"} - set(dir(answered))
        return f"which lacks {', '.join(sorted(lacking))}" if lacking else ""
    if verb.shape is Shape.EVENTS:
        return "" if _streamed(answered) is verb.output else f"not a stream of {verb.output.__name__}"
    output = bytes if verb.shape is Shape.DOWNLOAD else Started if verb.shape is Shape.TASK else verb.output
    parts = _parts(answered)
    wanted = {output, DryRun} if verb.mutates else {output}
    if parts == wanted or (narrow and parts < wanted):
        return ""
    return "not " + " | ".join(sorted(map(_shown, wanted)))


def _parts(kind: Any) -> set[Any]:
    """The members of a union; of anything else itself."""
    return (
        set(typing.get_args(kind)) if typing.get_origin(kind) in (typing.Union, types.UnionType) else {kind}
    )


def _streamed(kind: Any) -> Any:
    """The type of what an `AsyncIterator` of batches brings."""
    origin = typing.get_origin(kind)
    if not (isinstance(origin, type) and issubclass(origin, AsyncIterator)):
        return None
    return next(iter(typing.get_args(typing.get_args(kind)[0])), None)


def _hints(method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as types, also those whose modules are imported for the type checker alone."""
    plain = inspect.unwrap(method)
    plain = getattr(plain, "__func__", plain)
    module = sys.modules[plain.__module__]
    return typing.get_type_hints(plain, globalns=vars(module) | _for_the_checker(module))


def _for_the_checker(module: types.ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [line for line in node.body if isinstance(line, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), module.__name__, "exec"), vars(module) | found, found)
    return found


def _shown(kind: Any) -> str:
    plain = isinstance(kind, type) and not typing.get_args(kind)
    return kind.__name__ if plain else str(kind).replace("thimble.", "")
