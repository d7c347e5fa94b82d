"""A proxy before a real server: it lets only some requests through, and answers some itself."""

from __future__ import annotations

import http.client
import http.server
import json
import secrets
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from requests.structures import CaseInsensitiveDict

from deploy.local.posix import die_with_parent
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 30.0
# What concerns one connection only.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy's own."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, content: Any, **headers: str) -> Answer:
        return cls(
            status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
        )


class Gate:
    """The proxy. It hands out access tokens, and knows those it has handed out."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.asked: list[Asked] = []
        self.tokens: dict[str, str] = {}
        self.lifetime = 3600
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def issue(self, who: str) -> Answer:
        """Hand out a token."""
        token = secrets.token_hex(16)
        self.tokens[token] = who
        content = {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}
        return Answer.json(200, content, **{"Metadata-Flavor": "Google"})

    def bearer(self, asked: Asked) -> str | None:
        """Who has the request's token; None if nobody has."""
        return self.tokens.get(asked.headers.get("Authorization", "").removeprefix("Bearer "))

    def answer(self, asked: Asked) -> Answer | None:
        """The proxy's own answer, if it does not pass the request on."""
        raise NotImplementedError

    def target(self, asked: Asked) -> str:
        """What to ask the server for."""
        return asked.target


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, gate: Gate, *args: Any) -> None:
        self.gate = gate
        super().__init__(*args)

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = CaseInsensitiveDict(self.headers.items())
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        self.gate.asked.append(asked)
        answer = self.gate.answer(asked) or self._pass_on(asked)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "content-length" not in map(str.lower, answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            # Some who ask leave in the middle.
            with suppress(OSError):
                self.wfile.write(answer.body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _pass_on(self, asked: Asked) -> Answer:
        upstream = self.gate.upstream
        connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=20)
        try:
            headers = {
                name: value
                for name, value in asked.headers.items()
                if name.lower() not in {*HOP_BY_HOP, "authorization"}
            }
            connection.request(asked.method, self.gate.target(asked), asked.body or None, headers)
            with connection.getresponse() as found:
                kept = {n: v for n, v in found.getheaders() if n.lower() not in HOP_BY_HOP}
                return Answer(found.status, found.read(), kept)
        finally:
            connection.close()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running(
    argv: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server's process, from when it listens."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=log.parent,
            # A killed test run must not leave it behind.
            preexec_fn=die_with_parent(),  # noqa: PLW1509
        ) as process,
    ):
        try:
            wait_until(
                lambda: process.poll() is not None or _listens(port),
                f"{argv[0]} at port {port}",
                seconds=START_SECONDS,
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
