"""Which images are accepted: whole ones of ours, signed with a key that is trusted."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from deploy_world import image_bytes, made

from thimble.contract.call import Call
from thimble.contract.deploy import KeyCreate
from thimble.core.problem import Code, Problem
from thimble.deploy.image import claims, inspect, loaders, older
from thimble.deploy.trust import KeyService
from thimble.image import toolbox
from thimble.image.progress import on_stderr


def test_an_image_tells_what_it_is_and_what_it_carries(tmp_path: Path) -> None:
    image = made(tmp_path / "t.efi", version="1.2.3", kernel=b"k", initrd=b"i")
    assert (image.build, image.version) == (hashlib.sha256(b"ki").hexdigest()[:16], "1.2.3")
    assert claims(image.path).build == image.build
    assert loaders(image).boot_img.startswith(b"boot.img")
    assert "thimble.slot=b" in image.menu("b")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (image_bytes(name="debian"), "it is debian, not Thimble"),
        (image_bytes(build="0123456789abcdef"), "it was damaged"),
        (image_bytes(machine=0xAA64), "another kind of processor"),
        (image_bytes(loaders=False), "no boot loaders"),
        (image_bytes()[:-600], "cut off"),
        (image_bytes().replace(b"initrd\0\0\0", b"inidrt\0\0\0"), "it was damaged"),
        (b"", "no EFI program"),
    ],
    ids=["another system", "wrong build", "another processor", "no loaders", "cut off", "altered", "empty"],
)
def test_what_cannot_run_here_is_refused_with_the_reason(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "bad.efi"
    path.write_bytes(data)
    with pytest.raises(Problem) as caught:
        inspect(path)
    assert caught.value.code is Code.INVALID and why in caught.value.detail


def test_a_digest_that_is_not_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.efi").write_bytes(image_bytes())
    with pytest.raises(Problem, match="its SHA-256 is"):
        inspect(tmp_path / "t.efi", sha256="0" * 64)


def test_versions_are_compared_as_numbers() -> None:
    assert older("0.9.0", "0.10.0") and not older("0.10.0", "0.9.0") and not older("1.0", "1.0")


class Owner:
    """Somebody with a key, who signs images with the toolbox's sbsign; the certificate's dates are over."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key, self.certificate = folder / f"{name}.key", folder / f"{name}.pem"
        request = folder / f"{name}.csr"
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-subj", f"/CN={name}",
                "-out", request)  # fmt: skip
        openssl("x509", "-req", "-in", request, "-signkey", self.key, "-out", self.certificate,
                "-not_before", "20200101000000Z", "-not_after", "20200102000000Z")  # fmt: skip

    def sign(self, image: Path, target: Path) -> Path:
        box = toolbox.ensure(on_stderr)
        words = ("--key", str(self.key), "--cert", str(self.certificate), "--output", str(target), str(image))
        subprocess.run(box.argv("sbsign", *words), check=True, capture_output=True)
        return target


def openssl(*words: object) -> None:
    program = toolbox.ensure(on_stderr).wrappers / "openssl"  # Debian 12's own knows no such dates
    subprocess.run([program, *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> tuple[Owner, Owner]:
    folder = tmp_path_factory.mktemp("keys")
    return Owner(folder, "us"), Owner(folder, "them")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyService:
    monkeypatch.setenv("PATH", f"{toolbox.ensure(on_stderr).wrappers}{os.pathsep}{os.environ['PATH']}")
    return KeyService(
        tmp_path / "state", tmp_path / "run", durable=False, rev=lambda: 1, built_in=tmp_path / "none"
    )


def add(keys: KeyService, name: str, owner: Owner) -> None:
    asyncio.run(keys.create(Call(input=KeyCreate(name=name, certificate=owner.certificate.read_text()))))


def why_not(keys: KeyService, path: Path) -> str:
    """Why nobody's signature on it counts."""
    with pytest.raises(Problem) as caught:
        asyncio.run(keys.signer(path, signed=inspect(path).uki.signed))
    assert caught.value.code is Code.FORBIDDEN and caught.value.hint
    return caught.value.detail


def test_only_what_a_trusted_key_signed_is_believed(
    tmp_path: Path, keys: KeyService, owners: tuple[Owner, Owner]
) -> None:
    us, them = owners
    plain = real_image(tmp_path / "plain.efi")
    ours, theirs = us.sign(plain, tmp_path / "ours.efi"), them.sign(plain, tmp_path / "theirs.efi")
    assert "no key is trusted" in why_not(keys, ours)
    add(keys, "us", us)
    assert asyncio.run(keys.signer(ours, signed=True)) == "us", "expired certificates are as good"
    assert "not signed" in why_not(keys, plain)
    assert "a key this host does not trust (it trusts us)" in why_not(keys, theirs)
    altered = tmp_path / "altered.efi"
    altered.write_bytes(ours.read_bytes().replace(b"VERSION_ID=0.1.0", b"VERSION_ID=9.1.0"))
    assert "altered after it was signed" in why_not(keys, altered)
    asyncio.run(keys.delete(Call(input=None, path={"key": "us"})))
    assert "no key is trusted" in why_not(keys, ours)


def test_a_key_is_a_certificate(keys: KeyService) -> None:
    with pytest.raises(Problem, match="cannot be added") as caught:
        asyncio.run(keys.create(Call(input=KeyCreate(name="x", certificate="hello"))))
    assert "not a certificate in PEM" in caught.value.reasons[0].message


def real_image(path: Path) -> Path:
    """One that sbsign takes: a true EFI stub with our sections beside it."""
    box = toolbox.ensure(on_stderr)
    parts = {"linux": b"kernel" * 99, "initrd": b"initrd" * 99}
    for name, data in parts.items():
        path.with_suffix(f".{name}").write_bytes(data)
    build = hashlib.sha256(b"".join(parts.values())).hexdigest()[:16]
    path.with_suffix(".osrel").write_text('ID=thimble\nVERSION_ID=0.1.0\nPRETTY_NAME="Thimble"\n')
    loader_tar = path.with_suffix(".loader")
    loader_tar.write_bytes(b"tar")
    stub = box.path("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    subprocess.run(
        box.argv(
            "ukify", "build", f"--linux={path.with_suffix('.linux')}",
            f"--initrd={path.with_suffix('.initrd')}", f"--cmdline=quiet thimble.build={build}",
            f"--os-release=@{path.with_suffix('.osrel')}", f"--stub={stub}", "--efi-arch=x64",
            f"--section=.loader:@{loader_tar}", "--uname=6.12", f"--output={path}",
        ),
        check=True, capture_output=True, env={**os.environ, **box.environment},
    )  # fmt: skip
    return path
