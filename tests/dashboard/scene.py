"""A local cluster with origins and a Prometheus, for the load."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local.cluster import Cluster
from deploy.local.origin import S3Origin
from deploy.local.prometheus import Prometheus
from tests.dashboard.load import AGENT_ARGS, NODES
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

# Agents keep a copy that no entry requests for this long.
GRACE_SECONDS = 2.0
START_SECONDS = 60.0
# Of each node, but the crowded one.
DISK = "64Mi"


@dataclass(frozen=True)
class Scene:
    """A cluster with origins, and the Prometheus that scrapes it."""

    world: World
    prometheus: Prometheus


@contextmanager
def scene(folder: Path, every: float, rules: Sequence[dict[str, Any]]) -> Iterator[Scene]:
    """Start all of it in a folder. every: seconds between two scrapes."""
    cluster = Cluster(folder / "local")
    s3, http = S3Origin(), HttpOrigin()
    cluster.up(
        len(NODES),
        metacontroller="standin",
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        disk=DISK,
        agent_env=s3.agent_env(),
        agent_args=AGENT_ARGS,
        owner_pid=os.getpid(),
    )
    try:
        s3.start(cluster)
        prometheus = Prometheus(every)
        prometheus.start(cluster, rules)
        prometheus.wait_up(len(NODES) + 1, START_SECONDS)
        yield Scene(World(cluster, http, s3), prometheus)
    finally:
        cluster.down()
        http.close()
