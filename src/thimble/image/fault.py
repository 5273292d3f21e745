"""Makes the builder's errors; each says what happened and what to do."""

from __future__ import annotations


class BareFault(Exception):
    """What is raised where `msgspec` (and with it `thimble.core.problem`) is not installed yet."""


def fault(code: str, what: str, *, hint: str = "", reasons: tuple[str, ...] = ()) -> Exception:
    """A problem of the builder. `code` is one of `Code`'s values: failed, not-found, invalid …"""
    try:
        from thimble.core.problem import Code, Problem, Reason
    except ModuleNotFoundError:
        return BareFault("\n  ".join([what, *reasons, *([f"hint: {hint}"] if hint else [])]))
    kind = Code(code)
    return Problem(kind, what, hint=hint, reasons=tuple(Reason(message=line, code=kind) for line in reasons))
