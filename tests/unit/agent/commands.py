"""Runs localmodel-agent in a separate process, and a slow web server that counts bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.agent.servers import etag

if TYPE_CHECKING:
    from tests.unit.agent.servers import Handler

TREE = Path(__file__).parent.parent.parent.parent
PIECE = 64 << 10


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "agent.main", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of localmodel and AWS, with `variables`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("LOCALMODEL_", "AWS_"))}
    return {**kept, "NO_PROXY": "*", **variables}


def run(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=TREE,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=TREE,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass
class Ranges:
    """Serves ranges of files, counts the bytes sent, and pauses after each piece."""

    files: dict[str, bytes]
    pause: float = 0.0
    # The statuses of the first responses, to GETs and HEADs.
    refuse: list[int] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, handler: Handler, path: str) -> None:
        with self.lock:
            status = self.refuse.pop(0) if self.refuse else 0
        if status:
            return handler.reply(status)
        data = self.files.get(path)
        if data is None:
            return handler.reply(404)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        end = int(match[2]) + 1 if match and match[2] else len(data)
        handler.send_response(206 if match else 200)
        handler.send_header("ETag", etag(data))
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(end - start))
        if match:
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        handler.end_headers()
        if handler.command == "HEAD":
            return None
        for position in range(start, end, PIECE):
            piece = data[position : min(end, position + PIECE)]
            handler.wfile.write(piece)
            handler.wfile.flush()
            with self.lock:
                self.sent += len(piece)
            time.sleep(self.pause)
        return None
