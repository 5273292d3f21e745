"""The contract as OpenAPI 3.1. Pure; made when somebody asks, never on the way to "ready"."""
# ruff: noqa: E501 — parameters read best one per line

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from thimble.contract.common import DryRun, Event, Nothing
from thimble.contract.kinds import KINDS, NOTE, RESULT_BY_VERB, Field
from thimble.contract.verbs import (
    IDEMPOTENCY_KEY,
    IF_MATCH,
    PATHS,
    PREFIX,
    VERBS,
    Flag,
    Shape,
    Started,
    Verb,
)
from thimble.contract.vm import VmChange, VmCreate, applies
from thimble.core.problem import ProblemDocument

_TEMPLATE = "#/components/schemas/{name}"
_REV = {"name": "If-Match", "in": "header", "schema": {"type": "string", "pattern": IF_MATCH}, "description": 'The revision seen, as `"7"`.'}  # fmt: skip
_KEY = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY}, "description": "The same key and body within a day answer the same again."}  # fmt: skip
_DRY = {"name": "dry_run", "in": "query", "schema": msgspec.json.schema(Flag), "description": "1: say what would happen, change nothing."}  # fmt: skip


def document(version: str, verbs: tuple[Verb, ...] = VERBS) -> bytes:
    """The whole description as JSON."""
    kinds: list[type] = [ProblemDocument, DryRun]
    for verb in verbs:
        kinds += [kind for kind in (verb.input, answered(verb)) if kind not in (None, Nothing, *kinds)]  # type: ignore[misc]
    refs, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    schema = dict(zip(kinds, refs, strict=True))
    for kind in (VmCreate, VmChange):
        for name, shown in components.get(kind.__name__, {}).get("properties", {}).items():
            if name in applies():
                shown["x-applies"] = applies()[name]
    paths: dict[str, dict[str, Any]] = {}
    for verb in verbs:
        path = PREFIX + verb.path.replace("*}", "}")
        paths.setdefault(path, {})[verb.method.lower()] = _operation(verb, schema)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Thimble", "version": version, "license": {"name": "Apache-2.0"}},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"bearer": []}],
        }
    )


def answered(verb: Verb) -> type:
    """The type that the answer really has."""
    return Started if verb.shape is Shape.TASK else verb.output


def _operation(verb: Verb, schema: dict[type, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": verb.name,
        "summary": verb.summary,
        "tags": [verb.name.partition(".")[0]],
        "parameters": _parameters(verb),
        "responses": {
            **_success(verb, schema),
            "default": _content("Why not", "application/problem+json", schema[ProblemDocument]),
        },
        "x-role": verb.role or "none",
    }
    if verb.name in RESULT_BY_VERB:
        fields = (*RESULT_BY_VERB[verb.name].fields, NOTE)
        found["x-task-result"] = {field.name: _text(field) for field in fields}
    if verb.output is Event:
        found["x-event-kinds"] = _kinds()
    if verb.role is None:
        found["security"] = []
    if verb.input is not None:
        found["requestBody"] = {
            "required": _needs_body(verb.input),
            "content": {"application/json": {"schema": schema[verb.input]}},
        }
    elif verb.shape is Shape.UPLOAD:
        found["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return found


def _parameters(verb: Verb) -> list[dict[str, Any]]:
    names = [piece.strip("{}").rstrip("*") for piece in verb.path.split("/") if piece.startswith("{")]
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path(*PATHS[name])} for name in names
    ]
    found += [
        {"name": param.name, "in": "query", "schema": _schema(param.type), "description": param.means}
        for param in verb.query
    ]
    if verb.mutates:
        found += [_DRY]
    return found + [_KEY] * verb.keyed + [_REV] * verb.guarded


def _path(pattern: str, longest: int) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": longest}


def _schema(kind: Any) -> dict[str, Any]:
    """Of a query parameter, without references."""
    found = msgspec.json.schema(kind)
    if "$ref" in found:
        found = found["$defs"][found["$ref"].rpartition("/")[2]]
    return {name: value for name, value in found.items() if name not in ("title", "description")}


def _text(field: Field) -> dict[str, Any]:
    """Of an event's detail and a task's result: always a string."""
    shown: dict[str, Any] = {"type": "string", "description": field.means}
    if field.type is int:
        shown["pattern"] = "^-?[0-9]+$"
    elif field.type is bool:
        shown["enum"] = ["true", "false"]
    elif issubclass(field.type, StrEnum):
        shown["enum"] = list(field.type)
    return shown


def _kinds() -> dict[str, Any]:
    return {
        kind.name: {
            "summary": kind.summary,
            "subject": kind.subject,
            "detail": {field.name: _text(field) for field in kind.detail},
        }
        for kind in KINDS
    }


def _success(verb: Verb, schema: dict[type, Any]) -> dict[str, Any]:
    if verb.shape is Shape.SOCKET:
        return {"101": {"description": "A WebSocket; binary frames carry the bytes"}}
    if verb.shape is Shape.EVENTS:
        return {"200": _content("Server-sent events; each `data` is one of these", "text/event-stream", schema[verb.output])}  # fmt: skip
    if verb.shape is Shape.DOWNLOAD:
        return {"200": {"description": verb.summary, "content": {"application/gzip": {}}}}
    found: dict[str, Any] = {}
    if verb.mutates:
        found["200"] = _content("A dry run", "application/json", schema[DryRun])
    if verb.output is Nothing:
        return {**found, "204": {"description": "Done"}}
    status = "202" if verb.shape is Shape.TASK else "201" if verb.creates else "200"
    own = schema[answered(verb)]
    if status == "200" and verb.mutates:
        own = {"anyOf": [own, schema[DryRun]]}
    return {**found, status: _content(verb.summary, "application/json", own)}


def _content(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _needs_body(kind: type) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))
