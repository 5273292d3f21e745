"""What the agent says about itself: lines on stderr and a ring in RAM. Nothing secret goes in, ever.

Not the `logging` package: its import costs as much as the rest of this file's users together, and a boot is
measured in hundredths of a second.
"""

from __future__ import annotations

import sys
import time
from collections import deque

#: The last lines, oldest first.
ring: deque[str] = deque(maxlen=5000)
_said = 0


def count() -> int:
    """How many lines were ever said."""
    return _said


def say(line: str) -> None:
    """One line, stamped in UTC."""
    stamped = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line
    ring.append(stamped)
    global _said
    _said += 1
    print(stamped, file=sys.stderr, flush=True)


def trouble(what: str, error: BaseException) -> None:
    """An exception nobody expected, with its traceback, each line behind `what`."""
    import traceback  # not on the way to "ready"

    for line in "".join(traceback.format_exception(error)).splitlines():
        say(f"{what}: {line}")
