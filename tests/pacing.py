"""Which tests come first, which may run side by side (`./test` runs two at a time), what each folder took.

Dear ones begin first, so that none is left to run alone at the end. What shares a fixture stays together.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: The folders, dearest first; then files of tests/system that boot most.
FOLDERS = ("system", "agent", "vm", "unit")
DEAR = (
    "test_deploy_life",
    "test_netboot",
    "test_image_build",
    "test_media",
    "test_host_document",
    "test_machine",
    "test_boot_surroundings",
    "test_spine",
    "test_management_trial",
)


class Pacing:
    """A pytest plugin."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: _rank(item.path))
        for item in items:
            if together := _together(item):
                item.add_marker(pytest.mark.xdist_group(together))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = _folder(report.nodeid)
        self.seconds[folder] += report.duration
        self.tests[folder] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds by folder, setup included")
        for folder, seconds in self.seconds.most_common():
            terminalreporter.write_line(f"{seconds:8.0f} s  {folder} ({self.tests[folder]} tests)")


def _folder(nodeid: str) -> str:
    parts = nodeid.split("::")[0].split("/")
    return "/".join(parts[: 3 if parts[1:2] == ["unit"] else 2])


def _rank(path: Path) -> tuple[int, int]:
    """Where its file comes; files of one rank keep their order."""
    parts = path.relative_to(TESTS).parts
    folder = FOLDERS.index(parts[0]) if parts[0] in FOLDERS else len(FOLDERS)
    return folder, DEAR.index(path.stem) if path.stem in DEAR else len(DEAR)


def _together(item: pytest.Item) -> str:
    """Tests of one name run one after the other; "": it stands for itself, beside any other."""
    first, *_ = item.path.relative_to(TESTS).parts
    if first == "agent":
        return "agent"  # one agent for all
    return "" if first == "system" else item.path.stem
