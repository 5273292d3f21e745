"""From a verb of the contract to a request, and from an answer to a value or a `Problem`. Pure.

Every client is this and a way to move bytes: `http` (httpx), `plain` (a blocking socket), `peer` (asyncio).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

import msgspec

from thimble.contract.common import DryRun, Nothing
from thimble.contract.verbs import BY_NAME, PREFIX, Shape, Started, Verb
from thimble.core.problem import TABLE, Code, Problem, ProblemDocument


class Options(TypedDict, total=False):
    """What a call may say beside its verb and its input."""

    path: Mapping[str, str]
    query: Mapping[str, object]
    dry_run: bool
    if_match: int | None
    key: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`output`: the type of a good answer's body. `repeatable`: asking twice does no more than once."""

    method: str
    target: str
    headers: dict[str, str] = {}
    body: bytes = b""
    output: Any = Nothing
    repeatable: bool = False


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes


def request(
    name: str,
    input: msgspec.Struct | None = None,
    *,
    token: str = "",
    path: Mapping[str, str] | None = None,
    query: Mapping[str, object] | None = None,
    dry_run: bool = False,
    if_match: int | None = None,
    key: str = "",
) -> Request:
    """Ask for the verb `name`. Raises `Problem` for a path that cannot be."""
    asked = verb(name)
    sent = headers(token=token, if_match=if_match, key=key)
    if input is not None:
        sent["Content-Type"] = "application/json"
    return Request(
        method=asked.method,
        target=target(asked, path or {}, query or {}, dry_run=dry_run),
        headers=sent,
        body=msgspec.json.encode(input) if input is not None else b"",
        output=output_type(asked, dry_run=dry_run),
        repeatable=not asked.mutates,
    )


def value(request: Request, answer: Answer) -> Any:
    """What a whole answer to `request` says. Raises its `Problem`."""
    if answer.status >= 300:
        raise problem(answer.status, answer.body)
    return decode(answer.body, request.output)


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


def unreachable(where: str, error: Exception) -> Problem:
    """Nothing was sent: there is no way to `where`."""
    return Problem(
        Code.UNAVAILABLE,
        f"cannot reach {where}: {error}",
        hint="Is the host up, and are address and port right?",
    )


def silent(where: str) -> Problem:
    """`where` took the request, perhaps, and gave no answer in time."""
    return Problem(Code.TIMEOUT, f"{where} does not answer", hint="Is the host up, or very busy?")


def lost(where: str, error: Exception) -> Problem:
    """The connection to `where` broke in the middle: what was asked may have been done."""
    return Problem(
        Code.UNAVAILABLE,
        f"lost the connection to {where}: {error or type(error).__name__}",
        hint="Look at the state of things before you repeat it.",
    )
