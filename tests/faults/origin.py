"""The models' origin: a web server and an S3 server on loopback, in a separate process."""

from __future__ import annotations

import base64
import random
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from awscrt import checksums

from agent.structs.credentials import Credentials
from tests.faults.forks import fork
from tests.unit.agent.servers import Buckets, WebFiles, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedIOBase

    from tests.unit.agent.servers import Handler

BUCKET = "models"
PIECE = 32 << 10


def content(name: str, size: int) -> bytes:
    """Pseudorandom bytes that are the same in each run."""
    return random.Random(name).randbytes(size)


def settings(url: str) -> Credentials:
    """The settings with which the agent reads from the S3 server."""
    return Credentials.of(
        {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": url,
        }
    )


class _Slow:
    """The connection to a client, at a limited speed."""

    def __init__(self, real: BufferedIOBase, bytes_per_second: int) -> None:
        self._real, self._rate = real, bytes_per_second

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            time.sleep(len(piece) / self._rate)
            self._real.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def serve(
    web: dict[str, bytes], bucket: dict[str, bytes], bytes_per_second: int | None = None
) -> Iterator[str]:
    """Serve files by path, and a bucket whose objects have checksums. Yields the URL.

    The speed limit applies to each connection.
    """
    child = fork(lambda send: _serve(web, bucket, bytes_per_second, send))
    try:
        yield str(child.receive()[0])  # type: ignore[index]
    finally:
        child.end()


def _serve(
    web: dict[str, bytes],
    bucket: dict[str, bytes],
    bytes_per_second: int | None,
    send: Callable[[object], None],
) -> None:
    files = WebFiles({f"/{path}": data for path, data in web.items()})
    crcs = {
        key: ("CRC32C", base64.b64encode(checksums.crc32c(data).to_bytes(4, "big")).decode())
        for key, data in bucket.items()
    }
    store = Buckets({BUCKET: bucket}, checksums=crcs)

    def answer(handler: Handler, path: str) -> None:
        if bytes_per_second is not None and not isinstance(handler.wfile, _Slow):
            handler.wfile = cast("BufferedIOBase", _Slow(handler.wfile, bytes_per_second))
        (files if path in files.files else store)(handler, path)

    with serving(answer) as server:
        send(server.url)
        while True:
            signal.pause()
