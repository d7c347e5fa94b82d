"""An agent's life on the disk of the scenario, from its start until all is done."""

from __future__ import annotations

import queue
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from localmodel.agent.cluster.pods import PodMounts
from localmodel.agent.commands import logs
from localmodel.agent.control.loop import Loop
from localmodel.agent.disk.on_disk import Found
from localmodel.agent.disk.root import StoreError
from localmodel.agent.disk.store import Store
from localmodel.agent.disk.watch import RESCAN_SECONDS, open_store
from localmodel.agent.engine.engine import Engine
from localmodel.agent.engine.limits import Limits
from localmodel.agent.jobs.workers import Fetching
from localmodel.agent.structs.failures import FailureKind
from localmodel.agent.structs.options import Options
from localmodel.crds.eviction import EvictionPolicy, EvictionSettings
from localmodel.crds.node import LocalModelNodeGroupRef
from localmodel.crds.states import ModelState
from tests.faults import origin
from tests.faults.calls import Calls, watched
from tests.faults.scenario import CONNECTIONS, PATIENCE, SMALL, SMALL_BYTES, keys_of
from tests.unit.agent import inside
from tests.unit.agent.crowded import NoPods
from tests.unit.agent.helpers import local_model, node_object
from tests.unit.agent.world import FakeApi

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from localmodel.agent.disk.on_disk import OnDisk
    from tests.faults.calls import Call
    from tests.faults.scenario import Scenario

GRACE = 60.0
# Seconds of the agent's clock: longer than any back-off of a few failures.
HORIZON = 1800.0
BUSY_SECONDS = 0.2
GONE = {ModelState.EVICTED, ModelState.PENDING}
BLOCKED = FailureKind.FOREIGN_DIRECTORY
_SMALL_GROUP = LocalModelNodeGroupRef(
    name=SMALL,
    storage_limit=str(SMALL_BYTES),
    eviction=EvictionSettings(policy=EvictionPolicy.LRU, high_percent=100, low_percent=100),
)


class _Quick(Loop):
    """The loop, whose clock jumps ahead while nothing is under way. It ends when all is done."""

    def begin(self, scenario: Scenario, clock: _Clock, horizon: float) -> None:
        self._clock, self._horizon = clock, clock.seconds + horizon
        self._wanted = keys_of(scenario.wanted)
        self._blocked = keys_of(scenario.blocked)
        self._evicted = keys_of(scenario.evicted)
        self._began = clock.now()
        self._deadline = time.monotonic() + PATIENCE
        self._seen_at: float | None = None
        self.done = False

    def wait(self, until: float) -> None:
        clock = self._clock
        if inside.tasks(self) or inside.is_reading(self):
            with suppress(queue.Empty):
                self._observe(self._events.get(timeout=BUSY_SECONDS))
        elif self._is_done() and self._seen_at is None:
            # It must stay so when the disk is looked at again.
            self._seen_at = clock.seconds
            clock.seconds += RESCAN_SECONDS
        elif self._is_done():
            self.done = True
            self.stop()
        else:
            self._seen_at = None
            clock.seconds = max(clock.seconds, until)
        if clock.seconds > self._horizon or time.monotonic() > self._deadline:
            self.stop()
        super().wait(clock.seconds)

    def _is_done(self) -> bool:
        status = (self._api.node or {}).get("status", {})  # type: ignore[attr-defined]
        told = {model["key"]: model for model in status.get("models", ())}
        here = {
            key
            for key, copy in inside.inventory(self).copies.items()
            if copy.found is not Found.NOTHING and not self._is_only_asked(key, copy)
        }
        return (
            here == self._wanted
            and told.keys() == self._wanted | self._blocked | self._evicted
            and all(told[key]["state"] == ModelState.DOWNLOADED for key in self._wanted)
            and all(told[key].get("hash") for key in self._wanted)
            and all(told[key].get("reason") == BLOCKED for key in self._blocked)
            # Where it could not be noted that it was evicted, it waits as any that does not fit.
            and all(told[key]["state"] in GONE for key in self._evicted)
            and all(map(self._is_read, self._wanted))
        )

    def _is_only_asked(self, key: str, copy: OnDisk) -> bool:
        """Whether a model that does not fit is known from its source, and no byte of it is here."""
        return key in self._evicted and copy.found is Found.STAGED and not copy.staged_bytes

    def _is_read(self, key: str) -> bool:
        """Whether all files of a copy are known to be good in this life."""
        copy, now = inside.inventory(self).copy(key), self._clock.now()
        last = inside.scrubbing(self)._last(key, copy, now)
        return last is not None and last >= self._began


class _Api(FakeApi):
    """Its one version is told before the loop runs: a second time could come too late."""

    def watch(self, _observe: object, stopped: threading.Event) -> None:
        stopped.wait()


@dataclass
class _Clock:
    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 8, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


def run_agent(
    scenario: Scenario,
    calls: Calls,
    tell: Callable[[object], None],
    *,
    horizon: float = HORIZON,
) -> None:
    """An agent's life on a root, from its start until all is done, or nothing comes any more.

    Tells the losses that it sees after each call that changes something in models/, the call that
    is struck, and at last how many calls the fault could have met.
    """
    logs.configure("json")
    root, published = Path(calls.root), f"{calls.root}/models/"
    disk = scenario.disk(root)

    def look() -> None:
        for loss in disk.losses():
            tell({"lost": loss.size, "what": loss.what})

    def before(call: Call) -> None:
        look()
        tell({"struck": str(call).replace(str(root), "")})

    def after(call: Call) -> None:
        if call.path.startswith(published) or call.target.startswith(published):
            look()

    calls.before, calls.after = before, after
    with watched(calls):
        ended = _live(scenario, root, horizon)
    tell({"met": calls.met, "ended": ended})


def _live(scenario: Scenario, root: Path, horizon: float) -> str:
    clock, api = _Clock(), _Api()
    small = keys_of((*scenario.evicted, *scenario.referenced, *scenario.mounted))
    referenced = keys_of(scenario.referenced)
    entries = [
        local_model(
            model.name,
            model.uri,
            hash=model.hash,
            model_size=str(model.size),
            node_group=SMALL if model.key in small else "gpus",
            referenced=model.key in referenced,
        )
        for model in (*scenario.wanted, *scenario.evicted, *scenario.blocked)
    ]
    api.store(node_object(*entries, groups=[_SMALL_GROUP]))
    options = Options(
        grace=GRACE,
        max_downloads=2,
        monotonic=lambda: clock.seconds,
        now=clock.now,
        jitter=lambda: 0.0,
        scrub_bytes_per_second=1 << 30,
    )
    credentials = origin.settings(scenario.url)
    store = Store(root)
    try:
        open_store(store)
        fetching = Fetching(scenario.sources, Engine(Limits(CONNECTIONS)), lambda _: credentials)
        loop = _Quick(api, store, fetching, options, pods=NoPods(lambda: loop))
    except (StoreError, OSError) as error:
        # As the command does: it ends, and is started again.
        sys.stderr.write(f"cannot start: {error}\n")
        return "cannot start"
    loop.begin(scenario, clock, horizon)
    loop.observe(api.read())
    mounts = frozenset(keys_of(scenario.mounted))
    loop.observe_pods((PodMounts("team", "server", frozenset(), mounts),))
    loop.run()
    return "done" if loop.done else "not done"
