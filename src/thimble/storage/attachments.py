"""Who holds a volume or an image: VMs by their records, and work that is under way by its claim.

    holder of a volume = the VM whose record names it  (asked of `Ports`, registered by vm)
                       | whoever has claimed it         (taken at the decision, released when the work ended)

A claim to write excludes every other claim; claims to read (copying an image, a backup) go together. They
live in memory: work that a restart cut off is taken up again by its owner, who claims anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from types import TracebackType

from thimble.core.problem import Code, Problem, Reason

#: reference → id of the VM that uses it.
Users = Callable[[], Mapping[str, str]]


class Mode(StrEnum):
    """What a holder does with it."""

    READ = "read"
    WRITE = "write"


class Ports:
    """What storage asks of those above it. Made first; `vm` registers what it answers when it is made."""

    def __init__(self) -> None:
        self.volume_users: Users = dict
        self.image_users: Users = dict


class Claim:
    """The right to use one thing for one piece of work: `with claim:` or `async with claim:`."""

    def __init__(self, claims: Claims, ref: str, holder: str, verb: str, mode: Mode) -> None:
        self.ref = ref
        self.holder = holder
        self.verb = verb
        self.mode = mode
        self._claims = claims

    def __enter__(self) -> Claim:
        """Raises `Problem` IN_USE that names who has it."""
        self._claims._enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claims._leave(self)

    async def __aenter__(self) -> Claim:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Claims:
    """The holders of all volumes, or of all images."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._taken: list[Claim] = []

    def users(self) -> Mapping[str, str]:
        """reference → id of the VM whose record names it."""
        return self._users()

    def take(self, ref: str, holder: str, verb: str, mode: Mode = Mode.WRITE) -> Claim:
        """A claim, in force between its entering and leaving. `holder`: a VM's id, or the user who asked."""
        return Claim(self, ref, holder, verb, mode)

    @contextmanager
    def take_all(self, refs: Iterable[str], holder: str, verb: str) -> Iterator[None]:
        """Several at once, or none. Raises `Problem` IN_USE."""
        with ExitStack() as taken:
            for ref in refs:
                taken.enter_context(self.take(ref, holder, verb))
            yield

    def reasons(
        self, ref: str, path: str = "", *, vm: str = "", own: Claim | None = None, mode: Mode = Mode.WRITE
    ) -> list[Reason]:
        """Why it is not free; what `vm` has or claims, and the claim `own`, does not count."""
        user = self._users().get(ref)
        found = [] if user is None or user == vm else [_in_use(f"{ref} is used by {user}", path)]
        return found + [
            _in_use(claim_words(other), path)
            for other in self._against(ref, mode)
            if other is not own and (not vm or other.holder != vm)
        ]

    def below(self, datastore: str) -> list[Reason]:
        """Who holds something in this datastore."""
        return [_in_use(claim_words(one)) for one in self._taken if one.ref.startswith(f"{datastore}/")]

    def claimed(self, ref: str) -> bool:
        """Is work on it under way?"""
        return any(claim.ref == ref for claim in self._taken)

    def _against(self, ref: str, mode: Mode) -> list[Claim]:
        return [one for one in self._taken if one.ref == ref and Mode.WRITE in (mode, one.mode)]

    def _enter(self, claim: Claim) -> None:
        for other in self._against(claim.ref, claim.mode):
            raise Problem(
                Code.IN_USE,
                claim_words(other),
                hint="Wait until that has ended; `thimble task list` shows it.",
            )
        self._taken.append(claim)

    def _leave(self, claim: Claim) -> None:
        self._taken.remove(claim)


class Attachments:
    """Of volumes and of images: both may have the same name."""

    def __init__(self, ports: Ports) -> None:
        self.volumes = Claims(lambda: ports.volume_users())
        self.images = Claims(lambda: ports.image_users())


def claim_words(claim: Claim) -> str:
    return f"{claim.ref} is held by {claim.holder} for {claim.verb}"


def _in_use(message: str, path: str = "") -> Reason:
    return Reason(message=message, code=Code.IN_USE, path=path)
