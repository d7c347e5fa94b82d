"""The agent's metrics for Prometheus.

Events are counted where they happen (agent.structs.counts). All states are derived when Prometheus
asks, from the loop's last snapshot. No label names a model, a cache, a URI or a namespace: each has
a few fixed values, which docs/agent.md lists.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.sources import SCHEMES
from agent.structs.counts import Counts
from agent.structs.failures import FailureKind
from agent.structs.sizes import EvictionReason
from crds.states import ModelState
from crds.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from agent.control.snapshot import Snapshot

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "localmodel_agent_"
# The scheme of a URI that no source fetches.
OTHER = "other"
RESULTS = ("published", "failed", "cancelled")
# The code of a request that got no answer.
NO_ANSWER = "none"
# Up to eight hours, in which a model of 700 GB comes at 25 MB a second.
SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600)
BYTES = (1e6, 1e7, 1e8, 1e9, 1e10, 5e10, 1e11, 2e11, 4e11, 8e11, 1.6e12)
STEP_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300)

# The series `_created`, one for each counter, say nothing that Prometheus uses.
disable_created_metrics()  # type: ignore[no-untyped-call]


class State(NamedTuple):
    """A gauge that is derived when Prometheus asks. name: without the prefix."""

    name: str
    text: str
    labels: tuple[str, ...] = ()

    def family(self) -> GaugeMetricFamily:
        """The gauge without a value."""
        return GaugeMetricFamily(PREFIX + self.name, self.text, labels=self.labels)


STATES = {
    state.name: state
    for state in (
        State(
            "disk_writable", "Whether the disk of the models is there and can be written (1 or 0)."
        ),
        State(
            "synced",
            "Whether the agent has read its LocalModelNode, and knows the pods of the node (1 or "
            "0).",
        ),
        State(
            "models",
            "Entries of LocalModelNode.status.models, one for each cache on the node, by state.",
            ("state",),
        ),
        State("models_bytes", "Bytes of the disk that published copies take."),
        State("downloads_active", "Downloads that run."),
        State(
            "downloads_waiting",
            "Downloads that wait for room, for one of --max-downloads places, or for the node's "
            "turn.",
        ),
        State(
            "waiting_pods",
            "Pods of the node with a container that waits for a model that is not there yet.",
        ),
        State("disk_capacity_bytes", "Size of the disk of the models."),
        State("disk_used_bytes", "Bytes of that disk that are taken, also by other programs."),
        State("disk_available_bytes", "Bytes of that disk that the agent can still write."),
        State(
            "condition",
            "1 for the present status (True, False or Unknown) of each condition of the "
            "LocalModelNode.",
            ("type", "status"),
        ),
        State(
            "last_step_timestamp_seconds",
            "When the control loop last completed a step, or the agent started, in seconds since "
            "1970.",
        ),
        State(
            "last_report_timestamp_seconds",
            "When a write of the LocalModelNode's status last succeeded, or was not needed, or the "
            "agent started, in seconds since 1970.",
        ),
    )
}


class Metrics(Counts):
    """Counts for Prometheus. Counters begin at zero with the process.

    registry: all metrics of the agent, once it follows the states.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._gauge(
            "build_info", "Always 1; the label has the version of the agent.", ["version"]
        ).labels(__version__).set(1)
        self._received = self._counter(
            "download_bytes",
            "Bytes received from origins, repeated ones included, by the scheme of the model's "
            "URI.",
            ["scheme"],
        )
        self._from_peers = self._counter(
            "peer_received_bytes",
            "Bytes of models received from agents of other nodes, repeated ones included, by the "
            "scheme of the model's URI.",
            ["scheme"],
        )
        self._to_peers = self._counter(
            "peer_sent_bytes", "Bytes of models sent to agents of other nodes."
        )
        self._lies = self._counter(
            "peers_left_out",
            "Times that an agent of another node was left out for ten minutes, since it had sent "
            "wrong bytes of a file.",
        )
        self._downloads = self._counter(
            "downloads",
            "Attempts at downloads that have ended, by the scheme of the model's URI and by "
            "result: published (the copy is there, or was repaired), failed, or cancelled (no "
            "entry wants the model now, or the model is larger than expected and does not fit).",
            ["scheme", "result"],
        )
        self._failures = self._counter(
            "download_failures",
            "Attempts at downloads that have failed, by the reason that the status has.",
            ["reason"],
        )
        self._seconds = self._histogram(
            "download_seconds",
            "How long the download of a whole model took until its publication: the time of all "
            "attempts since the last success or the agent's start, without the waits between.",
            SECONDS,
        )
        self._sizes = self._histogram(
            "download_size_bytes", "Sizes of the models that were downloaded whole.", BYTES
        )
        self._evictions = self._counter(
            "evictions", "Copies that were evicted, by reason.", ["reason"]
        )
        self._evicted = self._counter(
            "evicted_bytes", "Bytes of the disk that evicted copies took, by reason.", ["reason"]
        )
        self._removals = self._counter(
            "removals", "Copies that were removed since no entry wants the model."
        )
        self._adoptions = self._counter(
            "adoptions", "Folders of other programs that became copies, verified by the agent."
        )
        self._starts = self._counter(
            "pod_starts",
            "Pods that began to use a model while the agent ran, by whether the copy was there "
            "already: warm or cold. A pod that uses two models counts twice.",
            ["copy"],
        )
        self._saved = self._counter(
            "saved_bytes",
            "Bytes that pods did not have to download: the sizes of the models of warm starts.",
        )
        self._corrupt = self._counter(
            "corrupt_files",
            "Files of published copies that were found to be missing, damaged or unreadable.",
        )
        self._scrubbed = self._counter(
            "scrubbed_bytes", "Bytes of published copies that were read to find damage."
        )
        self._steps = self._histogram(
            "step_seconds", "How long a step of the agent's control loop took.", STEP_SECONDS
        )
        self._requests = self._counter(
            "api_requests",
            "Requests to the API server, watches included, by the HTTP status of the answer; "
            "none: there was no answer.",
            ["code"],
        )
        self._make_bounded_series()

    def follow(
        self, latest: Callable[[], Snapshot | None], is_writable: Callable[[], bool]
    ) -> None:
        """Derive all states from the loop's last snapshot, and from a probe of the disk.

        Called when the agent starts, which is the time of its last step until there was one.
        """
        self.registry.register(_States(latest, is_writable, time.time()))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    # Counts

    def received(self, scheme: str, size: int) -> None:
        """See Counts."""
        self._received.labels(_bounded(scheme)).inc(size)

    def received_from_peers(self, scheme: str, size: int) -> None:
        """See Counts."""
        self._from_peers.labels(_bounded(scheme)).inc(size)

    def sent_to_peers(self, size: int) -> None:
        """See Counts."""
        self._to_peers.inc(size)

    def peer_lied(self) -> None:
        """See Counts."""
        self._lies.inc()

    def published(self, scheme: str) -> None:
        """See Counts."""
        self._downloads.labels(_bounded(scheme), "published").inc()

    def downloaded(self, size: int, seconds: float) -> None:
        """See Counts."""
        self._sizes.observe(size)
        self._seconds.observe(seconds)

    def failed(self, scheme: str, kind: FailureKind) -> None:
        """See Counts."""
        self._downloads.labels(_bounded(scheme), "failed").inc()
        self._failures.labels(kind.value).inc()

    def cancelled(self, scheme: str) -> None:
        """See Counts."""
        self._downloads.labels(_bounded(scheme), "cancelled").inc()

    def adopted(self) -> None:
        """See Counts."""
        self._adoptions.inc()

    def evicted(self, reason: EvictionReason, size: int) -> None:
        """See Counts."""
        self._evictions.labels(reason.value).inc()
        self._evicted.labels(reason.value).inc(size)

    def removed(self) -> None:
        """See Counts."""
        self._removals.inc()

    def pod_started(self, saved: int | None) -> None:
        """See Counts."""
        self._starts.labels("cold" if saved is None else "warm").inc()
        self._saved.inc(saved or 0)

    def damaged(self, files: int) -> None:
        """See Counts."""
        self._corrupt.inc(files)

    def scrubbed(self, size: int) -> None:
        """See Counts."""
        self._scrubbed.inc(size)

    def stepped(self, seconds: float) -> None:
        """See Counts."""
        self._steps.observe(seconds)

    def requested(self, code: int | None) -> None:
        """See Counts."""
        self._requests.labels(NO_ANSWER if code is None else str(code)).inc()

    # Metrics

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(PREFIX + name, text, labels or (), registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=buckets, registry=self.registry)

    def _make_bounded_series(self) -> None:
        """Make the series of reasons at once: `increase` does not see a series' first value."""
        for kind in FailureKind:
            self._failures.labels(kind.value)
        for reason in EvictionReason:
            self._evictions.labels(reason.value)
            self._evicted.labels(reason.value)
        for copy in ("warm", "cold"):
            self._starts.labels(copy)


