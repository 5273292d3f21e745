"""`./bench`: measure the promises, print the table, write out/bench.json."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import catalogue, machine, table
from benchmarks.context import Context
from benchmarks.promise import Row, judge
from thimble.core.problem import Problem
from thimble.host import hardware
from thimble.image import cache
from thimble.image.progress import on_stderr


def options(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    known = "\n".join(f"  {one.NAME:10} {one.TITLE}" for one in catalogue.PROMISES)
    parser = argparse.ArgumentParser(
        prog="./bench",
        description="Measure Thimble's promises beside their peers, in turns, in one run.",
        epilog=f"promises:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("promise", nargs="*", help="which to measure; all without any")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each side (default 3)")
    parser.add_argument(
        "--profile", default="server", choices=("server", "virtual"), help="which image to boot"
    )
    parser.add_argument(
        "--idle", type=float, default=60.0, metavar="SECONDS", help="how long to watch an idle server"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="where images and bench.json go (default out)"
    )
    parser.add_argument("--json", action="store_true", help="print the report instead of the table")
    given = parser.parse_args(argv)
    unknown = set(given.promise) - {one.NAME for one in catalogue.PROMISES}
    if unknown:
        parser.error(f"no such promise: {', '.join(sorted(unknown))}")
    if given.rounds < 1 or given.idle < 1:
        parser.error("--rounds and --idle are at least 1")
    return given


def facts() -> dict[str, object]:
    """What the figures depend on. No date, no name."""
    accel = machine.accelerator()
    return {
        "accel": accel,
        "processors": os.cpu_count(),
        "cpu_model": hardware.cpu_model(),
        "memory_bytes": hardware.memory()[0],
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "server": {"vcpus": machine.VCPUS, "memory_mib": machine.MEMORY_MIB},
        "load": os.getloadavg()[0],
    }


def main(argv: Sequence[str]) -> int:
    """0: all promises measured are kept; 1: one is not, or could not be measured; 2: wrong usage."""
    given = options(argv)
    context = Context(
        profile=given.profile, out=given.out, rounds=given.rounds, idle_s=given.idle, report=on_stderr
    )
    before = facts()
    rows: list[Row] = []
    failed = False
    for one in catalogue.PROMISES:
        if given.promise and one.NAME not in given.promise:
            continue
        context.say(one.TITLE)
        try:
            rows += one.measure(context)
        except Problem as problem:
            failed = True
            _complain(one.NAME, problem)
    report = table.report(rows, before)
    cache.write(given.out / "bench.json", report)
    print(report.decode() if given.json else table.render(rows))
    return 1 if failed or any(judge(row).kept is False for row in rows) else 0


def _complain(name: str, problem: Problem) -> None:
    print(f"bench: {name} could not be measured: {problem.detail}", file=sys.stderr)
    for reason in problem.reasons:
        print(f"  {reason.message}", file=sys.stderr)
    if problem.hint:
        print(f"  {problem.hint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
