"""A Hugging Face hub that reports SHA-256 checksums, and a slow or lying way to a peer.

The bytes of all answers together pass a token bucket.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.unit.agent.servers import Handler

MODEL = "org/model"
_COMMIT = "c" * 40
_SLICE = 256 << 10
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
# A long poll of a peer takes less.
_TIMEOUT = 120.0


class Bucket:
    """Lets bytes through at a rate; without one, all at once."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            wait = self._free_at - now
        time.sleep(wait)


@dataclass
class Hub:
    """A hub with one model of large files. `sent` counts the bytes of files.

    It answers the first request of each agent once the gate is open: their starts, which take a
    CPU for longer than some downloads, are over then. `waiting` counts these requests.
    """

    files: dict[str, bytes]
    digests: dict[str, str]
    bucket: Bucket = field(default_factory=lambda: Bucket(None))
    sent: int = 0
    waiting: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, count: int, size: int) -> Hub:
        """A model of so many files of random bytes."""
        files = {f"part-{number}.safetensors": os.urandom(size) for number in range(count)}
        return cls(files, {path: hashlib.sha256(data).hexdigest() for path, data in files.items()})

    def reset(self, rate: float | None) -> None:
        """Begin a run, at this rate in bytes per second."""
        self.bucket, self.sent, self.waiting = Bucket(rate), 0, 0
        self.gate.clear()

    @property
    def size(self) -> int:
        """The bytes of the model."""
        return sum(map(len, self.files.values()))

    def __call__(self, handler: Handler, path: str) -> None:
        """Answer a request."""
        path = urlsplit(path).path
        if path.startswith(f"/api/models/{MODEL}/revision/"):
            with self._lock:
                self.waiting += 1
            self.gate.wait()
            return handler.reply(200, json.dumps({"id": MODEL, "sha": _COMMIT}).encode())
        if path.startswith(f"/api/models/{MODEL}/tree/"):
            return handler.reply(
                200, json.dumps([self._entry(path) for path in self.files]).encode()
            )
        if path.startswith(f"/{MODEL}/resolve/"):
            name = path.rpartition("/")[2]
            if name not in self.files:
                return handler.reply(404)
            host = handler.headers["Host"]
            linked = {
                "Location": f"http://{host}/blobs/{name}",
                "X-Repo-Commit": _COMMIT,
                "X-Linked-Size": str(len(self.files[name])),
                "X-Linked-ETag": f'"{self.digests[name]}"',
            }
            return handler.reply(302, b"", linked)
        name = path.removeprefix("/blobs/")
        if name not in self.files:
            return handler.reply(404)
        return self._send(handler, self.files[name])

    def _entry(self, path: str) -> dict[str, object]:
        size = len(self.files[path])
        lfs = {"oid": self.digests[path], "size": size, "pointerSize": 135}
        return {"type": "file", "path": path, "size": size, "oid": "f" * 40, "lfs": lfs}

    def _send(self, handler: Handler, content: bytes) -> None:
        found = _RANGE.fullmatch(handler.headers.get("Range", ""))
        start, end, headers = 0, len(content), {}
        if found is not None:
            start, end = int(found[1]), min(int(found[2] or end - 1) + 1, end)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        headers["Content-Length"] = str(end - start)
        handler.begin(206 if found else 200, headers)
        if handler.command == "HEAD":
            return
        view = memoryview(content)
        while start < end:
            piece = view[start : min(start + _SLICE, end)]
            self.bucket.take(len(piece))
            handler.wfile.write(piece)
            start += len(piece)
            with self._lock:
                self.sent += len(piece)


@dataclass
class Way:
    """The way to a peer: what others get from it is held to a rate, or has wrong bytes."""

    host: str
    bucket: Bucket
    lies: bool = False
    port: int = 0

    def __call__(self, handler: Handler, _path: str) -> None:
        """Pass on a request and its answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT)
        try:
            self._pass_on(handler, connection)
        except (OSError, http.client.HTTPException):
            # The peer does not answer: neither does the way to it.
            handler.close_connection = True
        finally:
            connection.close()

    def _pass_on(self, handler: Handler, connection: http.client.HTTPConnection) -> None:
        length = int(handler.headers.get("Content-Length", "0"))
        kept = {name: value for name, value in handler.headers.items() if name != "Connection"}
        connection.request(handler.command, handler.path, handler.rfile.read(length) or None, kept)
        answer = connection.getresponse()
        handler.begin(answer.status, dict(answer.getheaders()))
        is_blob = "/blobs/" in handler.path
        while piece := answer.read(_SLICE):
            if is_blob:
                self.bucket.take(len(piece))
            wrong = is_blob and self.lies
            handler.wfile.write(bytes([piece[0] ^ 1]) + piece[1:] if wrong else piece)
