"""The child left behind by bench.py: waits for its orders, carries them out, says what it found."""

from __future__ import annotations

import os
import sys
import traceback

from benchmarks.inside.channel import Channel

LATE = (
    "/usr/lib/python3.13",
    "/usr/lib/python3.13/lib-dynload",
)  # what PID 1 does without until its root is up


def run() -> None:
    """Never returns: this process must not fall into anything of PID 1's."""
    channel = Channel()
    try:
        given = channel.hear()
        sys.path += LATE
        if given["what"] == "idle":
            from benchmarks.inside import idle

            channel.say(**idle.watch(given["settle_s"], given["over_s"]))
        else:
            from benchmarks.inside import start

            start.measure(given, channel.say)
        channel.say(side="end")
    except BaseException:
        channel.say(side="failed", why=traceback.format_exc(limit=-3))
    finally:
        os._exit(0)
