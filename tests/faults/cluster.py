"""Part d: a local cluster whose processes are killed while caches are made and deleted."""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES, NODES
from deploy.local.controlplane import API_SERVER, ETCD
from deploy.local.errors import LocalError
from deploy.local.product import HOOKS, META, agent_name
from deploy.local.waiting import wait_until
from tests.e2e.world import GRACE_SECONDS, RETURN_SECONDS, World
from tests.faults import clusters, origin, watcher
from tests.faults.disk import Disk, Model
from tests.faults.report import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deploy.local.cluster import Cluster

PART = "cluster"
GROUPS = {"faults-a": ("node-1", "node-2"), "faults-b": ("node-2", "node-3")}
NODE_NAMES = sorted({node for nodes in GROUPS.values() for node in nodes})
# The processes that are killed, by their name in the table, and their relative frequency.
VICTIMS = {
    "an agent": 8,
    "the hooks": 4,
    "Metacontroller": 4,
    "the API server": 2,
    "etcd": 2,
}
FLAPS = "a node's group label is away"
_PROCESSES = {
    "the hooks": HOOKS,
    "Metacontroller": META,
    "the API server": API_SERVER,
    "etcd": ETCD,
}
MODELS = 10
BYTES_PER_SECOND = 2 << 20
# How long the API server may be unreachable for a call.
API_SECONDS = 90.0
FLAP_SECONDS = (0.5, 12.0)
PAUSE_SECONDS = (0.1, 1.2)
SHOW_SECONDS = 15.0


def run(work: Path, seed: int, seconds: float) -> list[Row]:
    """Inject faults for `seconds`, then wait until the cluster settles. Returns the results."""
    chance = random.Random(seed)
    sizes = [chance.choice((2000, 300_000, 2 << 20, 6 << 20)) for _ in range(MODELS)]
    web = {f"model-{n}.bin": origin.content(f"{seed}-{n}", size) for n, size in enumerate(sizes)}
    folder = work / "local"
    with origin.serve(web, {}, BYTES_PER_SECOND) as url:
        models = [
            Model(name.removesuffix(".bin"), f"{url}/{name}", {name: data})
            for name, data in web.items()
        ]
        eye = watcher.watch(folder / "nodes", models)
        try:
            with clusters.running(folder, len(NODE_NAMES), PART) as cluster:
                storm = _Storm(cluster, models, chance)
                storm.prepare()
                storm.rage(seconds)
                sys.stderr.write(f"{PART}: quiet\n")
                storm.settle()
                storm.take(eye.receive_all(0.5))
        finally:
            eye.end()
    return list(storm.rows.values())


