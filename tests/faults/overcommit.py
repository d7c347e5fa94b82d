"""Part e: three times as many models as the disks can hold, and pods that use them."""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crds.keys import model_key
from crds.naming import claim_name
from deploy.kube.kinds import LOCAL_MODEL_NODES, PODS
from deploy.local.waiting import wait_until
from tests.e2e.world import World
from tests.faults import clusters, origin
from tests.faults.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deploy.local.cluster import Cluster

PART = "overcommit"
NODE_NAMES = ("node-1", "node-2", "node-3")
GROUP = "crowd"
MODELS = 200
TIMES = 3
BLOCK_BYTES = 4096
PODS_PER_NODE = 20
POD_SECONDS = (3.0, 20.0)
LOOK_SECONDS = 0.1
# How long an agent may take to observe a pod.
HEARD_SECONDS = 2.0
START_SECONDS = 600.0
STAY_SECONDS = 60.0
# The accepted ratio of downloads to those of a simulated LRU cache.
MORE_DOWNLOADS = 1.5

_PUBLISHED = "Published a model"
_SETTLED = {"Downloaded", "Evicted"}


@dataclass(frozen=True)
class Use:
    """An interval in which a pod uses a model, or a model is new."""

    model: str
    start: float
    end: float


def offline_lru(sizes: Mapping[str, int], limit: int, uses: Iterable[Use]) -> int:
    """The number of downloads of an LRU cache with these uses."""
    used_until: dict[str, float] = {}
    taken = downloads = 0
    for use in sorted(uses, key=lambda use: use.start):
        if use.model not in used_until:
            downloads += 1
            taken += sizes[use.model]
            for model in sorted(used_until, key=lambda model: used_until[model]):
                if taken > limit and used_until[model] <= use.start:
                    taken -= sizes[model]
                    del used_until[model]
        used_until[use.model] = max(use.end, used_until.get(use.model, 0.0))
    return downloads


def run(work: Path, seed: int, seconds: float) -> list[Row]:
    """Run pods for `seconds`. Returns the results."""
    chance = random.Random(seed)
    sizes = {f"crowd-{n}": BLOCK_BYTES * chance.randint(8, 24) for n in range(MODELS)}
    web = {f"{name}.bin": origin.content(f"{seed}-{name}", size) for name, size in sizes.items()}
    with (
        origin.serve(web, {}) as url,
        clusters.running(work / "local", len(NODE_NAMES), PART) as cluster,
    ):
        crowd = _Crowd(cluster, sizes, url, chance)
        crowd.prepare()
        crowd.pass_by(seconds)
        return [crowd.row()]


@dataclass
class _Pod:
    """A pod that uses a model. `seen`: the model was published, and so must stay."""

    node: str
    model: str
    since: float
    until: float
    seen: bool = False


