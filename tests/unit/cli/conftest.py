"""A fake host for the command line: answers by verb, remembers what was asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from thimble.cli.main import run
from thimble.cli.session import CliSession
from thimble.client import profile
from thimble.client.profile import Profile, Profiles
from thimble.contract.verbs import PREFIX, VERBS
from thimble.core.problem import Problem

FINGERPRINT = "ab" * 32


class FakeHost:
    """`answers[verb]` is a value, a Problem, or a function of the request."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, httpx.Request]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = self._verb(request)
        request.read()
        self.asked.append((name, request))
        answer = self.answers[name]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Problem):
            return httpx.Response(answer.status, content=msgspec.json.encode(answer.document()))
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, content=msgspec.json.encode(answer))

    def _verb(self, request: httpx.Request) -> str:
        path = request.url.path.removeprefix(PREFIX).split("/")
        for verb in VERBS:
            wanted = verb.path.split("/")
            if verb.method == request.method and all(
                want == got or want.startswith("{") for want, got in zip(wanted, path, strict=False)
            ):
                many = verb.path.endswith("*}")
                if len(wanted) == len(path) or (many and len(path) > len(wanted)):
                    return verb.name
        raise AssertionError(f"{request.method} {request.url.path} is not in the contract")

    @property
    def verbs(self) -> list[str]:
        return [name for name, _ in self.asked]

    def body(self, verb: str) -> Any:
        """What the last request for `verb` carried."""
        return msgspec.json.decode(next(r for name, r in reversed(self.asked) if name == verb).content)

    def query(self, verb: str) -> dict[str, str]:
        return dict(next(r for name, r in reversed(self.asked) if name == verb).url.params)


class Line(msgspec.Struct, frozen=True):
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("THIMBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """The profile file; signed in already."""
    path = tmp_path / "config" / "thimble" / "profiles.toml"
    signed_in = Profile(url="https://host", fingerprint=FINGERPRINT, user="admin", token="t0k3n")
    profile.write(path, Profiles().with_profile("host", signed_in))
    return path


@pytest.fixture
def thimble(
    host: FakeHost, location: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Line]]:
    """Run a command line against the fake host."""

    def command(*words: str, interactive: bool = False) -> Line:
        session = CliSession(
            transport=httpx.MockTransport(host),
            location=location,
            certificate=lambda *_: FINGERPRINT,
            interactive=lambda: interactive,
        )
        code = run(words, session)
        told = capsys.readouterr()
        return Line(code, told.out, told.err)

    yield command
