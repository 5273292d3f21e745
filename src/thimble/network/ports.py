"""The open ports of switches: taps, made off the loop."""

from __future__ import annotations

import asyncio
import os
from zlib import crc32

from thimble.network.records import Port, PortUse
from thimble.sys.worker import Worker


class Ports:
    """`uses`: by VM id and NIC, what every port was opened for, until it is closed."""

    def __init__(self) -> None:
        self.uses: dict[tuple[str, str], PortUse] = {}
        self._worker = Worker("ports")

    async def open(self, use: PortUse, bridge: str) -> Port:
        """A new tap on `bridge`. Raises `Problem` IN_USE, UNSUPPORTED, FAILED."""
        from thimble.sys import link

        name = f"tp-{crc32(f'{use.vm_id}/{use.nic}'.encode()):08x}"

        def opened() -> Port:
            descriptor = link.open_tap(name, bridge, f"fe{use.mac[2:]}")
            return Port(name=name, fd=descriptor, vhost_fd=link.open_vhost())

        opening = asyncio.ensure_future(self._worker.run(opened))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # nobody takes it: the tap would stay as long as we do
            opening.add_done_callback(_close)
            raise


def _close(opening: asyncio.Future[Port]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        port = opening.result()
        os.close(port.fd)
        if port.vhost_fd is not None:
            os.close(port.vhost_fd)
