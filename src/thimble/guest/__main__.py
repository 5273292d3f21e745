"""`python -m thimble.guest debian|cloud|tiny|lock`: build a guest, or pin the newest packages."""

from __future__ import annotations

import sys

import msgspec

from thimble.guest import packages
from thimble.image import cache, locking
from thimble.image.progress import on_stderr


def main(argv: list[str]) -> int:
    match argv:
        case ["debian"]:
            from thimble.guest import debian

            print(msgspec.json.format(msgspec.json.encode(debian.ensure(on_stderr), enc_hook=str)).decode())
        case ["cloud"]:
            from thimble.guest import cloud

            print(msgspec.json.format(msgspec.json.encode(cloud.ensure(on_stderr), enc_hook=str)).decode())
        case ["tiny"]:
            from thimble.guest import tiny

            print(msgspec.json.format(msgspec.json.encode(tiny.ensure(on_stderr), enc_hook=str)).decode())
        case ["lock"]:
            apt = packages.private_apt()
            apt.update(on_stderr, older_than_s=0)
            cache.write(packages.LOCK_FILE, locking.write(packages.resolve(apt)).encode())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
