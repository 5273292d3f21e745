"""What lives outside the contract: the front page, health, the API's description."""

from __future__ import annotations

from thimble import __version__
from thimble.http.answer import Answer

HTML = b"text/html; charset=utf-8"
PLAIN = b"text/plain; charset=utf-8"

_FRONT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Thimble</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; color: #222 }}
code {{ font: 14px/1.5 ui-monospace, monospace; overflow-wrap: anywhere }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #ddd }} a {{ color: #8cf }} }}
</style>
<h1>Thimble {version}</h1>
<p>This host runs virtual machines. Operate it with the command line:</p>
<p><code>thimble login https://{host}</code></p>
<p>The first password of <code>admin</code> was shown on this host's console when it first booted.</p>
<p>The API is described at <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.</p>
<p>SHA-256 of this host's certificate, to compare:<br><code>{fingerprint}</code></p>
</html>
"""


def front(host: str, fingerprint: str) -> Answer:
    """`host` comes from the request and is not to be trusted."""
    plain = host if host and all(letter.isalnum() or letter in ".:-[]" for letter in host) else "ADDRESS"
    pairs = ":".join(fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2))
    text = _FRONT.format(version=__version__, host=plain, fingerprint=pairs or "(none)")
    return Answer(status=200, body=text.encode(), type=HTML)


def health(*, ready: bool) -> Answer:
    return Answer(status=200 if ready else 503, body=b"ready\n" if ready else b"starting\n", type=PLAIN)


def description() -> Answer:
    """OpenAPI 3.1, made when first asked for."""
    global _description
    if not _description:
        from thimble.contract.openapi import document

        _description = document(__version__)
    return Answer(status=200, body=_description)


_description = b""
