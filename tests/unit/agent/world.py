"""A loop with a disk, an origin and an API server of its own."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from localmodel.agent.cluster.node_api import ApiUnavailableError
from localmodel.agent.control.loop import Loop
from localmodel.agent.disk.store import Store
from localmodel.agent.engine.engine import Engine
from localmodel.agent.jobs.workers import Fetching
from localmodel.agent.sources import Sources
from localmodel.agent.sources.http import HttpSource
from localmodel.agent.sources.transport import Transports
from localmodel.agent.structs.options import Options
from localmodel.crds.keys import model_key
from tests.unit.agent import inside
from tests.unit.agent.helpers import local_model, node_object, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localmodel.agent.cluster.events import NodeEvent
    from localmodel.agent.control.pod_usage import PodSource
    from localmodel.agent.jobs.workers import Task
    from localmodel.agent.structs.credentials import Credentials
    from localmodel.agent.structs.requests import Requester
    from localmodel.crds.node import LocalModel, LocalModelNodeGroupRef
    from tests.unit.agent.servers import Server, WebFiles

DATA = b"weights" * 100_000
GRACE = 60.0


class FakeApi:
    """The LocalModelNode in memory. `down` makes each call fail."""

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
        """The object gets this form, and a new version."""
        self.version += 1
        self.node = copy.deepcopy(node)
        self.node["metadata"]["resourceVersion"] = str(self.version)

    def watch(
        self, observe: Callable[[dict[str, Any] | None], None], stopped: threading.Event
    ) -> None:
        observe(copy.deepcopy(self.node))
        stopped.wait()


class World:
    """A loop whose clock stands still until it is told to go on."""

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
        # Each has threads that stay: where many worlds come and go, they share one.
        self.engine = engine or Engine()
        self.server = server
        self.root = root
        self.seconds = 1000.0
        self.api = FakeApi()
        self.store = Store(root)
        self.credentials: Callable[[Requester], Credentials | None] = lambda _: None
        self.groups: tuple[LocalModelNodeGroupRef, ...] = ()
        # Who watches the pods; None: the node has none.
        self.pods: PodSource | None = None
        self.events: list[NodeEvent] = []
        # Taken over by the next agent that begins.
        self.scrub_rate: int | None = None
        # What else differs from the usual options of an agent, for the next one that begins.
        self.options: dict[str, Any] = {}
        # By how much the wall clock was set.
        self.clock_set = 0.0
        self.begin()

    def begin(self) -> None:
        """An agent starts."""
        self.store.open()
        self.store.recover()
        self.loop = Loop(
            self.api,
            self.store,
            Fetching(self.sources, self.engine, self._credentials_of),
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
        )

    def about(self, uid: str) -> None:
        """The events are about this object."""

    def tell(self, event: NodeEvent) -> None:
        self.events.append(event)

    def _credentials_of(self, requester: Requester) -> Credentials | None:
        return self.credentials(requester)

    def now(self) -> datetime:
        """The wall clock's time."""
        return datetime(2026, 8, 1, tzinfo=UTC) + timedelta(seconds=self.seconds + self.clock_set)

    def restart(self) -> None:
        # A process takes its threads with it: here they would work on beside the next one's.
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
        """The API server has this list; the agent's watch tells so, unless not `told`."""
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
        """Time goes on, and the loop takes in what has happened. Returns when it wakes next."""
        self.seconds += seconds
        self.loop.wait(self.seconds)
        return self.loop.step()

    def settle(self) -> None:
        """Step until no download and no check runs, and nothing is left to do at this moment."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            wake_at = self.step()
            is_working = self.active() or self.checking()
            if not is_working and wake_at > self.seconds:
                return
            time.sleep(0.002)
        pytest.fail("it does not settle")

    def settle_until(self, done: Callable[[], bool]) -> None:
        """Step until this is so."""
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline, "it does not come to that"
            self.step()
            time.sleep(0.002)

    def status(self) -> dict[str, Any]:
        assert self.api.node is not None
        status: dict[str, Any] = self.api.node["status"]
        return status

    def states(self) -> dict[str, str]:
        return {model["name"]: model["state"] for model in self.status().get("models", [])}
