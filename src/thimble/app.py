"""The agent: composes the parts and runs them. The only module that knows everybody.

Order matters: what "ready" needs comes first and nothing else; networks and autostart follow.

    options ▸ state, accounts, certificate ▸ services ▸ serve ▸ ready ▸ networks ▸ VMs: adopt, autostart

SIGTERM ends the agent and leaves VMs running. SIGPWR and SIGUSR2, sent by PID 1 for a button, power the host
off and reboot it in order: guests first.
"""

from __future__ import annotations

# isort: off
from thimble.sys import slim_asyncio  # noqa: F401 — before asyncio: it makes that import cheaper
# isort: on

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from thimble import options as command_line
from thimble.access import tls
from thimble.access.auth import Auth
from thimble.access.verbs import SessionService, TokenService, UserService
from thimble.api.app import Api
from thimble.api.metrics import Sample
from thimble.console.serial import Consoles
from thimble.core.lazy import Lazy
from thimble.core.problem import Problem
from thimble.dispatch.registry import Registry
from thimble.host import hardware
from thimble.host.pid1 import Init
from thimble.host.service import HostFacts, HostRecord, HostService
from thimble.http import server
from thimble.network.service import Network
from thimble.options import Options
from thimble.state.event_verbs import EventService
from thimble.state.events import Events
from thimble.state.store import Collection, is_durable
from thimble.state.task_verbs import TaskService
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.sys import clock, files, log
from thimble.vm.qemu.process import QemuPaths
from thimble.vm.service import VmService

if TYPE_CHECKING:
    from thimble.contract.deploy import Guests
    from thimble.deploy.service import DeployService
    from thimble.document.host_facts import Sources
    from thimble.document.service import DocumentService
    from thimble.host.machine import MachineService
    from thimble.host.management import ManagementService
    from thimble.http.protocol import Asgi
    from thimble.netboot.report import Reporter
    from thimble.netboot.service import NetbootService

#: Seconds a guest gets to obey its shutdown request when a button was pressed.
BUTTON_GUEST_S = 90.0
#: How often PID 1's facts are looked at while it still searches for a document.
SEARCH_PAUSE_S = 0.5


def fault() -> Callable[[str], None]:
    """Where fault tests strike: THIMBLE_FAULT=`verb/step[.done]` ends the process right there."""
    wanted = os.environ.get("THIMBLE_FAULT", "")

    def strike(point: str) -> None:
        if point == wanted:
            log.say(f"fault test: ending at {point}")
            os._exit(137)

    return strike if wanted else lambda _: None


