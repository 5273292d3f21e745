"""The typed HTTP clients, derived from the contract: `Client.call("vm.create", VmCreate(…))`.

    address    where an agent is (pure)
    trust      whose certificate is believed, as SSH does it
    wire       verb → request, answer → value (pure)
    exchange   requests and answers on one connection, for `plain` and `peer` (pure)
    events     the event stream, line by line (pure)

    http       for the command line: calls, tasks, uploads, streams, consoles; httpx
    plain      for the console UI: calls and consoles over a blocking socket
    peer       for the agent: one host calls another; asyncio

    profile    the file that keeps addresses, fingerprints and tokens

They know no verb: paths, methods and types come from `thimble.contract.verbs`. They never print, never ask
and never keep a password.
"""

import sys

# httpx imports its own command line, and with it all of rich, whenever that is installed: half of the time
# our command would take to start. It goes on without when that import fails.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
