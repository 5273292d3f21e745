"""`thimble image key`: keys of one's own for Secure Boot, in a folder that `signing` reads.

Invariant: an existing folder is never written to, and private keys are readable by their owner only.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from thimble.image import efivars, signing, toolbox
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
        owner = uuid.uuid4()
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


def _variable(
    packer: Packer, folder: Path, variable: str, owner: uuid.UUID, certificates: list[Path]
) -> None:
    """The variable's content, signed by the key above it."""
    content = b"".join(efivars.signature_list(path.read_text(), owner) for path in certificates)
    stamp = efivars.timestamp(time.time())
    plain, signature = folder / "plain", folder / "signature"
    plain.write_bytes(efivars.to_sign(variable, stamp, content))
    by = SIGNERS[variable]
    packer.run(
        *("openssl", "cms", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER"),
        *("-inkey", str(folder / f"{by}.key")),
        *("-signer", str(folder / f"{by}.crt")),
        *("-in", str(plain)),
        *("-out", str(signature)),
    )
    auth = efivars.authenticated(stamp, signature.read_bytes(), content)
    (folder / f"{variable}.auth").write_bytes(auth)
    for path in (plain, signature):
        path.unlink()
