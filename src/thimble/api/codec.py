"""The body, the headers and the query of a request, read strictly as the verb wants them.

MALFORMED (400) is what cannot be read at all: no JSON, an unknown field, a wrong type. INVALID (422) is what
can be read but is out of range. Decoders are made at a verb's first use: a boot has no time for all of them.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec

from thimble.contract.verbs import IDEMPOTENCY_KEY, IF_MATCH, Flag, Param, Verb
from thimble.core.problem import Code, Problem, Reason

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decode(kind: type, body: bytes) -> Any:
    """`body` as a `kind`; an empty one is all defaults, if `kind` allows that."""
    if not body.strip():
        return _defaults(kind)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(Code.MALFORMED, f"the body is not JSON: {words}") from None


def _defaults(kind: type) -> Any:
    try:
        return kind()
    except TypeError:
        raise Problem(
            Code.MALFORMED, "a JSON body is needed", hint="The API description has its fields."
        ) from None


def _refusal(words: str) -> Problem:
    """msgspec says "Expected `int`, got `str` - at `$.vcpus`"; ours has the path apart."""
    message, _, path = words.rpartition(" - at `")
    message, path = (message, path.rstrip("`")) if message else (words, "$")
    # A range is told as "Expected `int` >= 1", a wrong type as "Expected `int`, got `str`".
    ranged = (message.startswith("Expected") and ", got" not in message) or message.startswith(
        ("Invalid enum value", "Integer value out of range")
    )
    code = Code.INVALID if ranged else Code.MALFORMED
    reason = Reason(message=message, code=code, path=path)
    return Problem(code, f"{path}: {message}", reasons=(reason,))


def check_nothing(body: bytes) -> None:
    """For verbs without input: `{}` and nothing are the same, all else is a mistake."""
    if body.strip() not in (b"", b"{}"):
        raise Problem(Code.MALFORMED, "this takes no body", hint="Leave the body empty.")


def check_type(content_type: str) -> None:
    """A JSON body says so; this is also what keeps other sites' forms out."""
    name, _, more = content_type.partition(";")
    charset = more.replace(" ", "").replace('"', "").lower()
    if name.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem(
            Code.MEDIA_TYPE,
            f"the body's type is {content_type!r}, not JSON"
            if content_type
            else "the body's type is missing",
            hint="Send `Content-Type: application/json`.",
        )


def query(verb: Verb, given: dict[str, str]) -> tuple[dict[str, str], bool]:
    """(the verb's own parameters, is it a dry run). An unknown parameter is refused with the known ones."""
    known = {param.name: param for param in verb.query}
    dry = given.get("dry_run", "0") if verb.mutates else "0"
    own = {name: value for name, value in given.items() if not (verb.mutates and name == "dry_run")}
    if unknown := [name for name in own if name not in known]:
        names = sorted((*known, "dry_run") if verb.mutates else known)
        raise Problem(
            Code.MALFORMED,
            f"{verb.name} has no parameter {unknown[0]!r}",
            hint=f"It knows: {', '.join(names)}." if names else "It has none.",
            reasons=tuple(
                Reason(message="unknown parameter", code=Code.MALFORMED, path=f"?{name}") for name in unknown
            ),
        )
    if dry not in get_args(Flag):
        raise Problem(Code.MALFORMED, "dry_run is 0 or 1", where="?dry_run")
    for name, value in own.items():
        _check(known[name], value)
    return own, dry in ("1", "true")


def _check(param: Param, value: str) -> None:
    """Raises `Problem` INVALID. The service reads the text itself."""
    try:
        msgspec.convert(value, param.type, strict=False)
    except msgspec.ValidationError as error:
        words = f"{param.name}={value[:100]!r}: {error}"
        raise Problem(
            Code.INVALID, words, hint=f"{param.name}: {param.means}.", where=f"?{param.name}"
        ) from None


def if_match(header: str | None) -> int | None:
    """The revision of `If-Match: "7"`; None for `*` and without the header."""
    if header is None:
        return None
    if not re.match(IF_MATCH, text := header.strip()):
        raise Problem(
            Code.MALFORMED,
            "If-Match takes one strong ETag",
            hint='Send the ETag of the answer you read, such as "7".',
        )
    return None if text == "*" else int(text[1:-1])


def idempotency_key(header: str | None) -> str:
    """The client's key for a create, made by it; empty without the header."""
    key = (header or "").strip()
    if key and not re.match(IDEMPOTENCY_KEY, key):
        raise Problem(Code.MALFORMED, "an Idempotency-Key has at most 200 printable characters")
    return key
