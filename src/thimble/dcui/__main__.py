"""`python -m thimble.dcui`: the console UI on this terminal."""

import sys

from thimble.dcui.main import main

sys.exit(main())
