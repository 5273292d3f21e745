#!/py/bin/python3.13 -BIS
# The first program of a server that stands for the network others live in (rdinit=/neighbour.py): it becomes
# the image's own /init, and leaves a child behind that gives addresses with dnsmasq and time with chronyd;
# then it asks everybody who has a lease what time it is. If it was given /thimble.efi, it offers that to UEFI
# over HTTP.
import os
import subprocess
import sys
import time

if os.fork():
    os.execv("/init", ["/init"])
os.setsid()

CHRONY = """\
local stratum 1
allow all
cmdport 0
bindcmdaddress /
pidfile /run/neighbour-chronyd.pid
"""
LEASES = "/run/neighbour.leases"
DNSMASQ = f"""\
port=0
user=root
interface=uplink
bind-interfaces
dhcp-authoritative
dhcp-leasefile={LEASES}
dhcp-range=192.168.66.100,192.168.66.200,1h
dhcp-option=option:ntp-server,192.168.66.1
enable-ra
dhcp-range=fd77::1000,fd77::1fff,64,1h
dhcp-option=option6:ntp-server,[fd77::1]
dhcp-option=option6:sntp-server,[fd77::1]
dhcp-option=option6:dns-server,[fd77::1]
"""
EFI = "/thimble.efi"
HTTP = f"""\
dhcp-vendorclass=set:http,HTTPClient
dhcp-option-force=tag:http,60,HTTPClient
dhcp-boot=tag:http,http://192.168.66.1{EFI}
"""
OURS = "fd770000000000000000000000000001 "


def say(words: str) -> None:
    with open("/dev/console", "w") as console:
        console.write(f"neighbour: {words}\n")


def ready() -> bool:
    """Whether the address is there and so are the programs, which come late."""
    try:
        with open("/proc/net/if_inet6") as addresses:
            there = OURS in addresses.read()
    except OSError:
        return False
    return there and os.path.exists("/usr/sbin/dnsmasq") and os.path.exists("/usr/sbin/chronyd")


def start(name: str, text: str, *argv: str) -> None:
    with open(f"/run/neighbour-{name}.conf", "w") as file:
        file.write(text)
    subprocess.Popen([f"/usr/sbin/{name}", *argv, f"/run/neighbour-{name}.conf"])


def serve_efi() -> None:
    """Answer every request on port 80 with the file; firmware asks for its length first."""
    import socket

    listening = socket.create_server(("", 80))
    while True:
        line, _ = listening.accept()
        with line, open(EFI, "rb") as file:
            asked = line.makefile("rb")
            while request := asked.readline():
                while asked.readline() not in (b"\r\n", b""):
                    pass
                length = os.fstat(file.fileno()).st_size
                line.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
                if not request.startswith(b"HEAD"):
                    line.sendfile(file, 0)


def leased() -> list[str]:
    if not os.path.exists(LEASES):  # dnsmasq has just begun
        return []
    with open(LEASES) as leases:
        return [words[2] for line in leases if len(words := line.split()) == 5]


def seconds_off(address: str) -> float:
    """How far the clock of the server there is from ours, by the date of its answers."""
    import calendar
    import socket
    import ssl

    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), timeout=10) as line,
        plain.wrap_socket(line, server_hostname=address) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := secure.recv(4096):
            answer += piece
    date = answer.lower().split(b"\r\ndate: ", 1)[1].split(b"\r\n", 1)[0].decode()
    theirs = calendar.timegm(time.strptime(date, "%a, %d %b %Y %H:%M:%S gmt"))
    return theirs - time.time()


while not ready():
    time.sleep(0.2)
sys.path += ["/usr/lib/python3.13", "/usr/lib/python3.13/lib-dynload"]
start("chronyd", CHRONY, "-d", "-x", "-u", "root", "-f")
if os.path.exists(EFI):
    DNSMASQ += HTTP
    if not os.fork():
        serve_efi()
start("dnsmasq", DNSMASQ, "--keep-in-foreground", "-C")
say("serving")
told: set[str] = set()
while True:
    time.sleep(1)
    for address in leased():
        try:
            off = abs(seconds_off(address))
        except (OSError, IndexError):
            continue
        words = f"{address} has the right time" if off < 5 else f"{address} is {off:.0f} s off"
        if words.split(" is ")[0] not in told:
            told.add(words.split(" is ")[0])
            say(words)
