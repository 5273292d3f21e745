"""From a path to the verbs that live there: a tree of segments, made once from the contract's table. Pure.

`{x}` takes one segment, `{x*}` the rest (at least one). A literal segment wins over a parameter.
"""

from __future__ import annotations

import msgspec

from thimble.contract.verbs import Verb


class Node:
    """One place in the tree."""

    __slots__ = ("children", "name", "parameter", "rest", "verbs")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.rest: Node | None = None
        self.name = ""  # of the parameter that leads here
        self.verbs: dict[str, Verb] = {}  # by method


class Match(msgspec.Struct, frozen=True):
    """What lives at a path: its verbs by method, and the path's parameters."""

    verbs: dict[str, Verb]
    path: dict[str, str]

    @property
    def allow(self) -> str:
        """The `Allow` header."""
        methods = {*self.verbs, "OPTIONS"} | ({"HEAD"} if "GET" in self.verbs else set())
        return ", ".join(sorted(methods))


def tree(verbs: tuple[Verb, ...]) -> Node:
    """The tree of `verbs`. Two verbs at one method and path are a mistake in the table: ValueError."""
    root = Node()
    for verb in verbs:
        node = root
        for segment in verb.path.strip("/").split("/"):
            node = _step(node, segment)
        if verb.method in node.verbs:
            raise ValueError(f"{verb.name} and {node.verbs[verb.method].name} share a path")
        node.verbs[verb.method] = verb
    return root


def _step(node: Node, segment: str) -> Node:
    if not segment.startswith("{"):
        return node.children.setdefault(segment, Node())
    name = segment.strip("{}")
    if name.endswith("*"):
        node.rest = node.rest or Node()
        node.rest.name = name[:-1]
        return node.rest
    node.parameter = node.parameter or Node()
    if node.parameter.name not in ("", name):
        raise ValueError(f"{segment} is also called {node.parameter.name}")
    node.parameter.name = name
    return node.parameter


def find(root: Node, segments: list[str]) -> Match | None:
    """What lives at `segments`; None when nothing does."""
    node, path = root, {}
    for position, segment in enumerate(segments):
        if not segment:
            return None
        if segment in node.children:
            node = node.children[segment]
        elif node.parameter is not None:
            node = node.parameter
            path[node.name] = segment
        elif node.rest is not None and all(segments[position:]):
            node = node.rest
            path[node.name] = "/".join(segments[position:])
            break
        else:
            return None
    return Match(node.verbs, path) if node.verbs else None
