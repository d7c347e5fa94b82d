"""Runs an agent on the disk of the scenario, from its start until the disk is as expected."""

from __future__ import annotations

import queue
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cluster.pod_mounts import PodMounts
from agent.commands import logs
from agent.control.loop import Loop
from agent.disk.on_disk import Found
from agent.disk.root import StoreError
from agent.disk.store import Store
from agent.disk.watch import RESCAN_SECONDS, open_store
from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.jobs.workers import Fetching
from agent.structs.failures import FailureKind
from agent.structs.options import Options
from crds.eviction import EvictionPolicy, EvictionSettings
from crds.node import LocalModelNodeGroupRef
from crds.states import ModelState
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

    from agent.disk.on_disk import OnDisk
    from tests.faults.calls import Call
    from tests.faults.scenario import Scenario

GRACE = 60.0
# Seconds of the agent's clock: longer than any backoff after a few failures.
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
    """The loop, with a clock that jumps ahead while no job runs. It ends in the final state."""

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
            # The state must be the same after a rescan of the disk.
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
        reported = {model["key"]: model for model in status.get("models", ())}
        here = {
            key
            for key, copy in inside.inventory(self).copies.items()
            if copy.found is not Found.NOTHING and not self._is_only_asked(key, copy)
        }
        return (
            here == self._wanted
            and reported.keys() == self._wanted | self._blocked | self._evicted
            and all(reported[key]["state"] == ModelState.DOWNLOADED for key in self._wanted)
            and all(reported[key].get("hash") for key in self._wanted)
            and all(reported[key].get("reason") == BLOCKED for key in self._blocked)
            # If the record of the eviction could not be written, the model waits for room.
            and all(reported[key]["state"] in GONE for key in self._evicted)
            and all(map(self._is_read, self._wanted))
        )

    def _is_only_asked(self, key: str, copy: OnDisk) -> bool:
        """Whether the size of a model that does not fit is known, and no byte of it is staged."""
        return key in self._evicted and copy.found is Found.STAGED and not copy.staged_bytes

    def _is_read(self, key: str) -> bool:
        """Whether this agent has verified all files of a copy."""
        copy, now = inside.inventory(self).copy(key), self._clock.now()
        last = inside.scrubbing(self)._last(key, copy, now)
        return last is not None and last >= self._began


class _Api(FakeApi):
    """A NodeApi whose watch reports nothing: the loop observes the object before it runs."""

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
    send: Callable[[object], None],
    *,
    horizon: float = HORIZON,
) -> None:
    """Run an agent on a root until the disk is as expected, or nothing changes any more.

    Sends the losses after each call that changes something that pods see, the call that fails, and
    at last the number of calls that the fault could have met.
    """
    logs.configure("json")
    root = Path(calls.root)
    disk = scenario.disk(root)

    def look(keys: set[str] | None = None) -> None:
        for loss in disk.losses(keys):
            send({"lost": loss.size, "what": loss.what})

    def before(call: Call) -> None:
        look()
        send({"struck": str(call).replace(str(root), "")})

    def after(call: Call) -> None:
        seen = seen_keys(calls.root, call.path, call.target)
        if seen:
            look(seen)

    calls.before, calls.after = before, after
    with watched(calls):
        ended = _live(scenario, root, horizon)
    send({"met": calls.met, "ended": ended})


def seen_keys(root: str, *paths: str) -> set[str]:
    """The keys of the models whose published folders or views these paths are, or are below."""
    below = (path[len(root) + 1 :].split("/", 2) for path in paths if path.startswith(f"{root}/"))
    # No pod sees the hidden folders in volumes/.
    return {
        place[1]
        for place in below
        if len(place) > 1 and place[0] in {"models", "volumes"} and place[1][:1] not in {"", "."}
    }


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
    store = Store(root, makes_views=True)
    try:
        open_store(store)
        fetching = Fetching(scenario.sources, Engine(Limits(CONNECTIONS)), lambda _: credentials)
        loop = _Quick(api, store, fetching, options, pods=NoPods(lambda: loop))
    except (StoreError, OSError) as error:
        # As in the command: the agent ends and is started again.
        sys.stderr.write(f"cannot start: {error}\n")
        return "cannot start"
    loop.begin(scenario, clock, horizon)
    loop.observe(api.read())
    mounts = frozenset(keys_of(scenario.mounted))
    loop.observe_pods((PodMounts("team", "server", frozenset(), mounts),))
    loop.run()
    return "done" if loop.done else "not done"
