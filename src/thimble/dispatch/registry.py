"""Which method answers a verb: `noun.verb` is the method `verb` of the service registered under `noun`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thimble.contract.call import Call
from thimble.contract.host import Role
from thimble.contract.verbs import Verb
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem

Method = Callable[[Call[Any]], Any]


class Registry:
    """Services by noun, or several of one; a `Lazy` one is made when its first verb is asked for."""

    def __init__(self, services: Mapping[str, object] | None = None) -> None:
        self._services: dict[str, object] = dict(services or {})

    def add(self, services: Mapping[str, object]) -> None:
        """Register more. Raises `ValueError` when a noun is taken."""
        if taken := self._services.keys() & services.keys():
            raise ValueError(f"registered twice: {', '.join(sorted(taken))}")
        self._services |= services

    @property
    def nouns(self) -> frozenset[str]:
        """Those with a service."""
        return frozenset(self._services)

    def service(self, noun: str) -> Any:
        """What is registered under `noun`. Raises `Problem` UNSUPPORTED when this agent has none."""
        found = self._services.get(noun)
        if found is None:
            raise Problem(Code.UNSUPPORTED, f"this agent has no {noun} service")
        return found.get() if isinstance(found, Lazy) else found

    def method(self, name: str) -> Method:
        """The method of the verb `name`. Raises `Problem` UNSUPPORTED."""
        noun, _, verb = name.partition(".")
        service = self.service(noun)
        parts = service if isinstance(service, tuple) else (service,)
        method = next((found for part in parts if (found := getattr(part, verb, None)) is not None), None)
        if method is None:
            raise Problem(Code.UNSUPPORTED, f"this agent cannot {name}")
        return method  # type: ignore[no-any-return]

    async def call(self, name: str, call: Call[Any]) -> Any:
        """What the service answers, now or later. Raises its `Problem`."""
        answer = self.method(name)(call)
        return await answer if hasattr(answer, "__await__") else answer

    async def ask(self, name: str, **fields: Any) -> Any:
        """The same for one part of the host that asks another: as an administrator, unless `fields` say."""
        return await self.call(name, Call(**({"input": None, "role": Role.ADMIN} | fields)))

    def missing(self, verbs: Iterable[Verb]) -> list[str]:
        """The names of those nobody answers."""
        return [verb.name for verb in verbs if not self._answers(verb.name)]

    def _answers(self, name: str) -> bool:
        try:
            return callable(self.method(name))
        except Problem:
            return False
