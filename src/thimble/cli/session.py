"""What the global options and the environment say, and the client made from it.

It asks at the first connection to a host: the fingerprint of its certificate is shown, a person
compares it with the console's, and the answer is kept in the profile. Without a terminal there is no
question: the fingerprint must be given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from thimble.client import profile as profiles
from thimble.client.address import base_url, endpoint
from thimble.client.profile import Profile, Profiles
from thimble.client.trust import Trust, normal_fingerprint, presented
from thimble.core.problem import Code, Problem

if TYPE_CHECKING:
    import httpx

    from thimble.client.http import Client


#: Options that say which host is meant and what is believed of it.
_WHOM = ("host", "profile", "token", "fingerprint", "ca", "insecure")


class CliSession:
    """One run of the command. Options are set while the command line is read; the client is made at need."""

    def __init__(
        self,
        *,
        transport: httpx.BaseTransport | None = None,
        location: Path | None = None,
        certificate: Callable[[str, int], str] = presented,
        interactive: Callable[[], bool] = lambda: sys.stdin.isatty() and sys.stderr.isatty(),
    ) -> None:
        self.host = ""
        self.profile = ""
        self.token = ""
        self.fingerprint = ""
        self.ca = ""
        self.insecure = False
        self.json = False
        self.quiet = False
        self.dry_run = False
        self.no_wait = False
        self._transport = transport
        self._location = location
        self._certificate = certificate
        self._interactive = interactive
        self._client: Client | None = None
        self._only: Profile | None = None

    def apart(self, profile: Profile) -> CliSession:
        """One for the host of `profile` alone, whatever the environment says; nothing of it is kept."""
        made = CliSession(
            transport=self._transport,
            location=self._location,
            certificate=self._certificate,
            interactive=self._interactive,
        )
        made._only = profile
        made.quiet = self.quiet
        return made

    def set(self, field: str, value: object, *, typed: bool) -> None:
        """An option's value. Host and profile exclude each other; what was typed beats the environment."""
        if self._only is not None and field in _WHOM:
            if typed:
                raise Problem(Code.INVALID, f"--{field} cannot be used here: the host is already chosen")
            return
        if field in ("host", "profile"):
            if not typed and (self.host or self.profile):
                return
            self.host = self.profile = ""
        setattr(self, field, value)

    @property
    def location(self) -> Path:
        """Where the profiles are kept."""
        return self._location or profiles.location()

    @property
    def client(self) -> Client:
        """Signed in as the profile says."""
        if self._client is None:
            _, profile = self.chosen()
            _signed_in(profile, now=time.time())
            self._client = self.connect(profile)
        return self._client

    def chosen(self) -> tuple[str, Profile]:
        """The profile meant, by name, and as the options alter it; its name is empty when it is not kept.

        Raises `Problem` NOT_FOUND when no host is named and none is known.
        """
        if self._only is not None:
            return "", self._only
        kept = profiles.read(self.location)
        if self.host:
            url = base_url(self.host)
            name = kept.named(url)
            profile = kept.profiles.get(name, Profile(url=url))
        else:
            name = self.profile or kept.current
            found = kept.profiles.get(name)
            if found is None:
                raise _unknown(self.profile, kept)
            profile = found
        if self.token:
            profile = msgspec.structs.replace(profile, token=self.token, expires=0.0)
        return name, self._with_trust(profile)

    def _with_trust(self, profile: Profile) -> Profile:
        """With the certificate options, if any were given, in place of what the profile believes."""
        if not (self.fingerprint or self.ca or self.insecure):
            return profile
        return msgspec.structs.replace(
            profile,
            fingerprint=normal_fingerprint(self.fingerprint) if self.fingerprint else "",
            ca=str(Path(self.ca).absolute()) if self.ca else "",
            insecure=self.insecure,
        )

    def connect(self, profile: Profile) -> Client:
        """A client for `profile`, after the question whether its certificate is believed, if need be."""
        from thimble.client.http import Client

        trust = self.trust(profile)
        return Client(profile.url, trust=trust, token=profile.token, transport=self._transport)

    def fresh(self, url: str, timeout: float) -> Client:
        """A client of its own for the chosen host, as it may answer at `url`; believed as it was before."""
        from thimble.client.http import Client

        _, profile = self.chosen()
        return Client(
            url, trust=profile.trust, token=profile.token, timeout=timeout, transport=self._transport
        )

    def renew(self) -> None:
        """The next call connects anew, by what the profile says then."""
        if self._client is not None:
            self._client.http.close()
        self._client = None

    def trust(self, profile: Profile) -> Trust:
        """What `profile` believes, or what a person answers now. Raises `Problem` UNAUTHENTICATED."""
        trust = profile.trust
        if trust.insecure:
            self.note(
                f"WARNING: --insecure: the certificate of {profile.url} is not checked; anybody in between "
                "can read your password and your token."
            )
        if trust.decided or not profile.url.startswith("https:"):
            return trust
        seen = self._certificate(*endpoint(profile.url))
        if not self._interactive():
            raise Problem(
                Code.UNAUTHENTICATED,
                f"the certificate of {profile.url} is not known yet",
                hint=f"If it is the one its console shows, add --fingerprint {seen}",
            )
        self.note(
            f"{profile.url} is not known yet. The SHA-256 fingerprint of its certificate is\n\n  {seen}\n"
        )
        if not click.confirm("The host's console shows the same fingerprint: trust it?", err=True):
            raise Problem(Code.CANCELLED, "the certificate was not accepted")
        self.remember(msgspec.structs.replace(profile, fingerprint=seen))
        return Trust(fingerprint=seen)

    def remember(self, profile: Profile, *, name: str = "") -> str:
        """Keep `profile` and make it current; the name it is kept under."""
        if self._only is not None:
            self._only = profile
            return ""
        kept = profiles.read(self.location)
        name = name or kept.named(profile.url) or self.profile or _name_of(profile.url)
        profiles.write(self.location, kept.with_profile(name, profile))
        return name

    def note(self, text: str) -> None:
        """For the person, on standard error."""
        click.echo(text, err=True)

    def say(self, text: str) -> None:
        """A confirmation without a value; not when quiet, and not among JSON."""
        if not self.quiet and not self.json:
            click.echo(text)

    def done(self, value: msgspec.Struct, text: Callable[[], str]) -> None:
        """A mutation's result: as `emit`, but as words only when not quiet."""
        if self.json or not self.quiet:
            self.emit(value, text)

    def emit(self, value: msgspec.Struct, text: Callable[[], str]) -> None:
        """The answer: its JSON, or `text()`, in which nothing from elsewhere can drive the terminal."""
        from thimble.cli.tables import as_json, safe

        click.echo(as_json(value) if self.json else safe(text()))


def _signed_in(profile: Profile, *, now: float) -> None:
    """Raises `Problem` UNAUTHENTICATED when the host would say so anyway."""
    if not profile.token or 0 < profile.expires < now:
        what = "your sign-in to {} has expired" if profile.token else "you are not signed in to {}"
        raise Problem(Code.UNAUTHENTICATED, what.format(profile.url), hint=f"thimble login {profile.url}")


def _unknown(name: str, kept: Profiles) -> Problem:
    known = ", ".join(sorted(kept.profiles))
    hint = "Sign in with `thimble login https://ADDRESS/`, or name the host with --host."
    if name:
        return Problem(
            Code.NOT_FOUND,
            f"there is no profile {name!r}" + (f"; known: {known}" if known else ""),
            hint=hint,
        )
    return Problem(Code.NOT_FOUND, "no host given", hint=hint)


def _name_of(url: str) -> str:
    host, port = endpoint(url)
    return host if port == 443 else f"{host}:{port}"
