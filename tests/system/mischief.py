#!/py/bin/python3.13 -BIS
# The kernel's first program in a test (rdinit=/mischief.py): it becomes the image's own /init, unchanged, and
# leaves a child behind that has the management controller note a memory error when asked, and forget it.
import os
import socket
import time

if os.fork():
    os.execv("/init", ["/init"])
os.setsid()
while not os.path.exists("/proc/self/comm"):
    time.sleep(0.1)

listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("", 7777))
listening.listen()


def obey(order: bytes) -> str:
    from thimble.sys.ipmi import Socket

    with Socket() as door:
        if order == b"note\n":
            record = bytes((0, 0, 2, 0, 0, 0, 0, 0x20, 0, 4, 0x0C, 0x31, 0x6F, 1, 0xFF, 0xFF))
            return f"noted {door.ask(0x0A, 0x44, record).hex()}\n"
        ticket = door.ask(0x0A, 0x42)[:2]
        return f"cleared {door.ask(0x0A, 0x47, ticket + b'CLR' + bytes((0xAA,))).hex()}\n"


while True:
    line, _ = listening.accept()
    with line:
        try:
            said = obey(line.recv(64))
        except Exception as error:
            said = f"failed {type(error).__name__} {error}\n"
        line.sendall(said.encode())
