"""Creates objects on a cluster, with the policies of deploy/pods and without them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from deploy.kube.errors import ApiError
from deploy.kube.kinds import NAMESPACES, PLACEMENTS, PODS, KubeObject
from deploy.local import manifests, overlay
from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until
from tests.bench.pods.rows import ROWS, WITH, WITHOUT, cache_name

if TYPE_CHECKING:
    from random import Random

    from deploy.local.cluster import Cluster
    from tests.bench.pods.figures import Round
    from tests.bench.pods.rows import Row

_SECONDS = 60.0
_MANAGER = "bench"
# Creates before each measurement, which do not count.
_WARM_UP = 5


@dataclass(frozen=True)
class Measuring:
    """caches: their number; groups: how many groups keep them. creates: of each row in a round."""

    cluster: Cluster
    caches: int
    groups: int
    creates: int

    def prepare(self) -> None:
        """Make namespaces, groups and caches, and wait until pods of one namespace get models."""
        api = self.cluster.api
        for name in (WITH, WITHOUT):
            namespace = {"apiVersion": "v1", "kind": NAMESPACES.name, "metadata": {"name": name}}
            api.apply(namespace, manager=_MANAGER)
        for number in range(self.groups):
            spec: KubeObject = {"nodeSelector": {"pool": f"p{number}"}, "storageLimit": "1Ti"}
            self._make("LocalModelNodeGroup", f"g{number}", spec)
        for number in range(self.caches):
            name, group = cache_name(number), f"g{number % self.groups}"
            spec = {"sourceModelUri": f"s3://bench/{name}", "modelSize": "16Gi", "nodeGroup": group}
            self._make("LocalModelCache", name, spec)

        def offered() -> bool:
            plans = api.list(PLACEMENTS)
            return sum(len(plan["spec"].get("offers", {})) for plan in plans) == self.caches

        wait_until(offered, "the plans", seconds=_SECONDS)
        self._leave_out()
        wait_until(
            lambda: self._claims(WITH) == [1] * self.caches, "pods to get models", seconds=_SECONDS
        )
        wait_until(
            lambda: self._claims(WITHOUT) == [0] * self.caches, "pods to get none", seconds=_SECONDS
        )

    def _make(self, kind: str, name: str, spec: KubeObject) -> None:
        head = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
        self.cluster.api.apply(head | {"spec": spec}, manager=_MANAGER)

    def _leave_out(self) -> None:
        """Let the policies leave one namespace out."""
        files = overlay.pod_policy_files(CHECKOUT)
        expression = {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": [WITHOUT],
        }
        for obj in manifests.read(files, hooks_url=""):
            if obj["kind"].endswith("Binding"):
                selector = {"namespaceSelector": {"matchExpressions": [expression]}}
                obj["spec"]["matchResources"] = selector
                self.cluster.api.apply(obj, manager=_MANAGER)

    def _claims(self, namespace: str) -> list[int]:
        """How many claims a pod gets for each cache, until one is refused."""
        labelled = next(row for row in ROWS if row.kind == PODS and row.models)
        counts: list[int] = []
        for number in range(self.caches):
            try:
                made = self.cluster.api.create(labelled.make(namespace, number), dry_run=True)
            except ApiError:
                return counts
            volumes = made["spec"]["volumes"]
            counts.append(sum("persistentVolumeClaim" in volume for volume in volumes))
        return counts

    def round(self, random: Random) -> Round:
        """One round. All rows, with and without the policies, take turns in random order."""
        turns = [(row, namespace) for row in ROWS for namespace in (WITHOUT, WITH)]
        times: dict[tuple[str, str], list[float]] = {(r.name, where): [] for r, where in turns}
        for number in range(-_WARM_UP, self.creates):
            random.shuffle(turns)
            for row, namespace in turns:
                milliseconds = self._create(row, namespace, number)
                if number >= 0:
                    times[row.name, namespace].append(milliseconds)
        self._clean()
        return {
            row.name: (median(times[row.name, WITHOUT]), median(times[row.name, WITH]))
            for row in ROWS
        }

    def _create(self, row: Row, namespace: str, number: int) -> float:
        """Create an object. Returns the milliseconds."""
        obj = row.make(namespace, number % (self.caches - (row.models or 0)))
        started = time.perf_counter()
        self.cluster.api.create(obj)
        return 1000 * (time.perf_counter() - started)

    def _clean(self) -> None:
        api = self.cluster.api
        places = [(row.kind, namespace) for row in ROWS for namespace in (WITH, WITHOUT)]
        for kind, namespace in set(places):
            path = kind.path(namespace=namespace)
            api.request("DELETE", path, doing="deleting all", query={"gracePeriodSeconds": "0"})
        wait_until(
            lambda: not any(api.list(kind, namespace) for kind, namespace in set(places)),
            "the objects to be gone",
            seconds=_SECONDS,
        )
