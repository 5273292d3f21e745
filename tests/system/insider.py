#!/py/bin/python3.13 -BIS
# The kernel first program in these tests (rdinit=/insider.py): it becomes the image own /init, unchanged, and
# leaves a child behind that kills the agent when asked. The image itself has no way in for that.
import os
import signal
import socket
import time

if os.fork():
    os.execv("/init", ["/init"])
os.setsid()
while not os.path.exists("/proc/self/comm"):
    time.sleep(0.1)


def agents() -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/comm") as comm, open(f"/proc/{name}/oom_score_adj") as adjusted:
                if comm.read() == "thimble\n" and adjusted.read() == "-900\n":
                    found.append(int(name))
        except OSError:
            continue
    return found


listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("", 7777))
listening.listen()
while True:
    line, _ = listening.accept()
    with line:
        victims = agents()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        line.sendall(f"killed {len(victims)}\n".encode())
