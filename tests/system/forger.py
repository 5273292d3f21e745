"""Somebody on the wire who is nobody's neighbour: guesses, asks for what is not served, floods with garbage.

Prints what came of it: four HTTP states, and `error` or `data` for a file asked for by TFTP.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from contextlib import suppress

SERVER = sys.argv[1]
DATA, ERROR = b"\0\3", b"\0\5"


def status(path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{SERVER}{path}", timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


for wanted in ("/boot?serial=none", f"/n/{'0' * 32}/initrd", "/n/../../etc/shadow", "/thimble.efi"):
    print(status(wanted))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
    for number in range(300):
        for port in (67, 69):
            line.sendto(os.urandom(200 + number), (SERVER, port))
    line.settimeout(3)
    answer = b""
    for _ in range(10):  # as any TFTP client does: the flood may have taken the request's place
        with suppress(TimeoutError):
            line.sendto(b"\0\1../../state/tls/key.pem\0octet\0", (SERVER, 69))
            while (answer := line.recv(600))[:2] not in (DATA, ERROR) or b"tls" not in answer:
                pass
            break
    print({DATA: "data", ERROR: "error"}.get(answer[:2], "nothing"))
with socket.create_connection((SERVER, 80), 20) as wire:
    wire.sendall(os.urandom(100_000))
