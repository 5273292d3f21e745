"""The API's verbs on switches."""

from __future__ import annotations

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.network import Lease, Switch, SwitchChange, SwitchCreate, SwitchKind, SwitchList
from thimble.core.problem import Code, Reason, refuse
from thimble.network import rules, subnet
from thimble.network.records import SwitchRecord
from thimble.network.render import label
from thimble.network.service import Network
from thimble.state.store import Collection, check
from thimble.sys import hostnet


class SwitchService:
    """`switch.*`."""

    def __init__(self, network: Network, records: Collection[SwitchRecord]) -> None:
        self._network = network
        self._records = records

    async def list(self, _call: Call[None]) -> SwitchList:
        rev = self._network.events.rev
        return SwitchList(rev=rev, switches=tuple(self._view(record.id) for record in self._records.all()))

    async def get(self, call: Call[None]) -> Switch:
        return self._view(call.path["switch"])

    async def create(self, call: Call[SwitchCreate]) -> Switch | DryRun:
        request = _by_name(call.input)
        reasons = rules.create_reasons(request, await self._network.facts())
        record = None if reasons else await self._record(request)
        if call.dry_run:
            return DryRun(
                possible=record is not None,
                effects=_effects(request.name, record) if record else (),
                blockers=tuple(reasons),
            )
        refuse(reasons, f"the switch {request.name} cannot be made")
        assert record is not None
        self._records.put(request.name, record, expect=0)
        await self._network.sync()
        self._network.events.publish("switch.changed", request.name)
        return self._view(request.name)

    async def _record(self, request: SwitchCreate) -> SwitchRecord:
        name = request.name
        adopted = request.kind is SwitchKind.BRIDGED and hostnet.is_bridge(request.uplink)
        net = request.subnet
        if request.kind is SwitchKind.NAT and not net:
            net = str(self._network.free_subnet())
        return SwitchRecord(
            kind=request.kind,
            bridge=request.uplink if adopted else self._network.bridge_name(name),
            subnet=net,
            chosen=net != request.subnet,
            uplink=request.uplink if adopted else hostnet.lasting_name(request.uplink),
            adopted=adopted,
            forwards=request.forwards,
        )

    async def change(self, call: Call[SwitchChange]) -> Switch | DryRun:
        name = call.path["switch"]
        record = self._records.get(name)
        check(call.if_match, record.rev, "switch")
        forwards = call.input.forwards
        if isinstance(forwards, msgspec.UnsetType):
            return self._view(name) if not call.dry_run else DryRun(possible=True)
        reasons = []
        if forwards and record.value.kind is not SwitchKind.NAT:
            reasons.append(Reason(message="forwards go with kind nat", path="$.forwards"))
        else:
            reasons += rules.forward_reasons(name, forwards, await self._network.facts())
        changed = msgspec.structs.replace(record.value, forwards=forwards)
        if call.dry_run:
            return DryRun(possible=not reasons, effects=_effects(name, changed)[1:], blockers=tuple(reasons))
        refuse(reasons, f"the forwards of {name} cannot be so")
        self._records.put(name, changed, expect=call.if_match)
        await self._network.sync()
        self._network.events.publish("switch.changed", name)
        return self._view(name)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["switch"]
        record = self._records.get(name)
        check(call.if_match, record.rev, "switch")
        users = sorted({host.vm_name for host in self._network.all_hosts() if host.switch == name})
        reasons = [Reason(message=f"the VM {user} has a port on it", code=Code.IN_USE) for user in users]
        if name == "uplink" and record.value.adopted:
            message = "the switch uplink is the host's own way out and made at every boot"
            reasons.append(Reason(message=message, code=Code.CONFLICT))
        if call.dry_run:
            what = f"removes the switch {name}"
            return DryRun(possible=not reasons, effects=(Effect(what=what),), blockers=tuple(reasons))
        refuse(reasons, f"the switch {name} cannot be deleted", hint="Take those VMs off it first.")
        self._records.delete(name, expect=call.if_match)
        await self._network.sync()
        self._network.events.publish("switch.deleted", name)
        return Nothing()

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


def _effects(name: str, record: SwitchRecord) -> tuple[Effect, ...]:
    where = {
        SwitchKind.NAT: f"with the subnet {record.subnet}",
        SwitchKind.BRIDGED: f"on the wire of {record.uplink}",
        SwitchKind.ISOLATED: "without a way out",
    }[record.kind]
    forwards = [
        f"hands {f.protocol} port {f.port} of the host to {f.vm}, port {f.to_port}" for f in record.forwards
    ]
    return tuple(Effect(what=what) for what in (f"makes the switch {name} {where}", *forwards))