class _Crowd:
    """The models, the pods, and the observations of the disks."""

    def __init__(
        self, cluster: Cluster, sizes: Mapping[str, int], url: str, chance: random.Random
    ) -> None:
        # No origins of the end-to-end tests are needed.
        self._world = World(cluster, cast("Any", None), cast("Any", None))
        self._cluster, self._chance = cluster, chance
        self._sizes = sizes
        self._uris = {name: f"{url}/{name}.bin" for name in sizes}
        self.limit = sum(sizes.values()) // TIMES // BLOCK_BYTES * BLOCK_BYTES
        self._pods: dict[str, _Pod] = {}
        self._uses: dict[str, list[Use]] = {
            node: [Use(name, n * 1e-6, n * 1e-6) for n, name in enumerate(sizes)]
            for node in NODE_NAMES
        }
        self._made = 0
        self._most = 0
        self._problems: list[str] = []

    def prepare(self) -> None:
        """Make all caches, and wait until every node has downloaded each of them once."""
        for node in NODE_NAMES:
            self._world.node(node, GROUP)
        eviction = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
        self._world.group(GROUP, storageLimit=str(self.limit), eviction=eviction)
        for name, uri in self._uris.items():
            self._world.cache(name, uri, GROUP, modelSize=str(self._sizes[name]))
        deadline = time.monotonic() + START_SECONDS
        while not all(self._has_had_all(node) for node in NODE_NAMES):
            self._look()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all models came to all nodes in {START_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
        sys.stderr.write(f"{PART}: each node has had each of {MODELS} models\n")

    def _has_had_all(self, node: str) -> bool:
        found = self._world.find(LOCAL_MODEL_NODES, node) or {}
        models = found.get("status", {}).get("models", ())
        return len(models) == MODELS and all(model["state"] in _SETTLED for model in models)

    def pass_by(self, seconds: float) -> None:
        """Make and delete pods, and then wait until the last pods have their models."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            for name, pod in list(self._pods.items()):
                if pod.until <= now:
                    self._end(name)
            node = self._chance.choice(NODE_NAMES)
            if sum(pod.node == node for pod in self._pods.values()) < PODS_PER_NODE:
                self._begin(node, now)
            self._look()
            time.sleep(LOOK_SECONDS)
        self._stay()

    def _stay(self) -> None:
        """Wait until all remaining pods have their models."""
        wait_until(
            lambda: all(self._is_there(pod) for pod in self._pods.values()),
            "the models of the pods",
            seconds=STAY_SECONDS,
        )

    def _begin(self, node: str, now: float) -> None:
        # Some models are used more than others.
        model = f"crowd-{int(MODELS * self._chance.random() ** 2)}"
        name = f"pod-{self._made}"
        self._made += 1
        claim = {"claimName": claim_name(model, GROUP)}
        self._world.make(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "nodeName": node,
                    "containers": [
                        {
                            "name": "server",
                            "image": "server",
                            "volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}],
                        }
                    ],
                    "volumes": [{"name": "models", "persistentVolumeClaim": claim}],
                },
            }
        )
        until = now + self._chance.uniform(*POD_SECONDS)
        self._pods[name] = _Pod(node, model, time.monotonic(), until)
        self._uses[node].append(Use(model, now, until))

    def _end(self, name: str) -> None:
        # The agent may observe a pod before its creation has returned here.
        del self._pods[name]
        self._world.api.delete(PODS, name, "default", grace_seconds=0)

    def _is_there(self, pod: _Pod) -> bool:
        return self._world.published(pod.node, self._uris[pod.model])

    def _look(self) -> None:
        for name, pod in self._pods.items():
            there = self._is_there(pod)
            if pod.seen and not there:
                self._problems.append(f"{pod.node}: {pod.model} went while {name} used it")
            pod.seen = there and time.monotonic() - pod.since > HEARD_SECONDS
        for node in NODE_NAMES:
            taken = self._taken(node)
            if taken > self.limit:
                # A model that was renamed during the scan may count twice; a second scan decides.
                taken = min(self._taken(node), self._taken(node))
            self._most = max(self._most, taken)
            if taken > self.limit:
                self._problems.append(f"{node}: {taken} bytes, and {self.limit} are allowed")

    def _taken(self, node: str) -> int:
        disk = self._cluster.nodes_dir / node
        found = 0
        # Files that are deleted during the scan are skipped.
        for top in (disk / "models", disk / ".localmodel"):
            for folder, _, names in os.walk(top):
                if top.name == "models" or f"{os.sep}files" in folder:
                    for name in names:
                        with suppress(FileNotFoundError):
                            found += Path(folder, name).stat().st_blocks * 512
        return found

    def row(self) -> Row:
        """The results."""
        notes = []
        for node in NODE_NAMES:
            ours, lru = (
                self._downloads(node),
                offline_lru(self._sizes, self.limit, self._uses[node]),
            )
            notes.append(f"{ours} downloads on {node}, an offline LRU makes {lru}")
            if ours > MORE_DOWNLOADS * lru:
                self._problems.append(notes[-1])
        full = 100 * self._most // self.limit
        sys.stderr.write(f"{PART}: {'; '.join(notes)}; at most {full} % of the limit were taken\n")
        row = Row(PART, f"a pod comes to one of {MODELS} models on a disk for a third of them")
        row.take(self._problems, 0, self._made)
        return row

    def _downloads(self, node: str) -> int:
        (log,) = self._cluster.logs_dir.glob(f"*{node}.log")
        keys = {model_key(uri) for uri in self._uris.values()}
        lines = [line for line in log.read_text().splitlines() if _PUBLISHED in line]
        return sum(any(key in line for key in keys) for line in lines)
