"""The server and the client of the latency probe.

The client sends each request at its scheduled time, or as soon as the former one is answered if
that is later, and counts from the scheduled time: a stall counts for each request that it delays.
Usage: serve | ask.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

INTERVAL_SECONDS = 0.005
_BODY = b"x" * 1024
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


def serve() -> None:
    """Report the port, then answer one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _say({"ready": True})
        sys.stdin.readline()
        _say({"port": listener.getsockname()[1]})
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while connection.recv(4096):
                    connection.sendall(_ANSWER)


def ask() -> None:
    """Ask from one line on stdin to the next, and report the latencies; then again."""
    _say({"ready": True})
    for line in iter(sys.stdin.readline, ""):
        with socket.create_connection(("127.0.0.1", json.loads(line)["port"])) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _exchange(connection)
            _say({})
            latencies = _sample(connection)
        sys.stdin.readline()
        _say({"latencies": latencies})


def _sample(connection: socket.socket) -> list[float]:
    """Ask on the schedule until a line is on stdin. Returns seconds."""
    latencies: list[float] = []
    began = time.monotonic()
    while True:
        scheduled = began + len(latencies) * INTERVAL_SECONDS
        wait = max(0.0, scheduled - time.monotonic())
        if select.select([sys.stdin], [], [], wait)[0]:
            return latencies
        _exchange(connection)
        latencies.append(time.monotonic() - scheduled)


def _exchange(connection: socket.socket) -> None:
    connection.sendall(_REQUEST)
    missing = len(_ANSWER)
    while missing:
        piece = connection.recv(missing)
        if not piece:
            raise ConnectionError("the small server ended")
        missing -= len(piece)


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]]()
