"""Clusters with the kserve overlay, in which tests act as KServe's webhooks and agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crds.base import API_VERSION
from deploy.kube.errors import ApiError, ConflictError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    CONFIG_MAPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    VOLUMES,
    Kind,
)
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.kinds import KubeObject
    from tests.contract.servers_hf import Hub
    from tests.e2e.clouds import Clouds

ISVCS = Kind("serving.kserve.io/v1beta1", "inferenceservices", "InferenceService", namespaced=True)
LLM_ISVCS = Kind(
    "serving.kserve.io/v1alpha2", "llminferenceservices", "LLMInferenceService", namespaced=True
)

# Hosts that agents contact by default, whatever a cache says.
HUB_HOST = "huggingface.co"
GOOGLE_HOST = "storage.googleapis.com"
GOOGLE_TOKENS_HOST = "oauth2.googleapis.com"
AZURE_SIGN_IN_HOST = "login.microsoftonline.com"
AZURE_HOST = "modelstore.blob.core.windows.net"
AZURE_APPLICATIONS_HOST = "applications.blob.core.windows.net"
CLOUD_HOSTS = (
    HUB_HOST,
    GOOGLE_HOST,
    GOOGLE_TOKENS_HOST,
    AZURE_SIGN_IN_HOST,
    AZURE_HOST,
    AZURE_APPLICATIONS_HOST,
)

# Long enough for a loaded machine: no step here waits by design.
SECONDS = 30.0


@dataclass(frozen=True)
class KServeWorld(World):
    """Helpers of the tests of KServe's contract, on a cluster without agents."""

    def kserve_group(self, name: str, *nodes: str, **template: Any) -> KubeObject:
        """Make a group of these nodes in KServe's form."""
        volume = {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "capacity": {"storage": "2Gi"},
            "storageClassName": "local-storage",
            "local": {"path": "/models"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}
                        for n in nodes
                    ]
                }
            },
        }
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "local-storage",
        }
        return self.make(
            {
                "apiVersion": API_VERSION,
                "kind": "LocalModelNodeGroup",
                "metadata": {"name": name},
                "spec": {
                    "storageLimit": "10Gi",
                    "persistentVolumeSpec": volume | template,
                    "persistentVolumeClaimSpec": claim,
                },
            }
        )

    def kserve_cache(self, name: str, *groups: str, namespace: str = "", **spec: Any) -> KubeObject:
        """Make a cache in KServe's form; a namespace cache, if a namespace is named."""
        self.space(namespace)
        kind = "LocalModelNamespaceCache" if namespace else "LocalModelCache"
        uri = {"sourceModelUri": f"s3://models/{namespace}{name}", "modelSize": "1Mi"}
        return self.make(
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
                "spec": uri | {"nodeGroups": list(groups)} | spec,
            }
        )

    def space(self, *namespaces: str) -> None:
        """Create namespaces that do not exist."""
        for namespace in filter(None, namespaces):
            if self.find(Kind("v1", "namespaces", "Namespace", namespaced=False), namespace):
                continue
            self.namespace(namespace)

    def service(
        self,
        namespace: str,
        name: str,
        cache: str,
        *,
        of_namespace: bool = False,
        resource: Kind = ISVCS,
        **annotations: str,
    ) -> KubeObject:
        """Make or change a service that uses a cache, with the labels of KServe's webhook."""
        self.space(namespace)
        labels = {"internal.serving.kserve.io/localmodel": cache}
        if of_namespace:
            labels["internal.serving.kserve.io/localmodel-namespace"] = namespace
        group = annotations.get("nodegroup", "first")
        internal = {
            "internal.serving.kserve.io/localmodel-sourceuri": f"s3://models/{cache}",
            "internal.serving.kserve.io/localmodel-pvc-name": f"{cache}-{group}",
        }
        users = {f"serving.kserve.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
        return self.make(
            {
                "apiVersion": resource.api_version,
                "kind": resource.name,
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "annotations": internal | users,
                },
                "spec": {"predictor": {"model": {"storageUri": f"s3://models/{cache}"}}},
            }
        )

    def report(self, node: str, statuses: dict[str, str]) -> None:  # type: ignore[override]
        """Act as KServe's agent of a node, which writes only the map `modelStatus`."""
        self.patch(LOCAL_MODEL_NODES, node, {"status": {"modelStatus": statuses}}, "status")

    def wait_bound(self, namespace: str, claim: str, seconds: float = SECONDS) -> KubeObject:
        """Wait until a claim is bound. Returns the claim."""
        return super().wait_bound(namespace, claim, seconds)

    def wait_gone(self, namespace: str, claim: str) -> None:
        """Wait until a claim and its volume are gone."""
        volume = f"{claim}-{namespace}"
        self.until(
            lambda: not self.find(CLAIMS, claim, namespace) and not self.find(VOLUMES, volume),
            f"claim {namespace}/{claim} and its volume to go",
            SECONDS,
        )

    def status(self, cache: str, namespace: str = "") -> KubeObject:
        """The status of a cache; empty while the cache has none."""
        found = self.find(NAMESPACE_CACHES if namespace else CACHES, cache, namespace) or {}
        return dict(found.get("status", {}))

    def write_until_kept(
        self, cache: str, namespace: str, write: Callable[[], None], is_kept: Callable[[], bool]
    ) -> None:
        """Write into the status of a namespace's cache, until a hook that has read it keeps it.

        A hook that was asked before the write may answer after it, and then KServe's controller
        writes again. The cache's size is changed to call the hook.
        """

        def was_kept() -> bool:
            try:
                write()
            except ConflictError:
                return False
            found = self.api.get(NAMESPACE_CACHES, cache, namespace)
            size = {"spec": {"modelSize": f"{found['metadata']['generation'] + 1}Mi"}}
            changed = self.api.patch(NAMESPACE_CACHES, cache, size, namespace)
            generation = changed["metadata"]["generation"]
            self.until(
                lambda: self.status(cache, namespace).get("observedGeneration") == generation,
                f"the hook to read {namespace}/{cache}",
                SECONDS,
            )
            return is_kept()

        self.until(was_kept, f"what KServe wrote into {namespace}/{cache} to stay", SECONDS)

    def wait_copies(self, cache: str, copies: int, namespace: str = "") -> None:
        """Wait until a cache has this many copies."""
        self.until(
            lambda: self.status(cache, namespace).get("copies", {}).get("available") == copies,
            f"{namespace}/{cache} to have {copies} copies",
        )

    def wait_users(
        self, cache: str, *users: str, namespace: str = "", field: str = "inferenceServices"
    ) -> None:
        """Wait until a cache lists these services, each as namespace/name, and no others."""

        def listed() -> bool:
            found = self.status(cache, namespace).get(field, ())
            return [f"{user['namespace']}/{user['name']}" for user in found] == list(users)

        self.until(listed, f"{cache} to list {users} in {field}", SECONDS)

    def refused(self, obj: KubeObject) -> str:
        """Check that the API server refuses an object. Returns the reason."""
        try:
            self.make(obj)
        except ApiError as error:
            return str(error)
        raise AssertionError(f"{obj['kind']} {obj['metadata']['name']} was accepted")

    def not_deleted(self, resource: Kind, name: str, namespace: str = "") -> str:
        """Check that the API server refuses to delete an object. Returns the reason."""
        try:
            self.delete(resource, name, namespace)
        except ApiError as error:
            return str(error)
        raise AssertionError(f"{resource.name} {name} was deleted")

    def configure(self, text: str) -> str:
        """Replace the value of localModel in KServe's ConfigMap. Returns the former value."""
        name, namespace = "inferenceservice-config", "kserve"
        former = self.api.get(CONFIG_MAPS, name, namespace)["data"]["localModel"]
        self.api.patch(CONFIG_MAPS, name, {"data": {"localModel": text}}, namespace)
        return str(former)


@dataclass(frozen=True)
class KServeNodesWorld(KServeWorld):
    """Helpers of the same tests on a cluster with agents, which have no credentials of their own.

    hub: the fake content of huggingface.co.
    """

    clouds: Clouds
    hub: Hub

    def reader(self, name: str) -> None:
        """Make a ServiceAccount whose secret has credentials for the S3 server."""
        keys = {
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
        }
        host = self.s3.endpoint.removeprefix("http://")
        self.secret(f"{name}-secret", keys, endpoint=host, usehttps="0")
        self.service_account(name, f"{name}-secret")
