"""The rows of the benchmark: objects that are created with and without the policies. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.kube.kinds import DEPLOYMENTS, PODS

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject

# The bindings of the policies leave the second namespace out.
WITH, WITHOUT = "bench-with", "bench-without"
LABEL = "localmodel.serving.kserve.io/model"
# Milliseconds that the policies may add to a pod.
TARGET_MS = 5.0


def cache_name(number: int) -> str:
    """Name of one of the caches."""
    return f"model-{number:04d}"


@dataclass(frozen=True)
class Row:
    """An object. models: how many it asks for; None: it has no label. target: most added ms."""

    name: str
    kind: Kind
    containers: int = 1
    models: int | None = None
    target: float | None = None

    def make(self, namespace: str, first_model: int) -> KubeObject:
        """The object, with the names of the caches from `first_model` on."""
        labels = {"app": "bench"}
        if self.models is not None:
            names = (cache_name(first_model + number) for number in range(self.models))
            labels[LABEL] = "_".join(names)
        containers = [{"name": f"c{n}", "image": "none"} for n in range(self.containers)]
        metadata: KubeObject = {"generateName": "bench-", "namespace": namespace}
        head: KubeObject = {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.name,
            "metadata": metadata,
        }
        if self.kind == PODS:
            return head | {
                "metadata": metadata | {"labels": labels},
                "spec": {"containers": containers},
            }
        template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
        selector = {"matchLabels": {"app": "bench"}}
        return head | {"spec": {"replicas": 0, "selector": selector, "template": template}}


ROWS = (
    Row("pod without the label", PODS),
    Row("pod, 1 container, 1 model", PODS, models=1, target=TARGET_MS),
    Row("pod, 3 containers, 1 model", PODS, containers=3, models=1, target=TARGET_MS),
    Row("pod, 1 container, 2 models", PODS, models=2, target=TARGET_MS),
    Row("pod, 20 containers, 1 model", PODS, containers=20, models=1),
    Row("Deployment without the label", DEPLOYMENTS),
    Row("Deployment, 1 model", DEPLOYMENTS, models=1),
)