class _States(Collector):
    """The states of a snapshot as gauges.

    Those that alerts need are there before the first step, which a disk may hold up for ever.
    """

    def __init__(
        self,
        latest: Callable[[], Snapshot | None],
        is_writable: Callable[[], bool],
        started_at: float,
    ) -> None:
        self._latest = latest
        self._is_writable = is_writable
        self._started_at = started_at

    def describe(self) -> tuple[()]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges."""
        snapshot = self._latest()
        failed = snapshot is not None and snapshot.table.disk_failure is not None
        yield _gauge("disk_writable", not failed and self._is_writable())
        yield _gauge("synced", snapshot is not None and snapshot.is_synced)
        stepped_at = reported_at = None
        if snapshot is not None:
            stepped_at, reported_at = snapshot.stepped_at, snapshot.reported_at
            yield from _of_models(snapshot)
            yield from _of_disk(snapshot)
            yield _conditions(snapshot)
        yield _gauge("last_step_timestamp_seconds", self._time(stepped_at))
        yield _gauge("last_report_timestamp_seconds", self._time(reported_at))

    def _time(self, at: datetime | None) -> float:
        return self._started_at if at is None else at.timestamp()


def _of_models(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    models = STATES["models"].family()
    states = snapshot.states
    for state in ModelState:
        models.add_metric([state.value.lower()], states[state])
    yield models
    yield _gauge("models_bytes", snapshot.models_bytes)
    yield _gauge("downloads_active", snapshot.active)
    yield _gauge("downloads_waiting", len(snapshot.waiting))
    yield _gauge("waiting_pods", snapshot.waiting_pods)


def _of_disk(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    disk = snapshot.table.disk
    yield _gauge("disk_capacity_bytes", disk.capacity)
    yield _gauge("disk_used_bytes", disk.used)
    yield _gauge("disk_available_bytes", disk.available)


def _conditions(snapshot: Snapshot) -> GaugeMetricFamily:
    conditions = STATES["condition"].family()
    for condition in snapshot.conditions:
        conditions.add_metric([condition.type, condition.status], 1)
    return conditions


def _gauge(name: str, value: float) -> GaugeMetricFamily:
    family = STATES[name].family()
    family.add_metric([], float(value))
    return family


def _bounded(scheme: str) -> str:
    return scheme if scheme in SCHEMES else OTHER
