"""`/metrics`: numbers in Prometheus' text format 0.0.4. Counts the API's own requests itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """`thimble_<name>{labels} value`. `kind`: gauge or counter. Samples of one name come together."""

    name: str
    value: float
    labels: dict[str, str] = {}
    kind: str = "gauge"
    help: str = ""


Numbers = Callable[[], Iterable[Sample]]


class Metrics:
    """`numbers` gives what the rest of the agent counts: VMs by state, memory, load, tasks."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * len(BUCKETS)
        self._seconds = 0.0

    def seen(self, verb: str, status: int, seconds: float) -> None:
        """An answer was given to `verb` (empty: to none) after `seconds`."""
        self._requests[verb, status] += 1
        self._seconds += seconds
        for number, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self._buckets[number] += 1

    def text(self) -> bytes:
        lines: list[str] = []
        told = ""
        for sample in (*self._numbers(), *self._own()):
            if sample.name != told:
                told = sample.name
                if sample.help:
                    lines.append(f"# HELP thimble_{told} {sample.help}")
                lines.append(f"# TYPE thimble_{told} {sample.kind}")
            lines.append(f"thimble_{told}{_labels(sample.labels)} {sample.value:.17g}")
        lines += self._histogram()
        return ("\n".join(lines) + "\n").encode()

    def _own(self) -> Iterable[Sample]:
        for (verb, status), count in sorted(self._requests.items()):
            yield Sample(
                name="api_requests_total",
                value=count,
                labels={"verb": verb, "status": str(status)},
                kind="counter",
                help="Answers of the API.",
            )

    def _histogram(self) -> list[str]:
        name, count = "thimble_api_seconds", sum(self._requests.values())
        bounds = [*zip(map(str, BUCKETS), self._buckets, strict=True), ("+Inf", count)]
        return [
            f"# HELP {name} Time to the answer.",
            f"# TYPE {name} histogram",
            *(f'{name}_bucket{{le="{bound}"}} {below}' for bound, below in bounds),
            f"{name}_sum {self._seconds:.6f}",
            f"{name}_count {count}",
        ]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
