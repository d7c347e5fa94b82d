"""The objects that KServe's controller and agent leave behind, as its pkg/controller makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crds.base import API_VERSION
from crds.keys import model_key
from deploy.kube.kinds import (
    CLAIMS,
    JOBS,
    PODS,
    VOLUMES,
    WEBHOOKS,
    Kind,
    KubeObject,
)

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient

JOB_NAMESPACE = "kserve-localmodel-jobs"
FINALIZER = "localmodel.kserve.io/finalizer"
NAMESPACE_FINALIZER = "localmodelnamespacecache.kserve.io/finalizer"
CONTROLLER = "kserve-localmodel-controller-manager"
AGENT = "kserve-localmodelnode-agent"

WEBHOOK = "localmodelcache.serving.kserve.io"


@dataclass(frozen=True)
class KServeLeft:
    """Makes KServe's objects, by create requests as KServe does."""

    api: KubeClient

    def create(self, resource: Kind, obj: KubeObject) -> KubeObject:
        """Create an object."""
        kind = {"apiVersion": resource.api_version, "kind": resource.name}
        return self.api.create(kind | obj)

    def webhook(self) -> KubeObject:
        """The webhook for caches, whose server is gone with the controller."""
        service = {"namespace": "kserve", "name": "localmodel-webhook-server-service"}
        path = "/validate-serving-kserve-io-v1alpha1-localmodelcache"
        return self.create(
            WEBHOOKS,
            {
                "metadata": {"name": WEBHOOK},
                "webhooks": [
                    {
                        "name": "localmodelcache.kserve-webhook-server.validator",
                        "clientConfig": {"service": service | {"path": path}},
                        "failurePolicy": "Fail",
                        "sideEffects": "None",
                        "admissionReviewVersions": ["v1beta1"],
                        "rules": [
                            {
                                "apiGroups": ["serving.kserve.io"],
                                "apiVersions": ["v1alpha1"],
                                "operations": ["CREATE", "UPDATE", "DELETE"],
                                "resources": ["localmodelcaches"],
                            }
                        ],
                    }
                ],
            },
        )

    def program(self, resource: Kind, name: str, **spec: Any) -> KubeObject:
        """KServe's controller (a Deployment) or agent (a DaemonSet)."""
        labels = {"control-plane": name, "controller-tools.k8s.io": "1.0"}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "manager", "image": "none"}]},
        }
        return self.create(
            resource,
            {
                "metadata": {"name": name, "namespace": "kserve"},
                "spec": {"selector": {"matchLabels": labels}, "template": template} | spec,
            },
        )

    def pod(self, name: str, namespace: str, claim: str = "", **metadata: Any) -> KubeObject:
        """A pod that no node runs; it mounts a claim, if one is named."""
        container: KubeObject = {"name": "main", "image": "none"}
        spec: KubeObject = {"containers": [container], "terminationGracePeriodSeconds": 0}
        if claim:
            container["volumeMounts"] = [{"name": "model", "mountPath": "/mnt/models"}]
            source = {"persistentVolumeClaim": {"claimName": claim}}
            spec["volumes"] = [{"name": "model"} | source]
        return self.create(
            PODS, {"metadata": {"name": name, "namespace": namespace} | metadata, "spec": spec}
        )

    def volume(
        self,
        name: str,
        namespace: str,
        claim: str,
        group: KubeObject,
        owner: KubeObject | None = None,
    ) -> tuple[KubeObject, KubeObject]:
        """A volume and the claim that leads to it, of a group's templates.

        A LocalModelCache owns both of its own, a LocalModelNamespaceCache only claims of its
        namespace.
        """
        spec = group["spec"]
        owns_volume = owner is not None and "namespace" not in owner["metadata"]
        owns_claim = owns_volume or (
            owner is not None and owner["metadata"]["namespace"] == namespace
        )
        volume = self.create(
            VOLUMES,
            {
                "metadata": {"name": name} | _owned(owner if owns_volume else None),
                "spec": spec["persistentVolumeSpec"],
            },
        )
        made = self.create(
            CLAIMS,
            {
                "metadata": {"name": claim, "namespace": namespace}
                | _owned(owner if owns_claim else None),
                "spec": spec["persistentVolumeClaimSpec"] | {"volumeName": name},
            },
        )
        return volume, made

    def download_volume(
        self, cache: KubeObject, group: KubeObject
    ) -> tuple[KubeObject, KubeObject]:
        """The volume and the claim that a cache's download Jobs mount."""
        serving = f"{cache['metadata']['name']}-{group['metadata']['name']}"
        namespace = cache["metadata"].get("namespace")
        name = f"{serving}-{namespace}-download" if namespace else f"{serving}-download"
        claim = name if namespace else serving
        return self.volume(name, JOB_NAMESPACE, claim, group, cache)

    def serving_volume(
        self, cache: KubeObject, group: KubeObject, namespace: str
    ) -> tuple[KubeObject, KubeObject]:
        """The volume and the claim of a namespace whose services use a cache."""
        claim = f"{cache['metadata']['name']}-{group['metadata']['name']}"
        return self.volume(f"{claim}-{namespace}", namespace, claim, group, cache)

    def job(self, model: str, node: KubeObject, uri: str, claim: str) -> KubeObject:
        """A download Job as KServe's agent makes one for a LocalModelNode."""
        name = node["metadata"]["name"]
        mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models"}
        sub_path = {"subPath": f"models/{model_key(uri)}"}
        container = {
            "name": "kserve-localmodel-download",
            "image": "kserve/storage-initializer:latest",
            "args": [uri, "/mnt/models"],
            "volumeMounts": [mount | sub_path],
        }
        pod = {
            "nodeSelector": {"kubernetes.io/hostname": name},
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [
                {"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": claim}}
            ],
        }
        return self.create(
            JOBS,
            {
                "metadata": {
                    "generateName": f"{model}-{name}",
                    "namespace": JOB_NAMESPACE,
                    "labels": {"model": model, "node": name},
                }
                | _owned(node),
                "spec": {"ttlSecondsAfterFinished": 3600, "template": {"spec": pod}},
            },
        )

    def import_job(self, cache: KubeObject) -> KubeObject:
        """The Job that imports a cache with pvcRef, before it has begun."""
        metadata = cache["metadata"]
        pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
        return self.create(
            JOBS,
            {
                "metadata": {
                    "name": f"{metadata['name']}-import",
                    "namespace": metadata["namespace"],
                    "labels": {"model": metadata["name"]},
                }
                | _owned(cache),
                "spec": {"suspend": True, "template": {"spec": pod}},
            },
        )

    def running(self, job: KubeObject) -> KubeObject:
        """The pod that the Job controller makes for a Job, before it is assigned to a node."""
        (volume,) = job["spec"]["template"]["spec"]["volumes"]
        claim = volume["persistentVolumeClaim"]["claimName"]
        name = f"{job['metadata']['name']}-pod"
        return self.pod(name, JOB_NAMESPACE, claim, **_owned(job))


def _owned(owner: KubeObject | None) -> KubeObject:
    """The metadata of an object that `owner` controls: its ownerReferences."""
    if owner is None:
        return {}
    reference = {
        "apiVersion": owner.get("apiVersion", API_VERSION),
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}
