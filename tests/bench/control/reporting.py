"""The reporter, seen from the benchmark: a process that writes for all nodes."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local.layout import CHECKOUT
from deploy.local.users import AGENT
from tests.bench.control.reporter import SPECS, STATUSES, Done, Job
from tests.bench.running import BenchError, FailedError, worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.local.cluster import Cluster
    from tests.bench.control.settings import Settings
    from tests.bench.control.tracking import Version
    from tests.bench.running import Worker

# How often an agent reports a download that goes on.
PROGRESS_SECONDS = 15.0
# What a job may take beside its own limit, for its last calls.
_SPARE_SECONDS = 90.0


@dataclass(frozen=True)
class Reporter:
    """Writes to one cluster."""

    worker: Worker
    cluster: Cluster
    settings: Settings

    def specs(self, versions: Mapping[str, Version]) -> Done:
        """Apply whole LocalModelNodes, as an administrator."""
        return self._do(SPECS, str(self.cluster.kubeconfig), versions)

    def statuses(self, versions: Mapping[str, Version]) -> Done:
        """Report for all agents at once that everything is here."""
        return self._do(STATUSES, self._agents, versions)

    def progress(self, versions: Mapping[str, Version], share: float) -> Done:
        """Report downloads that go on: each agent at its own time."""
        return self._do(STATUSES, self._agents, versions, share=share, spread=PROGRESS_SECONDS)

    @property
    def _agents(self) -> str:
        return str(self.cluster.layout.user_kubeconfig(AGENT.account))

    def _do(
        self,
        what: str,
        kubeconfig: str,
        versions: Mapping[str, Version],
        *,
        share: float = 1.0,
        spread: float = 0.0,
    ) -> Done:
        settings = self.settings
        job = Job(
            what=what,
            kubeconfig=kubeconfig,
            models=settings.models,
            versions=dict(versions),
            connections=settings.connections,
            limit=settings.timeout,
            share=share,
            spread=spread,
        )
        try:
            answer = self.worker.ask(job.to_json(), settings.timeout + _SPARE_SECONDS)
        except FailedError as error:
            raise BenchError(f"the reporter failed: {error}") from None
        return Done.from_json(answer)


@contextmanager
def reporter(cluster: Cluster, settings: Settings) -> Iterator[Reporter]:
    """A reporter that is ready."""
    argv = [sys.executable, "-m", "tests.bench.control.reporter"]
    with worker(argv, {"PYTHONPATH": str(CHECKOUT)}, settings.work) as process:
        yield Reporter(process, cluster, settings)
