"""Everything the console UI knows and shows, and what it can ask for. Frozen values; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from thimble.contract.deploy import Deploy
from thimble.contract.host import Host
from thimble.contract.management import Management
from thimble.contract.storage import Datastore
from thimble.contract.vm import VmSummary
from thimble.core.problem import Problem
from thimble.dcui.pages import Act, Page

#: Seconds without a key after which the UI ends (somebody signed in is signed out).
IDLE_S = 600.0
#: Seconds between two refreshes of a page that shows the host.
REFRESH_S = 4.0
#: Seconds a message at the bottom stays.
TOAST_S = 8.0


class LocalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What PID 1 wrote: needs no agent."""

    hostname: str = ""
    warnings: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    state: str = ""
    last_words: tuple[str, ...] = ()  # of the agent, newest last
    document: str = ""  # path of the one found at boot
    document_source: str = ""
    managed: bool = False  # PID 1 is ours: the host can be rebooted from here
    nics: tuple[str, ...] = ()  # MAC addresses


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    user: str
    role: str
    token: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`now`: seconds that never jump; `clock`: seconds since the epoch."""

    now: float = 0.0
    clock: float = 0.0
    version: str = ""
    local: LocalFacts = LocalFacts()
    host: Host | None = None
    datastores: tuple[Datastore, ...] = ()
    silent: str = ""  # why the agent does not answer; empty when it does
    session: SignedIn | None = None
    pages: tuple[Page, ...] = ()
    vms: tuple[VmSummary, ...] = ()
    management: Management | None = None
    deploy: Deploy | None = None
    draft: tuple[str, ...] = ()  # the document being edited
    after_sign_in: str = ""  # the act that wanted it
    next_act: Act | None = None  # to run right after this message, by whoever knows all acts (update.py)
    proposed: Ask | None = None  # the request the preview on the screen is of
    toast: str = ""
    toast_until: float = 0.0
    asking: tuple[str, ...] = ()  # `to` of every request under way
    last_key: float = 0.0
    refreshed: float = -1e9
    idle_s: float = IDLE_S

    @property
    def page(self) -> Page | None:
        return self.pages[-1] if self.pages else None

    @property
    def name(self) -> str:
        return (self.host.name if self.host else "") or self.local.hostname or "thimble"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Call the API; the answer goes to ANSWERS[to]. `signed`: as the user signed in."""

    to: str
    verb: str
    input: Any = None
    path: dict[str, str] = {}
    query: dict[str, object] = {}
    dry_run: bool = False
    if_match: int | None = None
    signed: bool = True
    fresh: bool = False  # over a connection made now
    token: str = ""
    note: str = ""  # kept for the answer


class Quit(msgspec.Struct, frozen=True):
    """End; `token` is signed out."""

    token: str = ""


class Attach(msgspec.Struct, frozen=True):
    """A VM's serial line on this terminal."""

    vm: str
    name: str
    token: str


class TellInit(msgspec.Struct, frozen=True):
    """A request to PID 1, when no agent is there to pass it on."""

    verb: str


class Load(msgspec.Struct, frozen=True):
    """Read a local file or fetch a URL; the text goes to ANSWERS[to]."""

    to: str
    where: str


class Look(msgspec.Struct, frozen=True):
    """Read PID 1's facts again. `log`: and its log, for ANSWERS["local.log"]."""

    log: bool = False


class Measure(msgspec.Struct, frozen=True):
    """Ask the terminal for its size, and draw all of it again."""


Effect = Ask | Quit | Attach | TellInit | Load | Look | Measure


class KeyPress(msgspec.Struct, frozen=True):
    name: str


class Tick(msgspec.Struct, frozen=True):
    now: float
    clock: float


class Answer(msgspec.Struct, frozen=True):
    """`ask` was answered with `value`."""

    ask: Ask | Load
    value: Any


class Failed(msgspec.Struct, frozen=True):
    ask: Ask | Load
    problem: Problem


class Looked(msgspec.Struct, frozen=True):
    local: LocalFacts
    log: tuple[str, ...] | None = None


class Detached(msgspec.Struct, frozen=True):
    """The VM's console was left, or closed for a reason."""

    why: str = ""


Message = KeyPress | Tick | Answer | Failed | Looked | Detached
Step = tuple[Model, tuple[Effect, ...]]