class _Storm:
    """The faults and changes in a cluster, and the expected caches."""

    def __init__(self, cluster: Cluster, models: list[Model], chance: random.Random) -> None:
        # No origins of the end-to-end tests are needed.
        self._world = World(cluster, cast("Any", None), cast("Any", None))
        self._cluster, self._chance = cluster, chance
        self._models = {model.name: model for model in models}
        self._wanted: dict[str, str] = {}
        # Node and group, and when the label comes back (monotonic).
        self._off: dict[tuple[str, str], float] = {}
        self._problems: list[str] = []
        self._lost = 0
        self.rows = {
            name: Row(PART, name if name == FLAPS else f"SIGKILL of {name}")
            for name in (*VICTIMS, FLAPS)
        }

    def prepare(self) -> None:
        """Make groups, and some caches before the first fault."""
        for group, nodes in GROUPS.items():
            for node in nodes:
                self._world.node(node, group)
            self._world.group(group)
        for _ in range(3):
            self._add()
        for name in self._wanted:
            self._world.wait_ready(name, 2)

    def rage(self, seconds: float) -> None:
        """Do actions in a random order that depends on the seed."""
        deadline = time.monotonic() + seconds
        show_at = time.monotonic() + SHOW_SECONDS
        actions = (self._kill, self._add, self._remove, self._flap)
        while time.monotonic() < deadline:
            self._chance.choices(actions, (5, 4, 3, 2))[0]()
            self._bring_back(time.monotonic())
            time.sleep(self._chance.uniform(*PAUSE_SECONDS))
            if time.monotonic() > show_at:
                show_at = time.monotonic() + SHOW_SECONDS
                counts = ", ".join(f"{row.name} {row.injected}" for row in self.rows.values())
                sys.stderr.write(f"{PART}: {counts}; {len(self._wanted)} caches\n")

    def _kill(self) -> None:
        name = self._chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        process = _PROCESSES.get(name) or agent_name(
            self._chance.choice(("node-1", "node-2", "node-3"))
        )
        try:
            self._cluster.kill(process)
        except (LocalError, ProcessLookupError):
            # The process is dead already.
            return
        self.rows[name].injected += 1

    def _add(self) -> None:
        name = self._chance.choice(sorted(self._models.keys() - self._wanted.keys()) or [""])
        group = self._chance.choice(sorted(GROUPS))
        if not name or self._ask(lambda: self._world.find(CACHES, name)):
            # No name is free, or the former cache of that name is not gone yet.
            return
        model = self._models[name]
        self._ask(lambda: self._world.cache(name, model.uri, group, modelSize="8Mi"))
        self._wanted[name] = group

    def _remove(self) -> None:
        if not self._wanted:
            return
        name = self._chance.choice(sorted(self._wanted))
        del self._wanted[name]

        def delete() -> None:
            # The API server may have done a request whose response was lost.
            if self._world.find(CACHES, name) is not None:
                self._world.delete(CACHES, name)

        self._ask(delete)

    def _flap(self) -> None:
        group = self._chance.choice(sorted(GROUPS))
        node = self._chance.choice(GROUPS[group])
        if (node, group) in self._off:
            return
        self._label(node, group, None)
        self.rows[FLAPS].injected += 1
        self._off[node, group] = time.monotonic() + self._chance.uniform(*FLAP_SECONDS)

    def _bring_back(self, now: float) -> None:
        for (node, group), at in list(self._off.items()):
            if at <= now:
                self._label(node, group, "yes")
                del self._off[node, group]

    def _label(self, node: str, group: str, value: str | None) -> None:
        change = {"metadata": {"labels": {group: value}}}
        self._ask(lambda: self._world.patch(NODES, node, change))

    def _ask(self, call: Callable[[], Any]) -> Any:
        """Call an API server that may be unreachable for a while."""
        deadline = time.monotonic() + API_SECONDS
        while True:
            try:
                return call()
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    # The end

    def settle(self) -> None:
        """Wait until the cluster is as expected, and record what is not."""
        self._bring_back(float("inf"))
        deadline = time.monotonic() + RETURN_SECONDS + 2 * GRACE_SECONDS
        self._until(self._unready, "caches", deadline)
        self._until(self._undone, "disks", deadline)
        for node in NODE_NAMES:
            lost, _ = self._disk(node).not_at_end(self._of(node))
            self._lost += sum(loss.size for loss in lost)
            self._problems += [f"{node}: {loss}" for loss in lost]

    def _until(self, problems: Callable[[], list[str]], what: str, deadline: float) -> None:
        seconds = max(1.0, deadline - time.monotonic())
        try:
            wait_until(lambda: not problems(), f"the {what}", seconds=seconds)
        except LocalError:
            self._problems += problems()

    def _unready(self) -> list[str]:
        found = []
        for name, group in sorted(self._wanted.items()):
            status = self._status(name)
            ready = {c["type"]: c for c in status.get("conditions", ())}.get("Ready", {})
            copies = status.get("copies", {}).get("available")
            if ready.get("status") != "True" or copies != len(GROUPS[group]):
                found.append(f"cache {name} has {copies} copies: {ready.get('message')}")
        return found

    def _status(self, name: str) -> dict[str, Any]:
        cache = self._ask(lambda: self._world.find(CACHES, name)) or {}
        status: dict[str, Any] = cache.get("status", {})
        return status

    def _undone(self) -> list[str]:
        found = []
        for node in NODE_NAMES:
            try:
                lost, problems = self._disk(node).not_at_end(self._of(node))
            except OSError as error:
                # The copy was being removed.
                lost, problems = [], [str(error)]
            found += [f"{node}: {problem}" for problem in (*lost, *problems)]
        return found

    def _disk(self, node: str) -> Disk:
        return Disk(self._cluster.nodes_dir / node, list(self._models.values()))

    def _of(self, node: str) -> list[Model]:
        return [self._models[name] for name, group in self._wanted.items() if node in GROUPS[group]]

    def take(self, messages: list[Any]) -> None:
        """Count the results. A problem cannot be assigned to one of the faults."""
        self._lost += sum(message["lost"] for message in messages)
        self._problems += [f"meanwhile: {message['what']}" for message in messages]
        first = next(iter(self.rows.values()))
        first.lost, first.failures = self._lost, self._problems
        for row in self.rows.values():
            row.survived = 0 if self._problems else row.injected
