"""asyncio imported without what it hardly uses, in a Python of its own."""
# ruff: noqa: E501

from __future__ import annotations

import subprocess
import sys

HEAVY = ("logging", "inspect", "traceback")


def python(script: str) -> str:
    """What `script` says after an import of slim_asyncio."""
    script = f"import sys\nHEAVY = {HEAVY}\nfrom thimble.sys import slim_asyncio\n{script}"
    # Isolated and without site: its .pth files import half the library.
    argv = [sys.executable, "-IS", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{script}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_heavy_modules_stay_out() -> None:
    script = "import asyncio; asyncio.run(asyncio.sleep(0)); print([each for each in HEAVY if each in sys.modules])"
    assert python(script) == "[]\n"


def test_they_are_the_real_ones_for_who_wants_them() -> None:
    script = """
import asyncio, logging, inspect, traceback
logging.getLogger("x").addHandler(logging.NullHandler())
assert inspect.signature(asyncio.run) and traceback.format_stack()
assert logging.__file__ and inspect.__file__ and traceback.__file__
"""
    assert python(script) == ""


def test_asyncio_itself_gets_the_real_ones_when_it_needs_them() -> None:
    script = """
import asyncio
async def work(): pass
assert asyncio.iscoroutinefunction(work) and not asyncio.iscoroutinefunction(print)
async def main():
    task = asyncio.create_task(work(), name="mine")
    task.print_stack(file=sys.stdout)
    await task
asyncio.run(main(), debug=True)
assert sys.modules["inspect"].__file__
"""
    assert "mine" in python(script)


def test_what_asyncio_has_to_say_goes_to_the_log() -> None:
    script = """
import asyncio, gc
from thimble.sys import log
async def fails(): raise KeyError("lost")
async def main():
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
asyncio.run(main())
said = "\\n".join(log.ring)
assert "asyncio: Task exception was never retrieved" in said and "KeyError: 'lost'" in said
assert "ZeroDivisionError" in said
print("said")
"""
    assert python(script).startswith("said\n")


def test_after_a_plain_import_it_does_nothing() -> None:
    script = "import asyncio, logging\nbefore = asyncio.log.logger\nfrom thimble.sys import slim_asyncio\nassert asyncio.log.logger is before"
    argv = [sys.executable, "-IS", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{script}"]
    subprocess.run(argv, check=True, timeout=60)
