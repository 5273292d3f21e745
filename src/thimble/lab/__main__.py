"""`python -m thimble.lab`: a thin door to `command`."""

import sys

from thimble.lab.command import main

sys.exit(main(sys.argv[1:]))
