"""`deploy.upload`: an image into memory, for `deploy.update` or `deploy.install` with the image `upload`."""

from __future__ import annotations

import asyncio

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.deploy import Uploaded
from thimble.core.decision import GO, Decision
from thimble.core.problem import Code, Problem
from thimble.deploy import image
from thimble.deploy.context import DeployContext, refused
from thimble.deploy.image_source import check_memory
from thimble.dispatch import run


async def upload(deploy: DeployContext, call: Call[None]) -> Uploaded | DryRun:
    """What was received, in place of the last one."""
    turn = deploy.turn("deploy.upload")

    def decided() -> Decision[bool]:
        return turn.checked(decide(call.length or 0))

    async def acted(_: Decision[bool]) -> Uploaded:
        return await act(deploy, call)

    return await run.now(call, decided, acted, turn=turn)


def decide(length: int) -> Decision[bool]:
    """`length`: how many bytes are announced; 0 when that is not known."""
    try:
        check_memory(length)
    except Problem as problem:
        return refused(problem)
    return Decision(plan=GO, effects=("keeps an image in memory",))


async def act(deploy: DeployContext, call: Call[None]) -> Uploaded:
    """Raises `Problem`; then there is no upload."""
    if call.body is None:
        raise Problem(Code.MALFORMED, "there is no upload in this request")
    path = await deploy.images.receive(call.body, call.length, call.query.get("sha256", ""))
    try:
        found = await asyncio.to_thread(image.inspect, path)
    except Problem:
        await deploy.images.drop_upload()
        raise
    try:
        signer = await deploy.keys.signer(path, signed=found.uki.signed)
    except Problem:
        signer = ""
    return Uploaded(
        version=found.version,
        build=found.build,
        file_bytes=found.file_bytes,
        sha256=found.sha256,
        signed_by=signer,
    )
