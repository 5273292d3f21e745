"""What "ready" does not need: services made when they are first asked for, and the work that comes after.

    after ready, in order: report ▸ networks ▸ deploy ▸ datastores ▸ document ▸ netboot ▸ autostart

Their modules are imported by who makes them: each costs the way to "ready" otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from thimble import netboot
from thimble.core.lazy import Lazy
from thimble.core.problem import Problem
from thimble.host import hardware
from thimble.host.records import HostFacts
from thimble.host.service import HostService
from thimble.parts import Parts
from thimble.sys import clock, log

if TYPE_CHECKING:
    from thimble.contract.document import InstallEntry
    from thimble.deploy.service import DeployService
    from thimble.document.host_facts import Sources
    from thimble.document.service import DocumentService
    from thimble.host.machine import MachineService
    from thimble.host.management import ManagementService
    from thimble.netboot.report import Reporter
    from thimble.netboot.service import NetbootService


class Late:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.host = Lazy(self._host)
        self.deploy = Lazy(self._deploy)
        self.management = Lazy(self._management)
        self.netboot = Lazy(self._netboot)
        self.document = Lazy(self._document)
        self.document_done = False  # the one found at boot is applied, now or before
        self._reporter: Reporter | None = None

    def services(self) -> Mapping[str, object]:
        """What the API binds verbs to."""
        return {
            "host": self.host,
            "deploy": self.deploy,
            "key": Lazy(lambda: self.deploy.get().keys),
            "management": self.management,
            "document": self.document,
            "netboot": self.netboot,
            "neighbour": Lazy(lambda: self.netboot.get().neighbours),
        }

    # ── after ready ──────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """What may take its time. Each part that fails says so and the others go on."""
        parts = self._parts
        if parts.init.network_trial is not None:  # an agent before this one began it
            self.management.get().watch()
        for what, work in (
            ("report", self._begin_report),
            ("networks", parts.network.sync),
            ("deploy", self._settle_boot),
            ("datastores", parts.storage.settle),
            ("document", self._begin_document),
            ("netboot", self._begin_netboot),
            ("autostart", parts.vms.autostart),
        ):
            try:
                await work()
            except Problem as error:
                log.say(f"{what}: {error.detail}")
            except Exception as error:
                log.trouble(what, error)
        from thimble.sys import memory

        memory.give_back()

    async def _settle_boot(self) -> None:
        """A trial boot is proven before any VM starts; one that is not good ends here."""
        if not self._parts.options.hosted:
            await self.deploy.get().begin()

    async def _begin_netboot(self) -> None:
        if netboot.asked(self._parts.options.state):
            await self.netboot.get().begin()

    async def _begin_report(self) -> None:
        """A host that was booted by a neighbour reports to it; no other one even imports this."""
        parts = self._parts
        url = "" if parts.options.hosted else parts.init.words.get("thimble.report", "")
        if not url:
            return
        from thimble.netboot.report import HostState, Reporter, begin

        def document() -> tuple[str, bool]:
            made = self.document.made
            return made.problem if made else "", self.document_done

        state = HostState(
            certificate_sha256=parts.fingerprint, name=parts.name, document=document, vms=parts.vms.named,
            ready_s=lambda: self.host.get().ready_s,
        )  # fmt: skip
        self._reporter = Reporter(url, state.report, port=parts.options.port)
        begin(self._reporter, parts.events, parts.background)

    async def _begin_document(self) -> None:
        """A document found at boot is applied beside all else: an address that hangs holds nothing up."""
        if self._parts.init.present:
            self._parts.background.keep("document found at boot", self._settle_document())

    async def _settle_document(self) -> None:
        from thimble.document import at_boot

        parts, service = self._parts, self.document.get()

        def ended() -> None:
            self.document_done = not service.problem
            self._changed()

        def say(line: str) -> None:
            log.say(line)
            self._changed()
            try:
                parts.init.tell("say", line=line)
            except Problem:
                pass

        async def install(wanted: InstallEntry) -> None:
            await self.deploy.get().install_from_document(wanted)

        found = at_boot.BootDocument(
            service, parts.tasks, say, run=parts.options.run, online=lambda: bool(hardware.addresses()),
            ended=ended,
        )  # fmt: skip
        await at_boot.settle(parts.init, service, found, install)

    def _changed(self) -> None:
        """Something of the document that a report tells."""
        if self._reporter is not None:
            self._reporter.poke()

    def warnings(self) -> tuple[str, ...]:
        """Of all parts; of those that are not there before "ready", only what is there."""
        from thimble.document import records

        parts, document = self._parts, self.document.made
        problem, busy = (document.problem, document.busy) if document is not None else ("", False)
        found = [
            *parts.auth.warnings(),
            *records.warnings(parts.options.state, problem=problem, busy=busy),
            *parts.storage.warnings(),
            *parts.network.warnings(),
            *parts.vms.warnings(),
        ]
        if parts.ready:
            found += () if parts.options.hosted else self.deploy.get().warnings()
            found += self.netboot.get().warnings() if netboot.asked(parts.options.state) else ()
        return tuple(found)

    def secrets(self) -> list[str]:
        """What no support bundle may hold, wherever it stands."""
        from thimble.contract import secret

        parts = self._parts
        return [*parts.auth.secrets(), *secret.values([vm.value for vm in parts.vms.table.all()])]

    # ── made when asked for ──────────────────────────────────────────────────────────────────────

    def _host(self) -> HostService:
        parts = self._parts
        facts = HostFacts(
            hosted=parts.options.hosted, accel=parts.accel, state=parts.options.state, run=parts.options.run,
            started=parts.started, certificate_sha256=parts.fingerprint, durable=parts.durable,
        )  # fmt: skip
        return HostService(
            records=parts.hosts, tasks=parts.tasks, init=parts.init, facts=facts, vms=parts.vms.counts,
            qemu=parts.vms.qemu_version, guests_stopped=parts.guests_stopped, warnings=self.warnings,
            rev=lambda: parts.events.rev, machine=Lazy(self._machine),
        )  # fmt: skip

    def _machine(self) -> MachineService:
        from thimble.host.machine import MachineService

        parts = self._parts
        return MachineService(
            init=parts.init, run=parts.options.run, events=parts.events, registry=parts.registry,
            warnings=lambda: self.host.get().current_warnings(), mounts=parts.storage.datastores.mounted,
            uses=parts.network.card_uses, secrets=self.secrets, host=lambda: self.host.get().name,
        )  # fmt: skip

    def _deploy(self) -> DeployService:
        from thimble.deploy.context import DeployContext, DeployParts
        from thimble.deploy.service import DeployService

        parts, options = self._parts, self._parts.options
        return DeployService(
            DeployContext(
                DeployParts(
                    state=options.state, run=options.run, durable=parts.durable, hosted=options.hosted,
                    port=options.port, init=parts.init, storage=parts.storage, tasks=parts.tasks,
                    events=parts.events, fingerprint=parts.fingerprint, guests_stopped=parts.guests_stopped,
                    ram_vms=parts.vms.in_memory,
                )
            )
        )  # fmt: skip

    def _management(self) -> ManagementService:
        from thimble.host.management import ManagementService

        parts = self._parts
        return ManagementService(parts.options.state, parts.init, parts.events, durable=parts.durable)

    def _netboot(self) -> NetbootService:
        from thimble.netboot.server import BootServer, NetbootParts
        from thimble.netboot.service import NetbootService

        parts = self._parts
        given = NetbootParts(
            state=parts.options.state, run=parts.options.run, durable=parts.durable, network=parts.network,
            events=parts.events, image=lambda url: self.deploy.get().opened(url), clock=clock.now,
            entropy=clock.entropy,
        )  # fmt: skip
        return NetbootService(BootServer(given))

    def _document(self) -> DocumentService:
        from thimble.document.service import DocumentService

        parts = self._parts
        return DocumentService(
            parts.options.state, Lazy(self._sources), parts.tasks, durable=parts.durable, clock=clock.now
        )

    def _sources(self) -> Sources:
        from thimble.access.verbs import entries
        from thimble.document.host_facts import Sources

        parts = self._parts
        return Sources(
            registry=parts.registry, storage=parts.storage, network=parts.network, vms=parts.vms,
            accounts=lambda: entries(parts.auth), name=parts.name, managed=lambda: parts.init.present,
        )  # fmt: skip
