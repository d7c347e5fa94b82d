"""Creates objects on a cluster, with the policies of deploy/pods and without them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from crds.base import API_VERSION
from deploy.kube.errors import ApiError
from deploy.kube.kinds import PLACEMENTS, PODS, KubeObject
from deploy.local import manifests, overlay
from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until
from tests.bench.pods.rows import NAMESPACE, ROWS, cache_name

if TYPE_CHECKING:
    from deploy.local.cluster import Cluster
    from tests.bench.pods.figures import Round

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
        """Make the namespace, the groups and the caches, and wait until plans offer them."""
        api = self.cluster.api
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
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
        wait_until(self._mounts, "pods to get models", seconds=_SECONDS)

    def _make(self, kind: str, name: str, spec: KubeObject) -> None:
        head = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
        self.cluster.api.apply(head | {"spec": spec}, manager=_MANAGER)

    def round(self) -> Round:
        """One round: all rows without the policies, then with them."""
        self._unbind()
        before = self._row_times()
        self._bind()
        after = self._row_times()
        return {name: (before[name], after[name]) for name in before}

    def _row_times(self) -> dict[str, float]:
        """Median milliseconds of each row. The rows take turns, and so share what else happens."""
        api = self.cluster.api
        times: dict[str, list[float]] = {row.name: [] for row in ROWS}
        for number in range(-_WARM_UP, self.creates):
            for row in ROWS:
                obj = row.make(number % (self.caches - (row.models or 0)))
                started = time.perf_counter()
                api.create(obj)
                if number >= 0:
                    times[row.name].append(1000 * (time.perf_counter() - started))
        self._clean()
        return {name: median(found) for name, found in times.items()}

    def _clean(self) -> None:
        api = self.cluster.api
        kinds = {row.kind for row in ROWS}
        for kind in kinds:
            path = kind.path(namespace=NAMESPACE)
            api.request("DELETE", path, doing="deleting all", query={"gracePeriodSeconds": "0"})
        wait_until(
            lambda: not any(api.list(kind, NAMESPACE) for kind in kinds),
            "the objects to be gone",
            seconds=_SECONDS,
        )

    def _bindings(self) -> list[KubeObject]:
        files = overlay.pod_policy_files(CHECKOUT)
        objects = manifests.read(files, hooks_url="")
        return [obj for obj in objects if obj["kind"].endswith("Binding")]

    def _unbind(self) -> None:
        api = self.cluster.api
        for obj in self._bindings():
            api.delete(api.kind_of(obj), obj["metadata"]["name"])
        wait_until(lambda: self._mounts() is False, "no policy", seconds=_SECONDS)

    def _bind(self) -> None:
        for obj in self._bindings():
            self.cluster.api.apply(obj, manager=_MANAGER)
        wait_until(self._mounts, "the policies", seconds=_SECONDS)

    def _mounts(self) -> bool | None:
        """Whether a labelled pod gets its model; None: it is refused, as by one policy alone."""
        pod = next(row for row in ROWS if row.kind == PODS and row.models).make(0)
        try:
            made = self.cluster.api.create(pod, dry_run=True)
        except ApiError:
            return None
        return any("persistentVolumeClaim" in volume for volume in made["spec"]["volumes"])
