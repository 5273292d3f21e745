"""`python -m thimble.image …`: the same as `thimble image …`, with nothing but the standard library."""

from __future__ import annotations

import argparse

from thimble.image.progress import on_stderr


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(prog="python -m thimble.image", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("lock", help="pin the newest verified versions")
    verbs.add_parser("toolbox", help="make the toolbox ready and print its directory of wrappers")
    options = parser.parse_args()
    if options.verb == "lock":
        from thimble.image import lock

        for line in lock.refresh(on_stderr):
            print(line)
    elif options.verb == "toolbox":
        from thimble.image import toolbox

        print(toolbox.ensure(on_stderr).wrappers)


if __name__ == "__main__":
    main()
