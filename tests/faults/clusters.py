"""A local cluster for faults."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deploy.local import build
from deploy.local.cluster import Cluster
from deploy.local.console import Console
from tests.e2e.world import GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def running(folder: Path, nodes: int, part: str, **options: Any) -> Iterator[Cluster]:
    """Start a cluster in a new folder, with options of Cluster.up, and stop it at the end."""
    build.ensure_kube(Console(sys.stderr))
    cluster = Cluster(folder)
    try:
        sys.stderr.write(f"{part}: starting\n")
        cluster.up(
            nodes,
            grace_seconds=GRACE_SECONDS,
            progress_seconds=1,
            owner_pid=os.getpid(),
            **options,
        )
        yield cluster
    finally:
        cluster.down()
