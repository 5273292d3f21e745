"""The typed HTTP client, derived from the contract: `Client.call("vm.create", VmCreate(…))`.

    address   where an agent is (pure)
    trust     whose certificate is believed, as SSH does it
    wire      verb → request, answer → value (pure)
    events    the event stream, line by line (pure)
    http      the client itself: calls, tasks, uploads, streams, consoles
    profile   the file that keeps addresses, fingerprints and tokens

It knows no verb by itself: paths, methods and types come from `thimble.contract.verbs`. It never prints,
never asks and never keeps a password.
"""

import sys

# httpx imports its own command line, and with it all of rich, whenever that is installed: half of the time
# our command would take to start. It goes on without when that import fails.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
