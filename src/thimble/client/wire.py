"""From a verb of the contract to a request, and from an answer to a value or a `Problem`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from thimble.contract.common import DryRun, Nothing
from thimble.contract.verbs import BY_NAME, PREFIX, Shape, Started, Verb
from thimble.core.problem import TABLE, Code, Problem, ProblemDocument


def verb(name: str) -> Verb:
    """Of the contract. Raises `Problem` INTERNAL: who asks for what is not there is wrong itself."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise Problem(Code.INTERNAL, f"the contract has no verb {name!r}") from None


def target(verb: Verb, path: Mapping[str, str], query: Mapping[str, object], *, dry_run: bool = False) -> str:
    """Path and query of the request. A `{x*}` keeps the slashes of its value."""
    filled = PREFIX + verb.path
    for name, value in path.items():
        if not value or value in (".", ".."):
            raise Problem(Code.NOT_FOUND, f"{value!r} cannot be the name of a {name}")
        filled = filled.replace("{" + name + "*}", quote(value, safe="/"))
        filled = filled.replace("{" + name + "}", quote(value, safe=""))
    if "{" in filled:
        raise Problem(Code.INTERNAL, f"{verb.name} needs more than {sorted(path)} for {verb.path}")
    asked = {name: str(value) for name, value in query.items() if value is not None}
    if dry_run:
        asked["dry_run"] = "1"
    return filled + ("?" + urlencode(asked) if asked else "")


def headers(*, token: str = "", if_match: int | None = None, key: str = "") -> dict[str, str]:
    """The request's headers beside its content's."""
    wanted = {"Accept": "application/json"}
    if token:
        wanted["Authorization"] = f"Bearer {token}"
    if if_match is not None:
        wanted["If-Match"] = f'"{if_match}"'
    if key:
        wanted["Idempotency-Key"] = key
    return wanted


def output_type(verb: Verb, *, dry_run: bool = False) -> Any:
    """What the answer is decoded to."""
    if dry_run:
        return DryRun
    return Started if verb.shape is Shape.TASK else verb.output


def decode(body: bytes, wanted: Any) -> Any:
    """The answer's value. Raises `Problem` FAILED when the server is another kind of thing."""
    if wanted is Nothing:
        return Nothing()
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(
            Code.FAILED,
            f"cannot understand the host's answer: {error}",
            hint="Is this a Thimble host, and is your client as new as it?",
        ) from error


def problem(status: int, body: bytes) -> Problem:
    """The `Problem` an error answer stands for, also when a proxy or a newer agent wrote it."""
    try:
        return msgspec.json.decode(body, type=ProblemDocument).problem()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        code = next((code for code, row in TABLE.items() if row[0] == status), Code.FAILED)
        said = body.decode(errors="replace").strip().splitlines()[:1]
        return Problem(code, f"the host answered {status}" + (f": {said[0][:200]}" if said else ""))
