"""Which fields of which types are secret, found by their mark (`common.Secret`) and by nothing else. Pure.

Whoever adds a secret field marks it; support bundles then leave it out, wherever its value stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from thimble.contract.common import Secret

_known: dict[Any, frozenset[str]] = {}


def fields(kind: Any) -> frozenset[str]:
    """The names of the secret fields of a type of structs."""
    if kind not in _known:
        hints = get_type_hints(kind, include_extras=True)
        _known[kind] = frozenset(name for name in kind.__struct_fields__ if _marked(hints[name]))
    return _known[kind]


def _marked(hint: Any) -> bool:
    if get_origin(hint) is Annotated and Secret in hint.__metadata__:
        return True
    return any(_marked(part) for part in get_args(hint))


def values(value: Any) -> Iterator[str]:
    """Every secret text in a value, however deep."""
    if isinstance(value, msgspec.Struct):
        secret = fields(type(value))
        for name in value.__struct_fields__:
            one = getattr(value, name)
            yield from _texts(one) if name in secret else values(one)
    else:
        for one in _parts(value):
            yield from values(one)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in _parts(value):
        yield from _texts(one)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def hidden(value: Any, mark: str) -> Any:
    """As JSON-like values, with `mark` for what is secret and not empty."""
    return _hidden(value, msgspec.to_builtins(value), mark)


def _hidden(value: Any, tree: Any, mark: str) -> Any:
    """`tree` is `value` as built-in types."""
    if isinstance(value, msgspec.Struct):
        secret = fields(type(value))
        for field in msgspec.structs.fields(value):
            shown = tree.get(field.encode_name)
            if field.name in secret and shown not in (None, "", [], {}):
                tree[field.encode_name] = mark
            elif shown is not None:
                tree[field.encode_name] = _hidden(getattr(value, field.name), shown, mark)
    elif isinstance(value, Mapping):
        for key, one in zip(tree, value.values(), strict=True):
            tree[key] = _hidden(one, tree[key], mark)
    elif isinstance(value, list | tuple):
        return [_hidden(one, shown, mark) for one, shown in zip(value, tree, strict=True)]
    return tree
