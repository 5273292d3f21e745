"""`python -m thimble.lab`: runs `command`."""

import sys

from thimble.lab.command import main

sys.exit(main(sys.argv[1:]))
