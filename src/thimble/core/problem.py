"""The one error type. Everything that can go wrong for a caller is a `Problem` with a `Code`.

A code is for programs, the detail for people, the hint says what to do next; `reasons` lists every
blocker at once, each with the path of the field it is about. `TABLE` is the only place that knows which
HTTP status (RFC 9457 problem documents) and which process exit code belong to a code.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Code(StrEnum):
    """What went wrong, for programs. The caller's faults first, then the world's."""

    MALFORMED = "malformed"  # not JSON, unknown field, wrong type
    INVALID = "invalid"  # well-formed, but cannot be: range, combination
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    EXISTS = "exists"  # duplicate name
    CONFLICT = "conflict"  # the state of the thing forbids it now
    STALE = "stale"  # If-Match names another revision
    MEDIA_TYPE = "media-type"  # the body is not what the verb takes
    GONE = "gone"  # events older than the ring
    TOO_LARGE = "too-large"
    NO_SPACE = "no-space"
    NO_MEMORY = "no-memory"
    IN_USE = "in-use"  # port, address, device, volume taken
    RATE_LIMITED = "rate-limited"
    CANCELLED = "cancelled"
    UNSUPPORTED = "unsupported"  # this host or this QEMU cannot
    UNAVAILABLE = "unavailable"  # not now: starting, stopping, device lost
    TIMEOUT = "timeout"
    FAILED = "failed"  # a program or device answered with an error
    INTERNAL = "internal"  # our bug


#: code → (HTTP status, exit code of the CLI, title)
TABLE: dict[Code, tuple[int, int, str]] = {
    Code.MALFORMED: (400, 2, "The request cannot be read"),
    Code.INVALID: (422, 2, "The request asks for something impossible"),
    Code.UNAUTHENTICATED: (401, 4, "Sign in first"),
    Code.FORBIDDEN: (403, 4, "Your role does not allow this"),
    Code.NOT_FOUND: (404, 5, "There is no such thing"),
    Code.METHOD_NOT_ALLOWED: (405, 2, "This verb does not exist here"),
    Code.EXISTS: (409, 6, "It exists already"),
    Code.CONFLICT: (409, 6, "Not possible in the present state"),
    Code.STALE: (412, 6, "It was changed by somebody else meanwhile"),
    Code.MEDIA_TYPE: (415, 2, "The body has the wrong type"),
    Code.GONE: (410, 6, "Too old"),
    Code.TOO_LARGE: (413, 2, "Too large"),
    Code.NO_SPACE: (507, 7, "Not enough space"),
    Code.NO_MEMORY: (507, 7, "Not enough memory"),
    Code.IN_USE: (409, 6, "Already in use"),
    Code.RATE_LIMITED: (429, 8, "Too many attempts"),
    Code.CANCELLED: (409, 9, "Cancelled"),
    Code.UNSUPPORTED: (422, 7, "This host cannot do that"),
    Code.UNAVAILABLE: (503, 8, "Not available now"),
    Code.TIMEOUT: (504, 8, "It took too long"),
    Code.FAILED: (502, 1, "It failed"),
    Code.INTERNAL: (500, 70, "A fault in Thimble"),
}


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One blocker. `path` is the field it is about, written like `$.disks[0].size_bytes`.

    `line` and `column`, from 1, say where that is in a text; 0 when it is in none.
    """

    message: str
    code: Code = Code.INVALID
    path: str = ""
    line: int = 0
    column: int = 0


class Problem(Exception):
    """Raised anywhere, answered once: by the API as a problem document, by the CLI as text and exit code."""

    def __init__(
        self, code: Code, detail: str, *, hint: str = "", reasons: tuple[Reason, ...] = (), where: str = ""
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.reasons = reasons
        self.where = where

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TABLE[self.code][0]

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return TABLE[self.code][1]

    def document(self) -> ProblemDocument:
        """The same as RFC 9457 wants it on the wire."""
        return ProblemDocument(
            type=f"urn:thimble:problem:{self.code}",
            title=TABLE[self.code][2],
            status=self.status,
            code=self.code,
            detail=self.detail,
            hint=self.hint,
            instance=self.where,
            reasons=self.reasons,
        )


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`application/problem+json` (RFC 9457), with our `code`, `hint` and `reasons`."""

    type: str
    title: str
    status: int
    code: Code
    detail: str
    hint: str = ""
    instance: str = ""
    reasons: tuple[Reason, ...] = ()

    def problem(self) -> Problem:
        """The exception it was made from; for clients."""
        return Problem(self.code, self.detail, hint=self.hint, reasons=self.reasons, where=self.instance)


def refuse(reasons: list[Reason], detail: str, *, hint: str = "") -> None:
    """Raise one `Problem` naming all `reasons`, if there are any; its code is the first one's."""
    if reasons:
        raise Problem(reasons[0].code, detail, hint=hint, reasons=tuple(reasons))
