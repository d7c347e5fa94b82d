"""Metrics and probes of an agent over HTTP: `--http-bind-address`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from agent.commands.disk_probe import DiskProbe
from agent.commands.health import Health
from agent.commands.http_server import Answer, Server
from agent.structs.log import log

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from agent.control.loop import Loop
    from agent.control.snapshot import Snapshot
    from agent.disk.store import Store


class Observation:
    """Serves /metrics, /healthz and /readyz from its making on. Raises BindError.

    The server starts before the agent opens its store, where a disk that hangs may hold it for
    ever: that is reported too. It ends with the process.
    """

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        # Prometheus' client is imported where metrics are served.
        from agent.commands.metrics import CONTENT_TYPE, Metrics  # noqa: PLC0415

        probe = DiskProbe(store)
        self._loop: Loop | None = None
        self.counts = Metrics()
        self._content_type = CONTENT_TYPE
        self.counts.follow(self._snapshot, lambda: not probe.problem())
        self._health = Health(probe)
        self._server = Server(
            address,
            {
                "/metrics": self._metrics,
                "/healthz": lambda: _verdict(self._health.live),
                "/readyz": lambda: _verdict(self._health.ready),
            },
        )
        self._server.start()
        log.info("Metrics and probes are served", host=address[0], port=self.port)

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._server.port

    def follow(self, loop: Loop) -> None:
        """Observe this loop."""
        self._loop = loop
        self._health.follow(loop)

    def _snapshot(self) -> Snapshot | None:
        return None if self._loop is None else self._loop.snapshot

    def _metrics(self) -> Answer:
        return Answer(HTTPStatus.OK, self.counts.exposition(), self._content_type)


def observe(options: argparse.Namespace, store: Store) -> Observation | None:
    """Start to serve if the flags name an address; the store is opened later. Raises BindError."""
    address = options.http_bind_address
    return None if address is None else Observation(address, store)


def _verdict(check: Callable[[], list[str]]) -> Answer:
    failures = check()
    if not failures:
        return Answer(HTTPStatus.OK, b"ok\n")
    text = "".join(f"{failure}\n" for failure in failures)
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())
