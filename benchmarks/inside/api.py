"""The API as the server itself sees it: one TLS connection to localhost, kept open; needs no library."""

from __future__ import annotations

import json
import socket
import ssl
import time
from typing import Any

CRLF = b"\r\n"


class Api:
    """Signed in as admin, unless told not to. Any status but 2xx raises."""

    def __init__(self, password: str, *, port: int = 443, sign_in: bool = True) -> None:
        self._port = port
        self._token = ""
        self.connect()
        if sign_in:
            self._token = self.call("POST", "/session", {"user": "admin", "password": password})["token"]

    def connect(self) -> None:
        """A fresh connection: the agent closes those that were silent for long."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        link = socket.socket()  # not create_connection: it wants a name encoding that the image has not
        link.connect(("127.0.0.1", self._port))
        self._link = context.wrap_socket(link)
        self._rest = b""

    def call(self, method: str, path: str, body: object = None, *, raw: bytes = b"") -> Any:
        """One request and its decoded answer."""
        answer = self.ask(method, path, body, raw=raw)
        return json.loads(answer) if answer else None

    def ask(self, method: str, path: str, body: object = None, *, raw: bytes = b"") -> bytes:
        """One request and the bytes of its answer."""
        data = raw or (b"" if body is None else json.dumps(body).encode())
        head = [
            f"{method} /api/v1{path} HTTP/1.1",
            "Host: localhost",
            f"Content-Length: {len(data)}",
            f"Content-Type: application/{'octet-stream' if raw else 'json'}",
        ]
        if self._token:
            head.append(f"Authorization: Bearer {self._token}")
        self._link.sendall("\r\n".join([*head, "", ""]).encode() + data)
        status, answer = self._answer()
        if not 200 <= status < 300:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode(errors='replace')[:400]}")
        return answer

    def task(self, method: str, path: str, body: object = None) -> Any:
        """A request answered by a task: wait for its end; answers the task's subject."""
        started = self.call(method, path, body)
        task = started["task"]
        while task["state"] == "running":
            task = self.call("GET", f"/tasks/{task['id']}?wait_s=60")
        if task["state"] != "done":
            raise RuntimeError(f"{method} {path}: {task}")
        return started["subject"]

    def timed_task(self, method: str, path: str, body: object = None) -> tuple[Any, float]:
        """The same, and how long it took from the request on."""
        began = time.monotonic()
        subject = self.task(method, path, body)
        return subject, time.monotonic() - began

    def _answer(self) -> tuple[int, bytes]:
        while CRLF + CRLF not in self._rest:
            self._more()
        head, self._rest = self._rest.split(CRLF + CRLF, 1)
        lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(fields.get("content-length", "0"))
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(lines[0].split()[1]), body

    def _more(self) -> None:
        data = self._link.recv(65536)
        if not data:
            raise RuntimeError("the agent closed the connection")
        self._rest += data
