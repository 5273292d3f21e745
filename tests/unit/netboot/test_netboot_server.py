"""Serving as a whole: set up in order, unwound at every step that fails, tried again, ended."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.netboot import DocumentFor, Netboot, ServeBoot
from thimble.contract.network import SwitchKind
from thimble.core.problem import Code, Problem
from thimble.netboot import image, render
from thimble.netboot.server import RETRY_S, BootServer, NetbootParts
from thimble.netboot.service import NetbootService
from thimble.network import subnet
from thimble.network.records import SwitchRecord
from thimble.network.render import DhcpPlan
from thimble.state.events import Events
from thimble.sys.link import Link

WANTED = ServeBoot(switch="rack", allow=("any",), documents=(DocumentFor(match="any", text="format = 1\n"),))


def uki_bytes() -> bytes:
    """As much of a thimble.efi as is served."""
    kernel, initrd = b"kernel", b"initrd"
    build = hashlib.sha256(kernel + initrd).hexdigest()[:16]
    sections = {
        ".osrel": b"ID=thimble\nVERSION_ID=0.1.0\n",
        ".cmdline": f"quiet thimble.build={build}\0".encode(),
        ".linux": kernel,
        ".initrd": initrd,
    }
    optional = bytes(112) + bytes(16 * 8)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, len(optional), 0) + optional
    body, at = b"", 1024
    for name, data in sections.items():
        padded = data.ljust(512, b"\0")
        head += name.encode().ljust(8, b"\0") + struct.pack("<IIII", len(data), 0, 512, at) + bytes(16)
        body, at = body + padded, at + 512
    return head.ljust(1024, b"\0") + body


class FakeNetwork:
    """A switch `rack` whose bridge gets the address that is assigned to it at the next `sync`."""

    def __init__(self, happened: Callable[[str], None]) -> None:
        self.assigned: dict[str, str] = {}
        self.on_bridge: tuple[str, ...] = ()
        self.present = True
        self.hanging: asyncio.Event | None = None  # set when `sync` hangs, which it does while there is one
        self._happened = happened

    def switches(self) -> dict[str, SwitchRecord]:
        return {"rack": SwitchRecord(kind=SwitchKind.ISOLATED, bridge="br")} if self.present else {}

    def free_subnet(self) -> subnet.Subnet:
        found = subnet.parse("192.168.9.0/24")
        assert found is not None
        return found

    def why(self, switch: str) -> str:
        return "its card is gone"

    async def sync(self) -> None:
        if self.hanging is not None:
            self.hanging.set()
            await asyncio.Event().wait()
        self._happened("sync" if self.assigned else "sync without")
        self.on_bridge = tuple(self.assigned.values())

    async def links(self) -> dict[str, Link]:
        return {"br": Link(name="br", addresses=self.on_bridge)}


class FakeDhcp:
    """dnsmasq: one for a bridge."""

    def __init__(self, happened: Callable[[str], None]) -> None:
        self.why: dict[str, str] = {}
        self.running: dict[str, DhcpPlan] = {}
        self.started = asyncio.Event()
        self._happened = happened

    def told(self) -> dict[str, DhcpPlan]:
        return dict(self.running)

    def adopt(self) -> None:
        self._happened("adopt")

    async def start(self, plan: DhcpPlan) -> None:
        self._happened("dnsmasq")
        self.running[plan.bridge] = plan
        self.started.set()  # the last step: whoever waits for it goes on after all is set up

    async def stop(self, bridge: str) -> None:
        self._happened("no dnsmasq")
        del self.running[bridge]


class World:
    """`fails`: the step that does not work now. `happened`: all that was done, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fails = ""
        self.happened: list[str] = []
        self.other_dhcp = ""
        self.slept: asyncio.Queue[tuple[float, asyncio.Future[None]]] = asyncio.Queue()
        self.open = 0
        (root / "image.efi").write_bytes(uki_bytes())
        self.again()

    def again(self) -> None:
        """As the next agent."""
        self.network = FakeNetwork(self.step)
        self.dhcp = FakeDhcp(self.step)
        self.events = Events(base=1, clock=lambda: 1.0)
        network: Any = self.network
        dhcp: Any = self.dhcp
        parts = NetbootParts(
            state=self.root / "state",
            run=self.root / "run",
            durable=False,
            network=network,
            events=self.events,
            image=self.image,
            clock=lambda: 1.0,
            entropy=lambda count: b"x" * count,
            listen=self.listen,
            links=self.network.links,
            dhcp_server=self.find_dhcp,
            sleep=self.sleep,
        )
        self.server = BootServer(parts, dhcp=dhcp)
        self.service = NetbootService(self.server)

    def step(self, name: str) -> None:
        self.happened.append(name)
        if name == self.fails:
            raise Problem(Code.FAILED, f"no {name} today")

    @asynccontextmanager
    async def image(self, name: str) -> AsyncIterator[Path]:
        self.step("image")
        yield self.root / "image.efi"

    async def listen(self, asgi: object, address: str, port: int) -> Callable[[], Awaitable[None]]:
        self.step(f"http {address}:{port}")
        self.open += 1

        async def close() -> None:
            self.step("no http")
            self.open -= 1

        return close

    async def find_dhcp(self, bridge: str, number: int) -> str:
        return self.other_dhcp

    async def sleep(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.slept.put_nowait((seconds, over))
        await over

    async def retry_sleeps(self) -> asyncio.Future[None]:
        """Wait until the retry pauses; what ends that."""
        seconds, over = await self.slept.get()
        assert seconds == RETRY_S
        return over

    async def serve(self, wanted: ServeBoot = WANTED, **more: Any) -> Netboot:
        answer = await self.service.serve(Call(input=wanted, **more))
        assert isinstance(answer, Netboot)
        return answer

    async def view(self) -> Netboot:
        return await self.service.get(Call(input=None))

    def nothing_is_left(self) -> bool:
        return (
            self.open == 0
            and not self.dhcp.running
            and not self.network.assigned
            and not (self.root / "run/netboot/image.efi").exists()
            and self.server.serving is None
            and self.server.responder.image is None
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / render.EFI_LOADER).write_bytes(b"ipxe")
    monkeypatch.setattr(render, "LOADERS", str(tmp_path))
    monkeypatch.setattr(image, "check_memory", lambda size: None)
    return World(tmp_path)


def play(story: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30):
            await story

    asyncio.run(whole())


SET_UP = ["image", "sync", "http 192.168.9.1:80", "dnsmasq"]


def test_it_is_served_told_and_ended(world: World) -> None:
    async def story() -> None:
        found = await world.serve()
        assert world.happened[-4:] == SET_UP
        assert found.on and found.address == "192.168.9.1" and found.image_bytes > 0 and found.rev == 1
        assert found.settings is not None and found.settings.documents[0].text == ""
        assert world.network.assigned == {"rack": "192.168.9.1/24"}
        world.happened.clear()
        await world.service.stop(Call(input=None))
        assert world.happened == ["no http", "no dnsmasq", "sync without"]
        assert world.nothing_is_left() and await world.view() == Netboot()
        with pytest.raises(Problem) as caught:
            await world.service.stop(Call(input=None))
        assert caught.value.code is Code.NOT_FOUND

    play(story())


@pytest.mark.parametrize("step", SET_UP)
def test_a_step_that_fails_unwinds_those_before_it_and_no_record_is_made(world: World, step: str) -> None:
    async def story() -> None:
        world.fails = step
        with pytest.raises(Problem, match=f"no {step} today"):
            await world.serve()
        assert world.nothing_is_left() and await world.view() == Netboot()
        world.fails = ""
        assert (await world.serve()).on

    play(story())


def test_what_cannot_replace_it_leaves_what_was_served(world: World) -> None:
    async def story() -> None:
        await world.serve()
        world.fails = "image"
        with pytest.raises(Problem):
            await world.serve(ServeBoot(switch="rack", allow=("52:54:00:00:00:01",)))
        over = await world.retry_sleeps()
        found = await world.view()
        assert not found.on and found.why == "no image today" and found.settings is not None
        assert world.service.warnings() == ("neighbours cannot boot from here: no image today",)
        assert found.settings.allow == ("any",)
        world.fails = ""
        world.dhcp.started.clear()
        over.set_result(None)
        await world.dhcp.started.wait()
        assert (await world.view()).on and world.service.warnings() == ()
        await world.service.close()

    play(story())


def test_the_next_agent_serves_it_again_as_soon_as_it_can(world: World) -> None:
    async def story() -> None:
        before = await world.serve()
        await world.service.close()
        assert world.nothing_is_left()
        world.again()
        world.network.present = False
        await world.service.begin()
        over = await world.retry_sleeps()
        assert (await world.view()).why == "there is no switch 'rack' any more"
        over.set_result(None)
        over = await world.retry_sleeps()
        world.network.present = True
        over.set_result(None)
        await world.dhcp.started.wait()
        found = await world.view()
        assert found.on and (found.rev, found.address) == (before.rev, before.address)
        await world.service.close()
        assert world.nothing_is_left() and world.server.record is not None

    play(story())


def test_a_request_does_not_wait_for_the_retry(world: World) -> None:
    async def story() -> None:
        await world.serve()
        await world.service.close()
        world.again()
        hanging = world.network.hanging = asyncio.Event()
        await world.service.begin()
        await hanging.wait()
        world.network.hanging = None
        await world.service.stop(Call(input=None))
        assert world.nothing_is_left() and await world.view() == Netboot()
        assert world.slept.empty(), "nobody tries again"

    play(story())


def test_a_dry_run_tells_where_and_changes_nothing(world: World) -> None:
    async def story() -> None:
        found = await world.service.serve(Call(input=WANTED, dry_run=True))
        assert isinstance(found, DryRun) and found.possible
        assert [effect.what for effect in found.effects] == [
            "gives this host the address 192.168.9.1 on the switch rack",
            "gives addresses of 192.168.9.0/24 on the switch rack",
            "boots any machine with this host's image",
        ]
        world.other_dhcp = "192.168.9.77"
        found = await world.service.serve(Call(input=WANTED, dry_run=True))
        assert isinstance(found, DryRun) and not found.possible and found.blockers[0].path == "$.mode"
        with pytest.raises(Problem, match="cannot be booted like this") as caught:
            await world.serve()
        assert caught.value.reasons == found.blockers
        assert world.happened == [] and await world.view() == Netboot()

    play(story())


def test_settings_somebody_else_has_changed_are_not_replaced(world: World) -> None:
    async def story() -> None:
        await world.serve(if_match=0)
        with pytest.raises(Problem) as caught:
            await world.serve(if_match=0)
        assert caught.value.code is Code.STALE
        assert (await world.serve(if_match=1)).rev == 2

    play(story())


def test_of_two_at_once_the_last_one_is_served(world: World) -> None:
    async def story() -> None:
        other = ServeBoot(switch="rack", allow=("52:54:00:00:00:01",))
        await asyncio.gather(world.serve(), world.serve(other))
        found = await world.view()
        assert found.on and found.settings == other and found.rev == 2
        assert world.open == 1 and len(world.dhcp.running) == 1

    play(story())
