"""The messages for the browsers: made once for all, and kept for those that fall behind a little.

A browser that fell behind further, or whose stream broke for longer, gets the whole state again. So
a slow browser needs no memory here, however long it does not read.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from deploy.kubectl.ui.wire import Board

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.kubectl.snapshot import Snapshot

# Bytes of the messages that are kept for browsers that fall behind.
KEPT_BYTES = 1 << 20


class Event(NamedTuple):
    """An event of the stream. position: the browser sends it when it connects again."""

    name: str
    position: str
    data: bytes

    def encoded(self) -> bytes:
        """The event as Server-Sent Events have it. JSON has no line breaks."""
        head = f"event: {self.name}\n" if self.name else ""
        position = f"id: {self.position}\n" if self.position else ""
        return f"{head}{position}data: ".encode() + self.data + b"\n\n"


@dataclass(frozen=True)
class Health:
    """The connection to the cluster.

    errors: what cannot be read, in words. seen: when the cluster last answered, and now: both in
    Unix seconds by the clock of this machine.
    """

    cluster: str
    state: str = "reading"
    errors: Sequence[str] = ()
    seen: float = 0.0
    now: float = 0.0


@dataclass
class Reader:
    """How far a browser has read."""

    version: int = -1
    health: int = -1


class Feed:
    """The state of the page. One thread publishes; the threads of the browsers wait for more."""

    def __init__(self, cluster: str) -> None:
        self._changed = threading.Condition()
        self._board = Board()
        # Two runs of the program count their versions apart.
        self._run = secrets.token_hex(4)
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._full: tuple[int, bytes] = (-1, b"")
        self._health = Health(cluster)
        self._healths = 0
        self._published = False
        # How far the API server's clock is ahead of this machine's.
        self._ahead = timedelta()
        self._closed = False

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that the page shows."""
        with self._changed:
            return self._board.snapshot

    def present(self) -> Snapshot:
        """The snapshot that the page shows, at the present time by the API server's clock.

        In a quiet cluster nothing is published, and yet what is overdue shows by the time alone.
        While the cluster does not answer, the time stands still with the objects.
        """
        with self._changed:
            snapshot = self._board.snapshot
            if self._health.state == "broken":
                return snapshot
            return replace(snapshot, at=datetime.now(tz=UTC) + self._ahead)

    @property
    def is_connected(self) -> bool:
        """Whether the cluster answers, as last reported."""
        with self._changed:
            return self._health.state != "broken"

    def publish(self, snapshot: Snapshot) -> None:
        """Send what a snapshot of the present time changes."""
        with self._changed:
            message = self._board.advance(snapshot)
            self._ahead = snapshot.at - datetime.now(tz=UTC)
            first, self._published = not self._published, True
            if message is not None:
                self._keep(message["version"], msgspec.json.encode(message))
            if first or message is not None:
                self._changed.notify_all()

    def report(self, health: Health) -> None:
        """Send how the connection to the cluster is."""
        with self._changed:
            self._health = health
            self._healths += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all streams."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def reader(self, position: str = "") -> Reader:
        """A new reader, or the one that has read until a position of this run."""
        run, _, version = position.partition("-")
        return Reader(int(version) if run == self._run and version.isdigit() else -1)

    def wait(self, reader: Reader, seconds: float) -> list[Event] | None:
        """The next events of a reader: after this time, its health again. None: the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_news(reader), seconds)
            if self._closed:
                return None
            events = []
            if self._published and reader.version != self._board.version:
                for version, data in self._since(reader.version):
                    events.append(Event("", f"{self._run}-{version}", data))
                    reader.version = version
            if reader.health != self._healths or not events:
                health = replace(self._health, now=time.time())
                events.append(Event("health", "", msgspec.json.encode(health)))
                reader.health = self._healths
            return events

    def _has_news(self, reader: Reader) -> bool:
        news = self._published and reader.version != self._board.version
        return news or reader.health != self._healths

    def _since(self, version: int) -> list[tuple[int, bytes]]:
        """The messages after a version: those kept, or the full one."""
        if self._kept and self._kept[0][0] <= version + 1 and 0 < version <= self._board.version:
            return [one for one in self._kept if one[0] > version]
        if self._full[0] != self._board.version:
            self._full = (self._board.version, msgspec.json.encode(self._board.full()))
        return [self._full]

    def _keep(self, version: int, data: bytes) -> None:
        self._kept.append((version, data))
        self._kept_bytes += len(data)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[1])
