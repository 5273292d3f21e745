"""Takes secrets out of what leaves the host for support. Pure.

Four nets: fields that are marked as secret, fields by their name, texts that look like a secret, and the very
strings that the caller knows to be secret, wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from thimble.contract import secret

GONE = "(removed)"

_FIELDS = re.compile(
    r"passw|secret|token|private|credential|hash$|^digest$|^key$",
    re.IGNORECASE,
)
_LOOKS = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        (r"scrypt\$[0-9a-f$]+", 0),
        (r"\$(1|2[abxy]?|5|6|7|y|gy|sha1|argon2\w*)\$[^\s\"',]+", 0),
        (r"\b[0-9a-fA-F]{64}\b", 0),  # a bearer token, or the digest of one
        (r"\bBearer +\S+", re.IGNORECASE),
        (r"(?<=://)[^/@\s\"]+@", 0),
        (
            r"(?i:\b[\w.-]*(password|passwd|passphrase|secret|token|apikey|api_key))\s*[=:]\s*(\"[^\"]*\"|'[^']*'|\S+)",
            0,
        ),
    )
)


class Mask:
    """`known`: strings that are secret whatever they look like; short ones are left alone."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        lines = {line.strip() for text in known for line in (text, *text.splitlines())}
        self._known = sorted((line for line in lines if len(line) >= 6), key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without what is known or looks secret."""
        for known in self._known:
            text = text.replace(known, GONE)
        for pattern in _LOOKS:
            text = pattern.sub(GONE, text)
        return text

    def tree(self, value: Any) -> Any:
        """The same for structs and JSON-like values, where marks and names of fields count too."""
        if isinstance(value, msgspec.Struct):
            return self.tree(secret.hidden(value, GONE))
        if isinstance(value, dict):
            return {
                str(key): GONE
                if _FIELDS.search(str(key)) and one not in (None, "", [], {})
                else self.tree(one)
                for key, one in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.tree(one) for one in value]
        return self.text(value) if isinstance(value, str) else value
