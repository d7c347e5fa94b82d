"""An agent's loop with its own disk, origin and fake API server."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.node_api import ApiUnavailableError
from agent.commands.assemble import own_credentials
from agent.control.loop import Loop
from agent.disk.store import Store
from agent.engine.engine import Engine
from agent.jobs.workers import Fetching
from agent.sources import Sources
from agent.sources.http import HttpSource
from agent.sources.transport import Transports
from agent.structs.options import Options
from crds.keys import model_key
from tests.unit.agent import inside
from tests.unit.agent.helpers import local_model, node_object, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.cluster.events import NodeEvent, PodEvent
    from agent.cluster.pod_mounts import PodUse
    from agent.commands.peers import ClusterPeers
    from agent.control.pod_usage import PodSource
    from agent.control.startup_taint import StartupTaint
    from agent.jobs.workers import Task
    from agent.structs.credentials import Credentials
    from agent.structs.requests import Requester
    from crds.node import LocalModel, LocalModelNodeGroupRef
    from tests.unit.agent.servers import Server, WebFiles

DATA = b"weights" * 100_000
GRACE = 60.0


class FakeApi:
    """A NodeApi with the LocalModelNode in memory. `down` makes each call fail."""

    def __init__(self) -> None:
        self.node: dict[str, Any] | None = None
        self.down = False
        self.version = 0
        self.reads = 0
        self.writes: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any] | None:
        self.reads += 1
        if self.down:
            raise ApiUnavailableError("connection refused")
        return copy.deepcopy(self.node)

    def write_status(self, version: str, status: dict[str, Any]) -> dict[str, Any] | None:
        if self.down:
            raise ApiUnavailableError("connection refused")
        if self.node is None or self.node["metadata"]["resourceVersion"] != version:
            return None
        self.writes.append(status)
        self.store({**self.node, "status": status})
        return copy.deepcopy(self.node)

    def store(self, node: dict[str, Any]) -> None:
        """Store this object with a new resourceVersion."""
        self.version += 1
        self.node = copy.deepcopy(node)
        self.node["metadata"]["resourceVersion"] = str(self.version)

    def watch(
        self, observe: Callable[[dict[str, Any] | None], None], stopped: threading.Event
    ) -> None:
        observe(copy.deepcopy(self.node))
        stopped.wait()


class PodLog:
    """A PodSink in memory."""

    def __init__(self) -> None:
        self.events: list[PodEvent] = []
        self.woken: list[str] = []

    def tell(self, event: PodEvent) -> None:
        self.events.append(event)

    def cached(self, pod: PodUse) -> None:
        self.woken.append(pod.name)


class World:
    """A loop whose clock advances only when `step` is called with seconds."""

    def __init__(
        self,
        root: Path,
        web: WebFiles,
        server: Server,
        *,
        sources: Sources | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.web, self.url = web, server.url
        http = HttpSource(Transports(max_connections=2))
        self.sources = sources or Sources({"http": http})
        # An engine's threads never end: tests that make many worlds share one engine.
        self.engine = engine or Engine()
        self.server = server
        self.root = root
        self.seconds = 1000.0
        self.api = FakeApi()
        self.store = Store(root)
        self.credentials: Callable[[Requester], Credentials] = lambda _: own_credentials()
        self.groups: tuple[LocalModelNodeGroupRef, ...] = ()
        # None: the loop does not watch pods.
        self.pods: PodSource | None = None
        self.events: list[NodeEvent] = []
        # Of the next loop that `begin` makes.
        self.startup_taint: StartupTaint | None = None
        # What waiting pods are told, and the names of those that are let start.
        self.pod_sink = PodLog()
        # The scrub rate of the next loop that `begin` makes.
        self.scrub_rate: int | None = None
        # The options of the next agent that differ from the usual ones.
        self.options: dict[str, Any] = {}
        # Seconds by which somebody set the wall clock forward.
        self.clock_set = 0.0
        # Of the next loop that `begin` makes.
        self.peers: ClusterPeers | None = None
        self.begin()

    def begin(self) -> None:
        """Open the store and make the loop, as a start of the agent does."""
        self.store.open()
        self.store.recover()
        self.loop = Loop(
            self.api,
            self.store,
            Fetching(
                self.sources,
                self.engine,
                self._credentials_of,
                self.peers.group if self.peers else None,
            ),
            replace(
                Options(
                    scrub_bytes_per_second=self.scrub_rate,
                    grace=GRACE,
                    progress=15.0,
                    monotonic=lambda: self.seconds,
                    now=self.now,
                    jitter=lambda: 0.0,
                ),
                **self.options,
            ),
            pods=self.pods,
            events=self,
            startup_taint=self.startup_taint,
            pod_sink=self.pod_sink,
            peers=self.peers,
        )

    def about(self, uid: str) -> None:
        """Ignore the uid of the events' object."""

    def tell(self, event: NodeEvent) -> None:
        self.events.append(event)

    def _credentials_of(self, requester: Requester) -> Credentials:
        return self.credentials(requester)

    def now(self) -> datetime:
        """The wall clock's time."""
        return datetime(2026, 8, 1, tzinfo=UTC) + timedelta(seconds=self.seconds + self.clock_set)

    def restart(self) -> None:
        # The end of a process ends its threads; here the old downloads have to be cancelled.
        for task in inside.tasks(self.loop).values():
            task.cancelled.set()
        names = {f"download-{key}" for key in self.active()}
        for thread in threading.enumerate():
            if thread.name in names:
                thread.join(30)
        self.store.close()
        self.begin()

    def active(self) -> list[str]:
        """The keys of the downloads that run."""
        return list(inside.tasks(self.loop))

    def download(self, name: str) -> Task:
        """The running download of a model."""
        return inside.tasks(self.loop)[self.key(name)]

    def checking(self) -> int:
        """How many checks of access are under way."""
        return inside.checks(self.loop).running

    def is_reading(self) -> bool:
        """Whether a published copy is being read."""
        return inside.is_reading(self.loop)

    def model(self, name: str, **fields: Any) -> LocalModel:
        return local_model(name, f"{self.url}/{name}.bin", **fields)

    def key(self, name: str) -> str:
        return model_key(f"{self.url}/{name}.bin")

    def tree(self, name: str) -> dict[str, bytes] | None:
        return tree(self.store, self.key(name))

    def want(self, *models: LocalModel, uid: str = "uid-1", told: bool = True) -> None:
        """Store a LocalModelNode with these entries; the loop observes it, if `told`."""
        generation = (self.api.node or {}).get("metadata", {}).get("generation", 0) + 1
        status = (self.api.node or {}).get("status", {})
        self.api.store(
            node_object(*models, uid=uid, generation=generation, groups=self.groups, status=status)
        )
        if told:
            self.loop.observe(copy.deepcopy(self.api.node))

    def vanish(self) -> None:
        self.api.node = None
        self.loop.observe(None)

    def step(self, seconds: float = 0.0) -> float:
        """Advance the clock and run one step of the loop. Returns when the loop wakes next."""
        self.seconds += seconds
        self.loop.wait(self.seconds)
        return self.loop.step()

    def settle(self) -> None:
        """Step until no download and no access check runs, no step is due, and no copy is to go."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            wake_at = self.step()
            is_working = self.active() or self.checking()
            if not is_working and wake_at > self.seconds and not self._pass_notices():
                return
            time.sleep(0.002)
        pytest.fail("the loop does not settle")

    def _pass_notices(self) -> bool:
        """Advance the clock to the next eviction that was reported, if there is one."""
        next_at = inside.state(self.loop).notices.next_after(self.seconds)
        if next_at is None:
            return False
        self.seconds = next_at
        return True

    def settle_until(self, done: Callable[[], bool]) -> None:
        """Step until `done` returns true."""
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline, "the condition does not become true"
            self.step()
            self._pass_notices()
            time.sleep(0.002)

    def status(self) -> dict[str, Any]:
        assert self.api.node is not None
        status: dict[str, Any] = self.api.node["status"]
        return status

    def states(self) -> dict[str, str]:
        return {model["name"]: model["state"] for model in self.status().get("models", [])}
