"""One connection of a peer, with a time limit for what it does now.

A thread works on it; another one ends it when its time is over. So a peer that sends or takes a
byte now and then holds nothing for long, which a time limit of each call would allow.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress

# What a connection may take for its handshake, and for each request with its body.
REQUEST_SECONDS = 10.0
# Until the next request begins.
IDLE_SECONDS = 90.0


class Connection:
    """`socket` is the plain one, and the encrypted one after the handshake."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        # Whether it can be ended for another one: it does nothing for an admitted peer.
        self.is_idle = True
        self._ends = 0.0
        self.allow(REQUEST_SECONDS)
        self._hangup = select.poll()
        self._hangup.register(accepted, select.POLLRDHUP)

    def allow(self, seconds: float) -> None:
        """Give it this time from now on, for what it does next."""
        self._ends = time.monotonic() + seconds

    def is_late(self, now: float) -> bool:
        """Whether its time is over."""
        return now > self._ends

    def is_gone(self) -> bool:
        """Whether the peer has closed it."""
        return bool(self._hangup.poll(0))

    def end(self) -> None:
        """Make calls that wait for the peer return. Any thread may call it."""
        # Not the method of an encrypted one, which would change under the thread that uses it.
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
