"""An HTTP origin on loopback, which tests can slow down, and which counts requests."""

from __future__ import annotations

import http.server
import re
import threading
import time
from dataclasses import dataclass, field
from functools import partial

CHUNK = 64 << 10
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class HttpOrigin:
    """A server of files by path. bytes_per_second limits the speed of each stream.

    With ranges it answers those; without, it sends the whole file, as servers may.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    bytes_per_second: float = 0.0
    # Seconds before each answer for a path.
    delays: dict[str, float] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: bool = False
    # Paths of requests, except those for the first byte, which ask for size and version.
    fetched: list[str] = field(default_factory=list)
    # Bytes of content, over all requests.
    sent: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        handler = partial(_Handler, self)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        """URL of a file."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"

    def put(self, path: str, content: bytes) -> str:
        """Serve a file. Returns its URL."""
        self.files[path] = content
        return self.url(path)

    def gets(self, path: str) -> int:
        """How often a file was requested."""
        return self.requests.count(f"GET /{path}")

    def count(self, sent: int) -> None:
        """Add to the bytes that were sent, from any thread."""
        with self._lock:
            self.sent += sent

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, origin: HttpOrigin, *args: object) -> None:
        self.origin = origin
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.origin.requests.append(f"{self.command} {self.path}")
        time.sleep(self.origin.delays.get(self.path.lstrip("/"), 0.0))
        content = self.origin.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if self.origin.ranges else None
        part = content
        if asked:
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            part = content[start : end + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hash(content):x}"')
        self.end_headers()
        if with_body:
            if len(part) > 1:
                self.origin.fetched.append(self.path.lstrip("/"))
            self._send(part)

    def _send(self, content: bytes) -> None:
        started, sent = time.monotonic(), 0
        try:
            while sent < len(content):
                chunk = content[sent : sent + CHUNK]
                self.wfile.write(chunk)
                self.origin.count(len(chunk))
                sent += CHUNK
                if self.origin.bytes_per_second:
                    ahead = sent / self.origin.bytes_per_second - (time.monotonic() - started)
                    time.sleep(max(ahead, 0))
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""
