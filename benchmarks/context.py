"""What all promises share in one run: options, built image, peer; made when first asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from benchmarks import libvirt
from benchmarks.libvirt import Peer
from benchmarks.machine import System
from benchmarks.thimble_server import Image
from thimble.image.progress import Report


class Context:
    """One run of ./bench."""

    def __init__(self, *, profile: str, out: Path, rounds: int, idle_s: float, report: Report) -> None:
        self.profile = profile
        self.out = out
        self.rounds = rounds
        self.idle_s = idle_s
        self.report = report

    @cached_property
    def image(self) -> Image:
        """The image of the profile asked for, built if missing."""
        from benchmarks import built

        return built.image(self.profile, self.out, self.report)

    @cached_property
    def peer(self) -> Peer:
        """Debian + libvirt, built if missing."""
        return libvirt.ensure(self.report)

    def thimble_system(self) -> System:
        return self.image.system()

    def peer_system(self, *, more: str = "") -> System:
        return System(
            name="libvirt",
            kernel=self.peer.kernel,
            initrd=self.peer.initrd,
            cmdline=f"{self.peer.cmdline} {more}".strip(),
            ready=libvirt.READY.encode(),
            disk=self.peer.disk,
        )

    def say(self, text: str, done: float | None = None) -> None:
        self.report("bench", done, text)