class Agent:
    """All parts, put together; nothing runs before `run`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = clock.since_boot() if options.hosted else 0.0
        options.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        options.run.mkdir(parents=True, exist_ok=True, mode=0o711)
        durable = is_durable(options.state)
        self.init = Init(options.run)
        self.accel = hardware.accel()
        self.events = Events(base=int(clock.now() * 1000), clock=clock.now)
        self.tasks = Tasks(self.events, clock=clock.now, entropy=clock.entropy, fault=fault())
        self.auth = Auth(
            options.state,
            durable=durable,
            clock=clock.now,
            entropy=clock.entropy,
            rev=lambda: self.events.rev,
        )
        self.durable = durable
        qemu = QemuPaths.under(options.qemu_dir, options.share)
        self.storage = Storage(
            options.state, options.run, events=self.events, tasks=self.tasks, qemu_img=qemu.img
        )
        self.network = Network(options.state, options.run, events=self.events)
        self.consoles = Consoles()
        self.vms = VmService(
            storage=self.storage,
            network=self.network,
            consoles=self.consoles,
            events=self.events,
            tasks=self.tasks,
            accel=self.accel,
            qemu=qemu,
            run=options.run,
            clock=clock.now,
            entropy=clock.entropy,
        )
        self.storage.users = self.vms.volume_users
        self.storage.image_users = self.vms.image_users
        self.network.hosts = self.vms.port_uses
        self.deploy = Lazy(self._deploy_service)
        self.management = Lazy(self._management_service)
        self.netboot = Lazy(self._netboot_service)
        self.fingerprint = ""
        self.hosts: Collection[HostRecord] = Collection(HostRecord, noun="host", durable=durable)
        self.hosts.add_root("", options.state / "host")
        self.registry = Registry()
        self.host = Lazy(self._host_service)
        self.document = Lazy(self._document_service)
        self.document_done = False  # the one found at boot is applied, now or before
        self.reporter: Reporter | None = None
        self.ready = False

    async def run(self) -> int:
        """Serve until told to end. Returns the exit code."""
        shown = self.auth.first_password(self._given_password())
        name = self._name()
        secure, fingerprint = await tls.ensure(
            self.options.state, name=name, addresses=hardware.addresses(), durable=self.durable
        )
        self.fingerprint = fingerprint
        await self.storage.open()
        await self.network.open()
        await self.vms.open()
        host = self.host.get()
        self.registry.add(self.services())
        api = Api(
            registry=self.registry,
            auth=self.auth,
            ready=lambda: self.ready,
            numbers=self._numbers,
            fingerprint=fingerprint,
            schema=_schema,
        )
        ending = asyncio.Event()
        self._signals(host, ending)
        after: list[asyncio.Task[None]] = []

        def ready(port: int) -> None:
            self.ready = True
            host.ready_s = clock.since_boot() - self.started
            self._admit_console(port)
            self._announce(port, host, shown, fingerprint)
            loop = asyncio.get_running_loop()
            work = (self._after_ready(), host.count_writes(), host.watch())
            after.extend(loop.create_task(each) for each in work)

        serving = asyncio.ensure_future(
            server.serve(api, host=self.options.host, port=self.options.port, tls=secure, ready=ready)
        )
        waiting = asyncio.ensure_future(ending.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, serving, *after):
            task.cancel()
        results = await asyncio.gather(serving, *after, return_exceptions=True)
        if self._netboot_asked:
            await self.netboot.get().close()
        await self.vms.close()
        await self.network.close(tidy=self.options.hosted)
        await self.storage.close()
        if isinstance(results[0], Exception):  # it ended by itself; cancelled it is no Exception
            raise results[0]
        return 0

    def services(self) -> dict[str, object]:
        """Who answers the verbs of each noun."""
        return {
            "session": SessionService(self.auth),
            "user": UserService(self.auth),
            "token": TokenService(self.auth),
            "task": TaskService(self.tasks, lambda: self.events.rev),
            "event": EventService(self.events),
            "host": self.host,
            "vm": self.vms,
            "deploy": self.deploy,
            "key": Lazy(lambda: self.deploy.get().keys),
            "management": self.management,
            "document": self.document,
            "netboot": self.netboot,
            "neighbour": Lazy(lambda: self.netboot.get().neighbours),
            **self.storage.services(),
            **self.network.services(),
        }

    async def _after_ready(self) -> None:
        """What may take its time. Each part that fails says so and the others go on."""
        if self.init.network_trial is not None:  # an agent before this one began it
            self.management.get().watch()
        for what, work in (
            ("report", self._begin_report),
            ("networks", self.network.sync),
            ("deploy", self._settle_boot),
            ("document", self._begin_document),
            ("netboot", self._begin_netboot),
            ("autostart", self.vms.autostart),
        ):
            try:
                await work()
            except Problem as error:
                log.say(f"{what}: {error.detail}")
            except Exception as error:
                import traceback

                for line in "".join(traceback.format_exception(error)).splitlines():
                    log.say(f"{what}: {line}")
        from thimble.sys import memory

        memory.give_back()

    @property
    def _netboot_asked(self) -> bool:
        """Off, and not even imported, unless it was asked for."""
        return (self.options.state / "netboot").exists()

    async def _begin_netboot(self) -> None:
        if self._netboot_asked:
            await self.netboot.get().begin()

    async def _settle_boot(self) -> None:
        """A trial is proven before any VM starts; one that is not good ends here."""
        if not self.options.hosted:
            await self.deploy.get().begin()

    def _deploy_service(self) -> DeployService:
        from thimble.deploy.context import DeployParts
        from thimble.deploy.service import DeployService

        async def stop_guests(timeout: float, guests: Guests) -> None:
            from thimble.contract.vm import HostShutdown

            how = None if guests == "policy" else HostShutdown(guests.value)
            await self.vms.stop_all(timeout, how)

        return DeployService(
            DeployParts(
                state=self.options.state,
                run=self.options.run,
                durable=self.durable,
                hosted=self.options.hosted,
                port=self.options.port,
                init=self.init,
                storage=self.storage,
                tasks=self.tasks,
                events=self.events,
                fingerprint=self.fingerprint,
                stop_guests=stop_guests,
                ram_vms=self.vms.in_memory,
            )
        )

    async def _begin_report(self) -> None:
        """A host that was booted by a neighbour says how it is; no other one even imports this."""
        url = "" if self.options.hosted else self.init.words.get("thimble.report", "")
        if not url:
            return
        from thimble.contract.netboot import NeighbourReport
        from thimble.netboot.report import Reporter, stand

        def tell() -> NeighbourReport:
            document = self.document.made
            return stand(
                name=self._name(),
                certificate_sha256=self.fingerprint,
                ready_s=self.host.get().ready_s,
                problem=document.problem if document else "",
                applied=self.document_done,
                vms=self.vms.named(),
            )

        self.reporter = reporter = Reporter(url, tell, port=self.options.port)
        self.events.listen(lambda event: reporter.poke() if event.kind.startswith("vm.") else None)
        self._reporting = asyncio.get_running_loop().create_task(reporter.run())

    def _news(self) -> None:
        """Of the document."""
        if self.reporter is not None:
            self.reporter.poke()

    async def _begin_document(self) -> None:
        """A document found at boot is applied beside all else: an address that hangs holds nothing up."""
        if self.init.present:
            self._settling = asyncio.get_running_loop().create_task(self._settle_document())

    async def _settle_document(self) -> None:
        """PID 1 looks at CDs only when the host has long been ready."""
        while not self.init.searched and self.init.document is None:
            await asyncio.sleep(SEARCH_PAUSE_S)
        found = self.init.document
        if found is None:
            return
        from thimble.document.at_boot import BootDocument

        def say(line: str) -> None:
            log.say(line)
            self._news()
            with suppress(Problem):
                self.init.tell("say", line=line)

        service = self.document.get()
        at_boot = BootDocument(
            service, self.tasks, say, run=self.options.run, online=lambda: bool(hardware.addresses())
        )
        await at_boot.settle(found)
        self.document_done = not service.problem
        self._news()
        if service.problem:  # what was applied before this one is no word on what to do now
            return
        document = service.last_document()
        if document is not None and document.install is not None and document.install.disk:
            await self.deploy.get().install_from_document(document.install)

    def _netboot_service(self) -> NetbootService:
        from thimble.netboot.service import NetbootParts, NetbootService

        async def listen(asgi: Asgi, address: str, port: int) -> Callable[[], Awaitable[None]]:
            plain = server.Server(asgi, tls=None)
            await plain.listen(address, port)
            return plain.close

        return NetbootService(
            NetbootParts(
                state=self.options.state,
                run=self.options.run,
                durable=self.durable,
                network=self.network,
                events=self.events,
                image=lambda url: self.deploy.get().opened(url),
                listen=listen,
                clock=clock.now,
                entropy=clock.entropy,
            )
        )

    def _management_service(self) -> ManagementService:
        from thimble.host.management import ManagementService

        return ManagementService(self.options.state, self.init, self.events, durable=self.durable)

    def _document_service(self) -> DocumentService:
        from thimble.document.service import DocumentService

        sources = Lazy(self._document_sources)
        return DocumentService(self.options.state, sources, self.tasks, durable=self.durable, clock=clock.now)

    def _document_sources(self) -> Sources:
        from thimble.access.verbs import entries
        from thimble.document.host_facts import Sources

        return Sources(
            registry=self.registry,
            storage=self.storage,
            network=self.network,
            vms=self.vms,
            accounts=lambda: entries(self.auth),
            name=self._name,
            managed=lambda: self.init.present,
        )

    def _machine_service(self) -> MachineService:
        from thimble.host.machine import MachineService

        return MachineService(
            init=self.init,
            run=self.options.run,
            events=self.events,
            registry=self.registry,
            warnings=lambda: self.host.get().warnings(),
            mounts=self.storage.datastores.mounted,
            uses=self._card_uses,
            secrets=self._secrets,
            host=lambda: self.host.get().name,
        )

    def _card_uses(self) -> dict[str, str]:
        """MAC → what the network card is for."""
        from thimble.sys import hostnet

        found = {}
        by_name = {name: mac for mac, name in hostnet.macs().items()}
        for name, record in self.network.switches().items():
            if record.uplink in by_name:
                use = "management" if record.adopted else f"switch {name}"
                found[by_name[record.uplink]] = use
        return found

    def _secrets(self) -> list[str]:
        """What no support bundle may hold, wherever it stands."""
        found = [user.value.password for user in self.auth.users.all()]
        found += [token.value.digest for token in self.auth.tokens.all()]
        for vm in self.vms.store.all():
            if vm.value.seed is not None:
                found += [vm.value.seed.password_hash or "", vm.value.seed.user_data]
            if vm.value.direct is not None:
                found.append(vm.value.direct.cmdline)
        return found

    def _host_service(self) -> HostService:
        return HostService(
            records=self.hosts,
            tasks=self.tasks,
            init=self.init,
            facts=HostFacts(
                hosted=self.options.hosted,
                accel=self.accel,
                state=self.options.state,
                run=self.options.run,
                started=self.started,
                certificate_sha256=self.fingerprint,
            ),
            vms=self.vms.counts,
            qemu=self.vms.qemu_version,
            stop_guests=self.vms.stop_all,
            warnings=self._warnings,
            rev=lambda: self.events.rev,
            machine=Lazy(self._machine_service),
        )

    def _warnings(self) -> tuple[str, ...]:
        broken = {
            **self.hosts.broken,
            **self.auth.users.broken,
            **self.auth.tokens.broken,
        }
        lines = [f"{path}: not used, {why}" for path, why in broken.items()]
        if self.accel.name != "kvm":
            lines.append(f"VMs run emulated (TCG), many times slower than with KVM: {self.accel.why}")
        if not self.durable:
            lines.append("state is kept in RAM: everything, the VMs included, is gone at the next reboot")
        return (
            *lines,
            *self._document_warnings(),
            *self.storage.warnings(),
            *self.network.warnings(),
            *self.vms.warnings(),
            *self._deploy_warnings(),
            *(self.netboot.get().warnings() if self.ready and self._netboot_asked else ()),
        )

    def _deploy_warnings(self) -> tuple[str, ...]:
        """Asked before ready as well, when this part is not there yet: then there are none."""
        return self.deploy.get().warnings() if self.ready and not self.options.hosted else ()

    def _document_warnings(self) -> tuple[str, ...]:
        document = self.document.made
        if document is not None and document.problem:
            return (f"document {document.problem}",)
        busy = document is not None and document.busy
        if (self.options.state / "document/applying.json").exists() and not busy:
            return ("a document was not applied to its end: `thimble document show` tells what is left",)
        return ()

    def _name(self) -> str:
        record = self.hosts.find("host")
        return record.value.name if record and record.value.name else os.uname().nodename

    def _given_password(self) -> str:
        path = self.options.password_file
        return path.read_text().strip() if path is not None and path.exists() else ""

    def _signals(self, host: HostService, ending: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        if not self.options.hosted:
            loop.add_signal_handler(signal.SIGPWR, lambda: host.begin("poweroff", BUTTON_GUEST_S))
            loop.add_signal_handler(signal.SIGUSR2, lambda: host.begin("reboot", BUTTON_GUEST_S))

    def _admit_console(self, port: int) -> None:
        """`console.json`: how the console UI, which is root here, may look before anybody signs in."""
        where = self.options.host or "127.0.0.1"
        here = {
            "url": f"https://{f'[{where}]' if ':' in where else where}:{port}",
            "fingerprint": self.fingerprint,
            "token": self.auth.local_token(),
        }
        path = self.options.run / "console.json"
        files.write_atomic(path, msgspec.json.encode(here), mode=0o600, durable=False)

    def _announce(self, port: int, host: HostService, shown: str | None, fingerprint: str) -> None:
        """Hosted, the terminal is ours; in the image PID 1 adds the addresses and writes to every console."""
        lines = [f"certificate SHA-256 {fingerprint}", *(f"warning: {line}" for line in host.warnings())]
        login = f"login admin, password {shown}" if shown else ""
        if self.init.present:
            self.init.tell("ready", lines=lines, login=login)
            return
        lines[1:1] = [login] if login else []
        suffix = "" if port == 443 else f":{port}"
        where = self.options.host or next(iter(hardware.addresses()), "127.0.0.1")
        print(f"thimble: ready in {host.ready_s:.1f} s", file=sys.stderr)
        for line in (f"https://{f'[{where}]' if ':' in where else where}{suffix}/", *lines):
            print(f"thimble: {line}", file=sys.stderr, flush=True)

    def _numbers(self) -> Iterable[Sample]:
        total, available = hardware.memory()
        yield Sample(name="memory_bytes", value=total, help="RAM of the host")
        yield Sample(name="memory_available_bytes", value=available, help="RAM guests can still have")
        yield Sample(name="load1", value=os.getloadavg()[0], help="load average over a minute")
        yield Sample(
            name="uptime_seconds", value=clock.since_boot() - self.started, help="seconds the agent has run"
        )
        running = sum(task.ended is None for task in self.tasks.all())
        yield Sample(name="tasks_running", value=running, help="tasks not ended yet")
        for name, value, labels, words in self.host.get().numbers():
            yield Sample(name=name, value=value, labels=labels, help=words)
        for state, count in self.vms.states().items():
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
