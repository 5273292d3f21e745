"""The agent: puts its parts together and lives. The only module that knows everybody.

Order matters: what "ready" needs comes first and nothing else; see `parts` and `late`.

    options ▸ parts ▸ certificate ▸ records ▸ serve ▸ ready ▸ late

SIGTERM ends the agent and leaves VMs running. SIGPWR and SIGUSR2, sent by PID 1 for a button, power the host
off and reboot it in order: guests first.
"""

from __future__ import annotations

# isort: off
from thimble.sys import slim_asyncio  # noqa: F401 — before asyncio: it makes that import cheaper
# isort: on

import asyncio
import signal
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack

from thimble import options as command_line
from thimble.access import tls
from thimble.access.session_verbs import SessionService
from thimble.access.verbs import TokenService, UserService
from thimble.api.app import Api
from thimble.api.metrics import Sample
from thimble.core.problem import Problem
from thimble.dispatch.event_verbs import EventService
from thimble.dispatch.task_verbs import TaskService
from thimble.host import announce, hardware
from thimble.http import server
from thimble.late import Late
from thimble.options import Options
from thimble.parts import Parts
from thimble.sys import clock

#: Seconds a guest gets to obey its shutdown request when a button was pressed.
BUTTON_GUEST_S = 90.0


class Agent:
    """Composed when it is made; nothing runs before `run`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.parts = parts = Parts(options)
        self.late = Late(parts)
        parts.registry.add(
            {
                "session": SessionService(parts.auth),
                "user": UserService(parts.auth),
                "token": TokenService(parts.auth),
                "task": TaskService(parts.tasks, lambda: parts.events.rev),
                "event": EventService(parts.events),
                **parts.storage.services(),
                **parts.network.services(),
                **parts.vms.services(),
                **self.late.services(),
            }
        )

    async def run(self) -> int:
        """Serve until told to end. Returns the exit code."""
        parts, options = self.parts, self.options
        password = parts.auth.first_password(self._given_password())
        secure, parts.fingerprint = await tls.ensure(
            options.state, name=parts.name(), addresses=hardware.addresses(), durable=parts.durable
        )
        await parts.storage.open()
        await parts.network.open()
        await parts.vms.open()
        api = Api(
            registry=parts.registry,
            auth=parts.auth,
            ready=lambda: parts.ready,
            numbers=self._numbers,
            fingerprint=parts.fingerprint,
            schema=_schema,
        )
        ending = asyncio.Event()
        self._signals(ending)

        def ready(port: int) -> None:
            self._ready(port, password or "")

        async with AsyncExitStack() as closing:
            closing.push_async_callback(parts.storage.close)
            closing.push_async_callback(parts.network.close, tidy=options.hosted)
            closing.push_async_callback(parts.vms.close)
            closing.push_async_callback(self._close_netboot)
            closing.push_async_callback(parts.background.close)
            serving = asyncio.ensure_future(
                server.serve(api, host=options.host, port=options.port, tls=secure, ready=ready)
            )
            waiting = asyncio.ensure_future(ending.wait())
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            serving.cancel()
            (result,) = await asyncio.gather(serving, return_exceptions=True)
        if isinstance(result, Exception):  # it ended by itself; cancelled it is no Exception
            raise result
        return 0

    def _ready(self, port: int, password: str) -> None:
        """The socket is open: say so, and begin what comes after."""
        parts, options, host = self.parts, self.options, self.late.host.get()
        parts.ready = True
        host.ready_s = clock.since_boot() - parts.started
        fingerprint, token = parts.fingerprint, parts.auth.local_token()
        announce.admit_console(
            options.run, host=options.host, port=port, fingerprint=fingerprint, token=token
        )
        announce.announce(
            parts.init,
            announce.Ready(
                host=options.host, port=port, fingerprint=fingerprint, password=password,
                seconds=host.ready_s, warnings=host.warnings(),
            ),
        )  # fmt: skip
        for name, work in (
            ("after ready", self.late.begin()),
            ("writes to the medium", host.count_writes()),
            ("health", host.watch()),
        ):
            parts.background.keep(name, work)

    async def _close_netboot(self) -> None:
        if (booting := self.late.netboot.made) is not None:
            await booting.close()

    def _given_password(self) -> str:
        path = self.options.password_file
        return path.read_text().strip() if path is not None and path.exists() else ""

    def _signals(self, ending: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        if not self.options.hosted:
            power = self.late.host.get().power
            loop.add_signal_handler(signal.SIGPWR, lambda: power.press("poweroff", BUTTON_GUEST_S))
            loop.add_signal_handler(signal.SIGUSR2, lambda: power.press("reboot", BUTTON_GUEST_S))

    def _numbers(self) -> Iterable[Sample]:
        for name, value, labels, words in self.late.host.get().numbers():
            yield Sample(name=name, value=value, labels=labels, help=words)
        for state, count in self.parts.vms.states().items():
            yield Sample(name="vms", value=count, labels={"state": state}, help="virtual machines by state")


def _schema() -> bytes:
    from thimble.document.schema import schema

    return schema()


def warm() -> None:
    """Called by PID 1 while disks are still looked for: imports what the way to ready would import later."""
    import ctypes
    import hashlib

    from thimble.access import x509

    del ctypes, hashlib, x509


def main(argv: list[str] | None = None) -> int:
    """Run the agent until it is told to end; for PID 1, `thimble host run` and `python -m thimble.app`."""
    try:
        chosen = command_line.parse(sys.argv[1:] if argv is None else argv)
        return asyncio.run(Agent(chosen).run())
    except Problem as error:
        print(f"thimble: {error.detail}", file=sys.stderr)
        if error.hint:
            print(f"thimble: {error.hint}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
