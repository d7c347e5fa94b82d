"""Metrics of the hooks' calls, at `/metrics` in Prometheus' text format.

gunicorn's workers share the folder that PROMETHEUS_MULTIPROC_DIR names (hooks/gunicorn_conf.py),
and each answer has the sums of all workers. A worker's files are named after its slot and not after
its process: a worker that replaces a dead one goes on with the same files, so that their number is
bounded. Labels are bounded by the routes of the app and by the statuses that a hook answers.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from crds.version import __version__

SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
SLOT_VARIABLE = "LOCALMODEL_HOOKS_WORKER_SLOT"
CONTENT_TYPE = CONTENT_TYPE_LATEST

if SHARED_DIR in os.environ:
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: os.environ.get(SLOT_VARIABLE, "master")
    )

# Requests of a node have some KiB, those of a group of 1000 nodes 20 MiB.
_SIZES = (1e3, 1e4, 1e5, 1e6, 5e6, 1e7, 2e7, 5e7, 1e8)

# A Gauge: an Info has no form that several workers share.
_BUILD = Gauge(
    "localmodel_hook_build_info",
    "1, with the version of the hooks.",
    ["version"],
    multiprocess_mode="max",
)
_CALLS = Counter(
    "localmodel_hook_calls",
    "Calls of a hook, by the status of the answer; refused calls do not count.",
    ["hook", "code"],
)
_REFUSED = Counter(
    "localmodel_hook_refused", "Calls of a hook without the token that the hooks ask for.", ["hook"]
)
_REQUESTS = Histogram(
    "localmodel_hook_request_size_bytes", "Size of a request of a hook.", ["hook"], buckets=_SIZES
)
_RESPONSES = Histogram(
    "localmodel_hook_response_size_bytes", "Size of an answer of a hook.", ["hook"], buckets=_SIZES
)
_WORK = Histogram(
    "localmodel_hook_work_seconds",
    "Time that a hook worked for an answer, without the delay of the answer.",
    ["hook"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30),
)
_LATE = Counter(
    "localmodel_hook_late",
    "Answers that took more than half of the time that Metacontroller gives the hook.",
    ["hook"],
)


def record(
    hook: str,
    code: int,
    work_seconds: float,
    *,
    request_bytes: int,
    response_bytes: int,
    late: bool,
) -> None:
    """Count a call. hook: its path."""
    _CALLS.labels(hook, str(code)).inc()
    _REQUESTS.labels(hook).observe(request_bytes)
    _RESPONSES.labels(hook).observe(response_bytes)
    _WORK.labels(hook).observe(work_seconds)
    if late:
        _LATE.labels(hook).inc()


def refuse(hook: str) -> None:
    """Count a refused call. hook: its path."""
    _REFUSED.labels(hook).inc()


def exposition() -> bytes:
    """The metrics of all workers."""
    _BUILD.labels(__version__).set(1)
    if SHARED_DIR not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
