"""`thimble image key`: keys of one's own for Secure Boot, in a folder that `signing` reads.

Invariant: an existing folder is never written to, and private keys are readable by their owner only.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

from thimble.image import signing, toolbox
from thimble.image.fault import fault
from thimble.image.pack import Packer
from thimble.image.progress import Report

DAYS = 3650
#: Who signs which variable.
SIGNERS = {"PK": "PK", "KEK": "PK", "db": "KEK"}
_CONFIG = """[req]
distinguished_name = name
[name]
[own]
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
"""


def make(folder: Path, report: Report, *, name: str = "Thimble", also: Iterable[Path] = ()) -> None:
    """Make the folder. `also` are further certificates the firmware is to accept, such as Microsoft's.

    Raises EXISTS when there is something of that name, NOT_FOUND or INVALID for a bad certificate.
    """
    if folder.exists():
        raise fault("exists", f"{folder} exists", hint="Keys are never overwritten. Name a new folder.")
    certificates = list(also)
    for path in certificates:
        signing.check_certificate(path)
    packer = Packer(box=toolbox.ensure(report), epoch=0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # 0700
    try:
        for variable in signing.VARIABLES:
            report("key", None, variable)
            _pair(packer, scratch, variable, f"{name} {variable}")
        owner = str(uuid.uuid4())
        for variable in signing.VARIABLES:
            more = certificates if variable == "db" else []
            _variable(packer, scratch, variable, owner, [scratch / f"{variable}.crt", *more])
        (scratch / "own.cnf").unlink()
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _pair(packer: Packer, folder: Path, variable: str, name: str) -> None:
    config, key = folder / "own.cnf", folder / f"{variable}.key"
    config.write_text(_CONFIG)
    key.touch(mode=0o600)
    packer.run(
        *("openssl", "req", "-new", "-x509", "-config", str(config), "-extensions", "own"),
        *("-newkey", "rsa:2048", "-noenc", "-sha256"),
        *("-days", str(DAYS)),
        *("-subj", f"/CN={name.replace('/', ' ')}/"),
        *("-keyout", str(key)),
        *("-out", str(folder / f"{variable}.crt")),
    )
    key.chmod(0o600)


def _variable(packer: Packer, folder: Path, variable: str, owner: str, certificates: list[Path]) -> None:
    """The variable's content, signed by the key above it."""
    lists = b""
    der, one = folder / "one.der", folder / "one.esl"
    for certificate in certificates:
        packer.run("openssl", "x509", "-in", str(certificate), "-outform", "DER", "-out", str(der))
        packer.run("sbsiglist", "--owner", owner, "--type", "x509", "--output", str(one), str(der))
        lists += one.read_bytes()
    whole = folder / "whole.esl"
    whole.write_bytes(lists)
    by = SIGNERS[variable]
    packer.run(
        "sbvarsign",
        *("--key", str(folder / f"{by}.key")),
        *("--cert", str(folder / f"{by}.crt")),
        *("--output", str(folder / f"{variable}.auth")),
        variable,
        str(whole),
    )
    for path in (der, one, whole):
        path.unlink()
