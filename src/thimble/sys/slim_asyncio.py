"""asyncio without logging, inspect and traceback, which it imports and hardly ever uses. Import this first.

They are a third of asyncio's import, which is the largest on the way to "ready". While it runs, stand-ins
take their places; one asked for something it does not have becomes the real module, so nothing is missing,
only later. Afterwards `import logging` gives anybody the real one.

What asyncio has to say (a task's exception nobody took, a callback that failed) goes to our log.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from thimble.sys import log


class Logger:
    """As much of `logging.Logger` as asyncio and concurrent.futures use: warnings and worse are said."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def warning(self, text: object, *values: object, exc_info: Any = None, **_: Any) -> None:
        for line in (str(text) % values if values else str(text)).splitlines():
            log.say(f"{self.name}: {line}")
        error = sys.exception() if exc_info is True else exc_info
        if isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            import traceback

            for line in "".join(traceback.format_exception(error)).splitlines():
                log.say(f"{self.name}: {line}")

    error = critical = warning

    def exception(self, text: object, *values: object, **more: Any) -> None:
        self.warning(text, *values, **{"exc_info": True, **more})

    def log(self, level: int, text: object, *values: object, **more: Any) -> None:
        if level >= WARNING:
            self.warning(text, *values, **more)

    def debug(self, *_: Any, **__: Any) -> None:
        """Not said."""

    info = addHandler = debug  # spelt as logging spells it

    def isEnabledFor(self, level: int) -> bool:
        return level >= WARNING

    def getEffectiveLevel(self) -> int:
        return WARNING


_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE
DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50


class StandIn(ModuleType):
    """A module that is imported when something is asked of it that it was not given."""

    def __init__(self, name: str, **given: object) -> None:
        super().__init__(name)
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        found = self.__dict__[name] = getattr(importlib.import_module(self.__name__), name)
        return found


def _extract_stack(*values: Any, **more: Any) -> Any:
    """The C half of asyncio takes hold of this function while it is imported."""
    import traceback

    return traceback.extract_stack(*values, **more)


def _iscoroutinefunction(thing: object) -> bool:
    """What `loop.add_signal_handler` wants to know of a plain function."""
    code = getattr(thing, "__code__", None)
    return bool(code is not None and code.co_flags & _CO_COROUTINE)


def stand_ins() -> tuple[StandIn, ...]:
    levels = {"DEBUG": DEBUG, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR, "CRITICAL": CRITICAL}
    return (
        StandIn("logging", getLogger=Logger, StreamHandler=lambda *_: None, **levels),
        StandIn("inspect", iscoroutinefunction=_iscoroutinefunction),
        StandIn("traceback", extract_stack=_extract_stack),
    )


def import_asyncio() -> None:
    """Import asyncio so, unless it is there already."""
    if "asyncio" in sys.modules:
        return
    placed = [each for each in stand_ins() if each.__name__ not in sys.modules]
    sys.modules.update({each.__name__: each for each in placed})
    try:
        importlib.import_module("asyncio")
    finally:
        for each in placed:
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]


import_asyncio()
