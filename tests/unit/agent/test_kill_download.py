"""What a kill -9 costs: the bytes of one download that are asked for again."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent.disk.store import Store
from agent.structs.manifest import Manifest
from crds.keys import model_key
from tests.content import weights
from tests.unit.agent.servers import Handler, etag, serving

if TYPE_CHECKING:
    from pathlib import Path

# What a kill costs is the same whatever the size.
SIZE = 1 << 30
KILLS = 50
BLOCK = 1 << 20
# A busy machine reads late: what then waits in its sockets is little at this rate.
BYTES_PER_SECOND = 20 << 20
PIECE = 32 << 10


class SlowFile:
    """One file, sent in ranges at a rate that all connections share. Counts what it sends."""

    def __init__(self) -> None:
        self.block = weights(BLOCK)
        self.etag = etag(self.block)
        self.sent = 0
        self.unlimited = False
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, handler: Handler, _path: str) -> None:
        # What waits in the server's socket is not on its way yet.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["Range"])
        assert found is not None
        start, end = int(found[1]), int(found[2]) + 1
        handler.send_response(206)
        handler.send_header("Content-Length", str(end - start))
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        view = memoryview(self.block)
        for at in range(start, end, PIECE):
            piece = view[at % BLOCK :][: min(PIECE, end - at)]
            self._wait(len(piece))
            handler.wfile.write(piece)
            with self._lock:
                self.sent += len(piece)

    def _wait(self, count: int) -> None:
        with self._lock:
            if self.unlimited:
                return
            self._free_at = max(self._free_at, time.monotonic()) + count / BYTES_PER_SECOND
            wait = self._free_at - time.monotonic()
        time.sleep(max(wait, 0))


@pytest.mark.timeout(240)  # starts fifty downloads as processes
def test_fifty_kills_cost_less_than_a_tenth(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    file = SlowFile()
    with serving(file) as server:
        uri = f"{server.url}/model.bin"
        with subprocess.Popen(
            [sys.executable, "-m", "tests.unit.agent.kill_target", str(tmp_path), uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as target:
            assert target.stdin is not None
            assert target.stdout is not None

            def begin() -> int:
                target.stdin.write("go\n")  # type: ignore[union-attr]
                target.stdin.flush()  # type: ignore[union-attr]
                return int(target.stdout.readline())  # type: ignore[union-attr]

            for kill in range(KILLS):
                child = begin()
                time.sleep(chance.uniform(0.02, 0.5))
                os.kill(child, signal.SIGKILL)
                assert int(target.stdout.readline()) == -signal.SIGKILL, (seed, kill)
                # Nothing is there before all of it is.
                assert not (tmp_path / "models" / model_key(uri)).exists()
            assert file.sent < SIZE, (seed, "it ended before the kills did: make it larger")
            file.unlimited = True
            begin()
            assert int(target.stdout.readline()) == 0, seed
            target.stdin.close()
    again = file.sent - SIZE
    assert again < SIZE / 10, (seed, f"{again >> 20} MiB came again")
    check(tmp_path, uri, file.block)


def check(root: Path, uri: str, block: bytes) -> None:
    """It is all there, and right."""
    key = model_key(uri)
    content = hashlib.sha256()
    for _ in range(SIZE // BLOCK):
        content.update(block)
    with (root / "models" / key / "model.bin").open("rb") as published:
        assert hashlib.file_digest(published, "sha256").digest() == content.digest()
    store = Store(root)
    manifest = store.inspect(key).manifest
    assert isinstance(manifest, Manifest)
    assert manifest.files[0].sha256 == content.hexdigest()
    assert {path.name for path in (root / ".localmodel" / key).iterdir()} == {"manifest.json"}
