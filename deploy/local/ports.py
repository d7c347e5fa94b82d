"""Choice of free ports on loopback."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

LOOPBACK = "127.0.0.1"
RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10000
DEFAULT_EPHEMERAL = 32768
TRIES = 1000


@dataclass(frozen=True)
class Ports:
    """The ports of one local cluster, constant while it runs."""

    etcd: int
    etcd_peer: int
    api: int
    hooks: int
    metacontroller: int


def candidates(ephemeral_start: int) -> range:
    """Ports to choose from: below the range for outgoing connections.

    An outgoing connection could get the port of a process while the process restarts.
    """
    return range(LOWEST, max(ephemeral_start, LOWEST + 2000))


def ephemeral_start(text: str) -> int:
    """The first port of the kernel's range for outgoing connections."""
    fields = text.split()
    return int(fields[0]) if fields and fields[0].isdigit() else DEFAULT_EPHEMERAL


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Different free ports, chosen at random because other clusters choose at the same time.

    taken: ports of programs that may not listen yet.
    """
    start = ephemeral_start(RANGE_FILE.read_text() if RANGE_FILE.exists() else "")
    chosen: list[int] = []
    for port in random.SystemRandom().sample(candidates(start), TRIES):
        if port not in taken and is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError(f"no {count} free ports on {LOOPBACK}")


def choose_ports() -> Ports:
    """Free ports for a cluster."""
    return Ports(*free_ports(5))
