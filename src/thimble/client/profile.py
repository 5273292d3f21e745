"""The file that keeps where hosts are and how one is signed in: `$XDG_CONFIG_HOME/thimble/profiles.toml`.

    current = "lab"

    [profiles.lab]
    url = "https://10.0.0.7"
    fingerprint = "…"          # the certificate believed at the first visit
    user = "admin"
    token = "…"                # never the password

Readable by its owner only, because a token is as good as a password until it expires.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from thimble.client.trust import Trust
from thimble.core.problem import Code, Problem
from thimble.sys import files


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host and our standing there. `expires` is when the token ends, in seconds since the epoch."""

    url: str
    fingerprint: str = ""
    ca: str = ""
    insecure: bool = False
    user: str = ""
    token: str = ""
    expires: float = 0.0

    @property
    def trust(self) -> Trust:
        return Trust(fingerprint=self.fingerprint, ca=self.ca, insecure=self.insecure)


class Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, and the name of the one meant when none is named."""

    current: str = ""
    profiles: dict[str, Profile] = {}

    def with_profile(self, name: str, profile: Profile) -> Profiles:
        """These, with `profile` added or replaced, and current."""
        return Profiles(current=name, profiles={**self.profiles, name: profile})

    def named(self, url: str) -> str:
        """The name of the profile for `url`; empty when there is none."""
        if (current := self.profiles.get(self.current)) and current.url == url:
            return self.current
        return next((name for name, profile in self.profiles.items() if profile.url == url), "")


def location(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file is."""
    base = environment.get("XDG_CONFIG_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".config"
    )
    return Path(base) / "thimble" / "profiles.toml"


def read(path: Path) -> Profiles:
    """The profiles of `path`; none when it does not exist. Raises `Problem` MALFORMED."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Profiles)
    except FileNotFoundError:
        return Profiles()
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise Problem(
            Code.MALFORMED, f"cannot read {path}: {error}", hint="Mend it or delete it, then sign in again."
        ) from error


def write(path: Path, profiles: Profiles) -> None:
    """Replace `path`, mode 0600 in a directory 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_atomic(path, render(profiles).encode(), mode=0o600)


def render(profiles: Profiles) -> str:
    """As TOML. Pure."""
    lines = [f"current = {_word(profiles.current)}"]
    for name, profile in sorted(profiles.profiles.items()):
        lines += ["", f"[profiles.{_word(name)}]"]
        lines += [f"{key} = {_word(value)}" for key, value in msgspec.to_builtins(profile).items()]
    return "\n".join(lines) + "\n"


def _word(value: object) -> str:
    """A string, number or boolean is written in TOML as in JSON, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
