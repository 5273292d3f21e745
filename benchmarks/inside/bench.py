#!/py/bin/python3.13 -BIS
# The kernel's first program while we measure inside a Thimble server (rdinit=/bench.py): it becomes Thimble's
# own /init, unchanged, and leaves a child behind that measures as root beside it.
import os
import sys

if os.fork():
    os.execv("/init", ["/init", *sys.argv[1:]])
os.setsid()
sys.path.insert(0, "/bench.d")
from benchmarks.inside import measure  # noqa: E402

measure.run()
