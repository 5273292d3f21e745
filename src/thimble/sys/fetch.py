"""Files from the web: over http and https, in a thread, with limits on size, time and redirects."""

from __future__ import annotations

import asyncio
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.core.units import show_size

_PIECE = 256 * 1024
_REDIRECTS = 5


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few; urllib itself follows none that leads away from the web."""

    max_redirections = _REDIRECTS


async def fetch(
    url: str,
    target: Path,
    *,
    limit: int,
    silence: float = 30.0,
    timeout: float = 3600.0,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write what `url` answers to `target`, at most `limit` bytes; a failed or cancelled one leaves no file.

    `silence`: seconds a server may say nothing; `timeout`: for the whole. Raises `Problem` INVALID,
    UNAVAILABLE, TOO_LARGE, TIMEOUT.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Problem(Code.INVALID, f"{url!r} is no http or https address")
    ended = threading.Event()
    loop = asyncio.get_running_loop()

    def tell(fraction: float) -> None:
        loop.call_soon_threadsafe(progress, fraction)

    try:
        await asyncio.wait_for(asyncio.to_thread(_load, url, target, limit, silence, tell, ended), timeout)
    except TimeoutError as error:
        raise Problem(Code.TIMEOUT, f"{url} did not come within {timeout:.0f} s") from error
    finally:
        ended.set()  # the thread removes what it has as soon as it notices


def _load(
    url: str,
    target: Path,
    limit: int,
    silence: float,
    progress: Callable[[float], None],
    ended: threading.Event,
) -> None:
    handlers = [urllib.request.HTTPSHandler(context=ssl.create_default_context()), _Redirects()]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    done = False
    try:
        with opener.open(url, timeout=silence) as answer, target.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            count = 0
            while piece := answer.read(_PIECE):
                if ended.is_set():
                    return
                count += len(piece)
                if max(count, length) > limit:
                    raise Problem(Code.TOO_LARGE, f"{url} is larger than {show_size(limit)}")
                file.write(piece)
                if length:
                    progress(count / length)
            if length and count != length:
                raise Problem(Code.UNAVAILABLE, f"{url} ended after {count} of {length} bytes")
        done = not ended.is_set()
    except urllib.error.HTTPError as error:
        raise Problem(Code.UNAVAILABLE, f"{url}: the server says {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise Problem(Code.TIMEOUT, f"{url}: the server said nothing for {silence:.0f} s") from error
    except (urllib.error.URLError, ssl.SSLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise Problem(Code.UNAVAILABLE, f"{url}: {why}") from error
    finally:
        if not done:
            target.unlink(missing_ok=True)
