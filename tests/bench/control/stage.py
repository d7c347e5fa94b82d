"""A cluster for one row: no agents, the hooks of a checkout, and their calls in a log."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import requests

from deploy.local import identities, nodes, product
from deploy.local.cluster import Cluster
from deploy.local.overlay import BASE
from deploy.local.users import AGENT
from deploy.local.waiting import wait_until
from tests.bench.control.counters import ACCESS_FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.local.product import MetacontrollerChoice

_READY_SECONDS = 30.0
_MAKERS = 8
_IDLE_SECONDS = 3.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Stage:
    """A cluster that runs, and the log of the hooks' calls."""

    cluster: Cluster
    access_log: Path

    @property
    def log(self) -> Path:
        """Metacontroller's."""
        return self.cluster.layout.log(product.META)

    @property
    def metacontroller(self) -> str:
        """Which one runs: the real one, with its version as far as it tells it, or the stand-in."""
        program = self.cluster.state.metacontroller
        return "a stand-in in Python" if program is None else "the real one"

    def make_nodes(self, count: int) -> None:
        """Make the Nodes."""
        make = partial(nodes.register, self.cluster.api, labels=None)
        with ThreadPoolExecutor(_MAKERS) as pool:
            try:
                list(pool.map(lambda name: make(name=name), nodes.node_names(count)))
            except BaseException:
                # On Ctrl-C, nobody waits for the others.
                pool.shutdown(cancel_futures=True)
                raise

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no hook has been called for some seconds. Whether that was in time."""
        until = time.monotonic() + seconds
        last, since = self.size(), time.monotonic()
        while time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            now = self.size()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= _IDLE_SECONDS:
                return True
        return False

    def size(self) -> int:
        """Of the log of the hooks' calls."""
        return self.access_log.stat().st_size if self.access_log.exists() else 0


@contextmanager
def stage(
    folder: Path, hooks_checkout: Path, metacontroller: MetacontrollerChoice = "auto"
) -> Iterator[Stage]:
    """A cluster that is stopped at the end, without a trace."""
    cluster = Cluster(folder)
    try:
        cluster.up(
            nodes=0,
            metacontroller=metacontroller,
            # One program writes the statuses of all nodes, which the policies do not allow.
            overlay=BASE,
            run_agents=False,
            owner_pid=os.getpid(),
        )
        agents = cluster.layout.user_kubeconfig(AGENT.account)
        identities.write(agents, cluster.api, AGENT, authority=cluster.layout.certificate)
        found = Stage(cluster, cluster.logs_dir / "access.log")
        _use_hooks(found, hooks_checkout)
        yield found
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


def _use_hooks(found: Stage, checkout: Path) -> None:
    """Run the hooks of a checkout, in the place of those that the cluster came with."""
    cluster = found.cluster
    options = f"--access-logfile {found.access_log} --access-logformat '{ACCESS_FORMAT}'"
    before = cluster.pid(product.HOOKS)
    process = product.hooks(cluster.state.ports, {"GUNICORN_CMD_ARGS": options})
    cluster.run(product.HOOKS, replace(process, cwd=str(checkout)))
    cluster.wait_for_pid(product.HOOKS, after=before)
    with requests.Session() as web:
        web.trust_env = False

        def answers() -> bool:
            try:
                return web.get(f"{cluster.hooks_url}/readyz", timeout=2).ok
            except requests.RequestException:
                return False

        wait_until(answers, "the hooks", seconds=_READY_SECONDS)
