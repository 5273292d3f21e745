"""`python -m thimble.image …`: the same as `thimble image …`, with nothing but the standard library."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from thimble.image.progress import on_stderr


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(prog="python -m thimble.image", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("lock", help="pin the newest verified versions")
    verbs.add_parser("toolbox", help="make the toolbox ready and print its directory of wrappers")
    build = verbs.add_parser("build", help="build an image")
    build.add_argument("--profile", choices=("server", "virtual"), default="virtual")
    build.add_argument("--out", type=Path, default=Path("out"))
    build.add_argument("--source", type=Path, help="the src/ directory to pack; default: this checkout's")
    look = verbs.add_parser("inspect", help="what is the footprint")
    look.add_argument("path", type=Path)
    look.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.verb == "lock":
        from thimble.image import lock

        for line in lock.refresh(on_stderr):
            print(line)
    elif options.verb == "toolbox":
        from thimble.image import toolbox

        print(toolbox.ensure(on_stderr).wrappers)
    elif options.verb == "inspect":
        from thimble.image import inspect

        found = inspect.inspect(options.path)
        print(json.dumps(found.document()) if options.json else "\n".join(inspect.lines(found)))
    elif options.verb == "build":
        from thimble.image import build as builder

        chosen = builder.BuildOptions(profile=options.profile, out=options.out)
        if options.source:
            chosen = dataclasses.replace(chosen, source=options.source.resolve())
        result = builder.build(chosen, on_stderr)
        print(result.efi)


if __name__ == "__main__":
    main()
