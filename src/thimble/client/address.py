"""Where an agent is: from what a person types to the URL everything is below. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from thimble.core.problem import Code, Problem

LOOPBACK = ("127.", "localhost", "[::1]")


def base_url(text: str) -> str:
    """`https://host[:port]` of `host`, `host:port`, `[v6]:port` or a URL; without a slash at its end.

    Plain HTTP is for the loopback only, because the token would be readable. Raises `Problem` INVALID.
    """
    word = text.strip()
    if "://" not in word:
        word = "https://" + (f"[{word}]" if word.count(":") > 1 and not word.startswith("[") else word)
    parts = urlsplit(word)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == -1
        or parts.path not in ("", "/")
    ):
        raise Problem(
            Code.INVALID, f"{text!r} is not the address of a host", hint="Write it like https://10.0.0.7/."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.scheme == "http" and not host.startswith(LOOPBACK):
        raise Problem(
            Code.INVALID, f"{text!r} would send your token in the clear", hint="Write https:// instead."
        )
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != default_port(parts.scheme) else "")


def default_port(scheme: str) -> int:
    """The port a URL without one means."""
    return 443 if scheme == "https" else 80


def endpoint(url: str) -> tuple[str, int]:
    """Host and port to connect to, of a base URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or default_port(parts.scheme)
