"""The API's verbs on switches."""

from __future__ import annotations

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.network import (
    Forward,
    Lease,
    Switch,
    SwitchChange,
    SwitchCreate,
    SwitchKind,
    SwitchList,
)
from thimble.core.decision import GO, Decision, blocked, nothing, unless
from thimble.core.problem import Code, Reason
from thimble.dispatch import run
from thimble.network import rules, subnet
from thimble.network.records import SwitchRecord
from thimble.network.render import label
from thimble.network.service import Network
from thimble.network.switches import UPLINK, Switches
from thimble.state.store import check
from thimble.sys import hostnet

Forwards = tuple[Forward, ...]


class SwitchService:
    """`switch.*`."""

    def __init__(self, network: Network, switches: Switches) -> None:
        self._network = network
        self._switches = switches
        self._records = switches.records

    async def list(self, _call: Call[None]) -> SwitchList:
        rev = self._network.events.rev
        return SwitchList(rev=rev, switches=tuple(self._view(record.id) for record in self._records.all()))

    async def get(self, call: Call[None]) -> Switch:
        return self._view(call.path["switch"])

    async def create(self, call: Call[SwitchCreate]) -> Switch | DryRun:
        request = _by_name(call.input)
        name = request.name

        async def decide() -> Decision[SwitchRecord]:
            reasons = rules.create_reasons(request, await self._network.facts())
            if reasons:
                return blocked(*reasons, refusal=f"cannot create the switch {name}")
            record = self._record(request)
            return Decision(plan=record, effects=_effects(name, record))

        async def act(decision: Decision[SwitchRecord]) -> Switch:
            assert decision.plan is not None
            await self._records.commit(name, decision.plan, expect=0)
            return await self._changed(name)

        return await run.now(call, decide, act, turn=self._network.turn)

    def _record(self, request: SwitchCreate) -> SwitchRecord:
        """Raises `Problem` IN_USE when no subnet is free."""
        adopted = request.kind is SwitchKind.BRIDGED and hostnet.is_bridge(request.uplink)
        net = request.subnet
        if request.kind is SwitchKind.NAT and not net:
            net = str(self._switches.free_subnet())
        return SwitchRecord(
            kind=request.kind,
            bridge=request.uplink if adopted else self._switches.bridge_name(request.name),
            subnet=net,
            chosen=net != request.subnet,
            uplink=request.uplink if adopted else hostnet.lasting_name(request.uplink),
            adopted=adopted,
            forwards=request.forwards,
        )

    async def change(self, call: Call[SwitchChange]) -> Switch | DryRun:
        name, forwards = call.path["switch"], call.input.forwards

        async def decide() -> Decision[Forwards]:
            record = self._records.get(name)
            check(call.if_match, record.rev, "switch")
            if isinstance(forwards, msgspec.UnsetType):
                return nothing("nothing of it is to change")
            if forwards and record.value.kind is not SwitchKind.NAT:
                reasons = [Reason(message="forwards go with kind nat", path="$.forwards")]
            else:
                reasons = rules.forward_reasons(name, forwards, await self._network.facts())
            words = _forward_words(forwards) or (f"forwards nothing to VMs on {name}",)
            changed = Decision(plan=forwards, effects=words)
            return unless(reasons, changed, refusal=f"cannot change the forwards of {name}")

        async def act(decision: Decision[Forwards]) -> Switch:
            wanted = decision.plan
            if wanted is None:
                return self._view(name)
            await self._records.amend(name, lambda old: msgspec.structs.replace(old, forwards=wanted))
            return await self._changed(name)

        return await run.now(call, decide, act, turn=self._network.turn)

    async def _changed(self, name: str) -> Switch:
        await self._network.sync()
        self._network.events.publish("switch.changed", name)
        return self._view(name)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["switch"]

        def decide() -> Decision[bool]:
            record = self._records.get(name)
            check(call.if_match, record.rev, "switch")
            users = sorted({host.vm_name for host in self._network.all_hosts() if host.switch == name})
            reasons = [Reason(message=f"the VM {user} has a port on it", code=Code.IN_USE) for user in users]
            if name == UPLINK and record.value.adopted:
                message = "the switch uplink is the host's own way out and made at every boot"
                reasons.append(Reason(message=message, code=Code.CONFLICT))
            deleted = Decision(plan=GO, effects=(f"removes the switch {name}",))
            refusal = f"cannot delete the switch {name}"
            return unless(reasons, deleted, refusal=refusal, hint="Take those VMs off it first.")

        async def act(_: Decision[bool]) -> Nothing:
            await self._records.remove(name)
            await self._network.sync()
            self._network.events.publish("switch.deleted", name)
            return Nothing()

        return await run.now(call, decide, act, turn=self._network.turn)

    def _view(self, name: str) -> Switch:
        record = self._records.get(name)
        value = self._network.switches()[name]
        net = subnet.parse(value.subnet)
        why = self._network.why(name)
        hosts = [host for host in self._network.all_hosts() if host.switch == name]
        return Switch(
            name=name,
            rev=record.rev,
            kind=value.kind,
            bridge=value.bridge,
            subnet=value.subnet,
            gateway=net.gateway if net else "",
            uplink=value.uplink,
            forwards=value.forwards,
            ports=tuple(f"{host.vm_name}/{host.nic}" for host in hosts),
            leases=self._leases(name, value.bridge),
            up=not why,
            why=why,
        )

    def _leases(self, switch: str, bridge: str) -> tuple[Lease, ...]:
        found = {
            host.mac.lower(): Lease(mac=host.mac, ip=host.ip, hostname=label(host.vm_name), vm=host.vm_id)
            for host in self._network.all_hosts()
            if host.switch == switch and host.ip
        }
        for mac, address, name in self._network.leases(bridge):
            found.setdefault(mac.lower(), Lease(mac=mac, ip=address, hostname=name, vm=""))
        return tuple(found.values())


def _by_name(request: SwitchCreate) -> SwitchCreate:
    """With the name of the card whose MAC `uplink` is; one that is not there is left for the checks."""
    name = hostnet.macs().get(request.uplink.lower()) if ":" in request.uplink else None
    return msgspec.structs.replace(request, uplink=name) if name else request


def _effects(name: str, record: SwitchRecord) -> tuple[str, ...]:
    where = {
        SwitchKind.NAT: f"with the subnet {record.subnet}",
        SwitchKind.BRIDGED: f"on the wire of {record.uplink}",
        SwitchKind.ISOLATED: "without a way out",
    }[record.kind]
    return (f"makes the switch {name} {where}", *_forward_words(record.forwards))


def _forward_words(forwards: Forwards) -> tuple[str, ...]:
    return tuple(
        f"hands {f.protocol} port {f.port} of the host to {f.vm}, port {f.to_port}" for f in forwards
    )
