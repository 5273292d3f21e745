"""Requests to the management controller by `/dev/ipmi0` (linux/ipmi.h). They wait: call it in a thread."""

from __future__ import annotations

import array
import fcntl
import os
import select
import struct
from pathlib import Path

_SEND = 0x8028690D  # _IOR('i', 13, struct ipmi_req)
_RECEIVE = 0xC030690B  # _IOWR('i', 11, struct ipmi_recv): what is too long is cut
_SYSTEM_INTERFACE = 0x0C
_BMC_CHANNEL = 0x0F
DEVICE = Path("/dev/ipmi0")


class Refused(OSError):
    """The controller answered with a completion code."""


class Socket:
    """An open way to the controller. `timeout`: seconds for each answer."""

    def __init__(self, *, timeout: float = 5.0, device: Path = DEVICE) -> None:
        self._timeout = timeout
        self._descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        self._number = 0

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def ask(self, function: int, command: int, data: bytes = b"") -> bytes:
        """The answer's bytes behind its completion code. Raises `Refused`, TimeoutError, OSError."""
        self._number += 1
        address = array.array("B", struct.pack("=ihBx", _SYSTEM_INTERFACE, _BMC_CHANNEL, 0))
        body = array.array("B", data or b"\0")
        request = struct.pack(
            "@PIlBBHP",
            address.buffer_info()[0], len(address), self._number, function, command, len(data),
            body.buffer_info()[0],
        )  # fmt: skip
        fcntl.ioctl(self._descriptor, _SEND, request)
        answer = self._answer()
        if not answer or answer[0]:
            raise Refused(5, f"completion code {answer[0] if answer else -1:#x}")
        return answer[1:]

    def _answer(self) -> bytes:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        while True:
            if not waiting.poll(self._timeout * 1000):
                raise TimeoutError(110, "the management controller does not answer")
            address, body = array.array("B", bytes(64)), array.array("B", bytes(272))
            received = bytearray(
                struct.pack("@iPIlBBHP", 0, address.buffer_info()[0], 64, 0, 0, 0, 272, body.buffer_info()[0])
            )
            fcntl.ioctl(self._descriptor, _RECEIVE, received)
            _, _, _, number, _, _, length, _ = struct.unpack("@iPIlBBHP", received)
            if number == self._number:  # else: the answer to one we no longer wait for
                return body.tobytes()[:length]
