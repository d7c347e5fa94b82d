"""The row of a checkout's hooks: a group and its models come to nodes that are there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, LOCAL_MODEL_NODES
from deploy.local import nodes
from tests.bench.control import counters, names, objects
from tests.bench.control.figures import Value, limit
from tests.bench.control.follower import Follower
from tests.bench.control.measuring import Meter
from tests.bench.control.reporting import reporter
from tests.bench.control.tracking import Copies, Specs
from tests.bench.running import BenchError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from tests.bench.control.figures import Sample
    from tests.bench.control.measuring import Look
    from tests.bench.control.reporter import Done
    from tests.bench.control.reporting import Reporter
    from tests.bench.control.settings import Settings
    from tests.bench.control.stage import Stage
    from tests.bench.control.tracking import Version

MANAGER = "bench"
NEWCOMER = "node-that-joins"
# Of this length are the looks for the end of writing; there is an end to looking.
_LOOK_SECONDS = 5.0
_SETTLE_SECONDS = 60.0


@dataclass
class _Reports:
    """What the reporter did."""

    cpu: float = 0.0
    peak_bytes: int = 0
    conflicts: int = 0


@dataclass(frozen=True)
class _Wait:
    """What is waited for: how much there is of it, and in a word."""

    follower: Follower
    count: Callable[[], int]
    what: str


class Rollout:
    """One run on a stage."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        self._stage = stage
        self._settings = settings
        self._sample: Sample = {}
        self._reports = _Reports()
        self._specs = Specs()
        self._copies = Copies(settings.nodes)

    @property
    def _api(self) -> KubeClient:
        return self._stage.cluster.api

    def run(self) -> Sample:
        """Measure everything."""
        settings, stage = self._settings, self._stage
        stage.make_nodes(settings.nodes)
        if not stage.wait_until_idle(settings.timeout):
            raise BenchError(f"the hooks of {settings.nodes} new nodes do not come to an end")
        with reporter(stage.cluster, settings) as writer:
            self._nodes_follower = Follower(self._api, LOCAL_MODEL_NODES, self._specs)
            self._caches_follower = Follower(self._api, CACHES, self._copies)
            meter = Meter(stage)
            start = meter.look()
            self._place()
            placed = meter.look()
            self._count(writer)
            counted = meter.look()
            self._join()
            self._add_cache()
            end = meter.look()
            self._told(meter, start, placed, counted, end)
            self._rest(meter)
        return self._sample

    def _place(self) -> None:
        """The group and its models are applied, and each node gets its share of the plan."""
        settings = self._settings

        def act() -> float:
            began = time.monotonic()
            # Caches first: a group that comes before its caches makes a plan for each of them.
            for number in range(1, settings.models + 1):
                self._api.apply(objects.cache(number), manager=MANAGER)
            self._api.apply(objects.group(settings.models), manager=MANAGER)
            return began

        total = _Wait(self._nodes_follower, lambda: self._specs.total, "listed")
        self._time(names.SPECS, total, settings.nodes * settings.models, act)

    def _count(self, writer: Reporter) -> None:
        """Each agent reports that its models are here, and the caches count them."""
        settings = self._settings

        def act() -> float:
            versions: dict[str, Version] = self._nodes_follower.look(
                lambda: self._specs.complete(settings.models)
            )
            for number in range(settings.progress):
                share = (number + 1) / (settings.progress + 1)
                versions = self._add(writer.progress(versions, share)).versions
            return self._add(writer.statuses(versions)).began

        total = _Wait(self._caches_follower, lambda: self._copies.total, "counted")
        self._time(names.COUNTED, total, settings.nodes * settings.models, act)

    def _join(self) -> None:
        """One more node comes, to a fleet at rest."""

        def act() -> float:
            self._stage.wait_until_idle(self._settings.timeout)
            began = time.monotonic()
            nodes.register(self._api, NEWCOMER, None)
            return began

        its = _Wait(self._nodes_follower, lambda: self._specs.listed.get(NEWCOMER, 0), "listed")
        self._time(names.JOIN, its, self._settings.models, act)

    def _add_cache(self) -> None:
        """One more model comes, to all nodes and the one that joined."""
        models = self._settings.models + 1

        def act() -> float:
            self._stage.wait_until_idle(self._settings.timeout)
            began = time.monotonic()
            self._api.apply(objects.cache(models), manager=MANAGER)
            return began

        total = _Wait(self._nodes_follower, lambda: self._specs.total, "listed")
        self._time(names.CACHE, total, (self._settings.nodes + 1) * models, act)

    def _time(self, name: str, wait: _Wait, of: int, act: Callable[[], float]) -> None:
        """Do something, and measure from the time that it tells until there is enough."""
        goal = wait.follower.expect(lambda: wait.count() >= of)
        began = act()
        reached = goal.wait(began + self._settings.timeout)
        if reached is not None:
            self._sample[name] = Value(reached - began, "s")
        else:
            done = wait.follower.look(wait.count)
            self._sample[name] = limit(done, of, wait.what, time.monotonic() - began)

    def _add(self, done: Done) -> Done:
        self._reports.cpu += done.cpu
        self._reports.conflicts += done.conflicts
        self._reports.peak_bytes = max(self._reports.peak_bytes, done.peak_bytes)
        return done

    def _told(self, meter: Meter, start: Look, placed: Look, counted: Look, end: Look) -> None:
        """What all this has cost."""
        sample, reports = self._sample, self._reports
        to_specs = self._writes(start, placed)
        to_counted = self._writes(start, counted)
        agents = to_counted.pop(counters.AGENTS, 0)
        sample[names.WRITES_TO_SPECS] = Value(counters.accepted(to_specs))
        sample[names.WRITES_TO_COUNTED] = Value(counters.accepted(to_counted))
        for kind, count in sorted(to_counted.items()):
            sample[names.WRITES + kind] = Value(count)
        sample[names.AGENTS] = Value(agents)
        sample[names.CONFLICTS] = Value(reports.conflicts)
        calls = meter.calls(start, counted)
        for path, one in sorted(calls.items()):
            sample[names.CALLS + path] = Value(one.count)
            sample[names.BYTES + path] = Value(one.request_bytes / 1e6, "MB")
            sample[names.LARGEST + path] = Value(one.largest_bytes / 1e6, "MB")
            sample[names.SLOWEST + path] = Value(one.slowest_seconds, "s")
        failed = sum(one.failed for one in meter.calls(start, end).values())
        sample[names.FAILED] = Value(failed)
        sample[names.ERRORS] = Value(meter.errors(start, end))
        sample.update(meter.processes(start, counted, reports.cpu, reports.peak_bytes))

    def _writes(self, start: Look, end: Look) -> Counter[str]:
        """The writes of others than the benchmark, with those that it does for the agents."""
        found = counters.difference(end.writes, start.writes)
        found.subtract(
            {"APPLY localmodelcaches": self._settings.models, "APPLY localmodelnodegroups": 1}
        )
        return +found

    def _rest(self, meter: Meter) -> None:
        """Nothing happens any more, and so nobody should write."""
        until = time.monotonic() + _SETTLE_SECONDS
        before = meter.look()
        while time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            after = meter.look()
            if after.writes == before.writes:
                break
            before = after
        before = meter.look()
        time.sleep(self._settings.quiet)
        found = counters.difference(meter.look().writes, before.writes)
        self._sample[names.QUIET] = Value(counters.accepted(found))
        for kind, count in sorted(found.items()):
            self._sample[names.QUIET_WRITES + kind] = Value(count)
