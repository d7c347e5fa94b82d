"""Helpers of the end-to-end tests: a cluster, its objects, the disks of its nodes."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agent.structs.credentials import DEFAULT_NAMESPACE
from crds.base import API_VERSION
from crds.keys import model_key
from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    LOCAL_MODEL_NODES,
    NODES,
    Kind,
    KubeObject,
)
from deploy.local.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from deploy.kube.client import KubeClient
    from deploy.local.cluster import Cluster
    from deploy.local.origin import S3Origin
    from tests.e2e.origin import HttpOrigin

T = TypeVar("T")


# Times as in a long outage, or shortened in the same order for a usual run.
FULL = os.environ.get("LOCALMODEL_E2E") == "full"
GRACE_SECONDS = 60.0 if FULL else 6.0
LABEL_GONE_SECONDS = 10.0 if FULL else 2.0
OBJECT_GONE_SECONDS = 120.0 if FULL else 14.0
API_GONE_SECONDS = 20.0

# The limit for steps that do not wait by design.
SETTLE_SECONDS = 120.0 + GRACE_SECONDS
# The limit after an outage: the backoff of broken watches has grown to half a minute and more.
RETURN_SECONDS = 180.0


def an_object(resource: Kind, name: str, namespace: str = "", **fields: Any) -> KubeObject:
    """An object to make: kind, names, and further fields."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    head = {"apiVersion": resource.api_version, "kind": resource.name, "metadata": metadata}
    return head | fields


@dataclass(frozen=True)
class World:
    """One cluster, shared by all tests of one Metacontroller, so tests need unique names."""

    cluster: Cluster
    http: HttpOrigin
    s3: S3Origin

    @property
    def api(self) -> KubeClient:
        """The API server, as the administrator."""
        return self.cluster.api

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """The output of kubectl, which must succeed."""
        done = self.cluster.kubectl(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, check: Callable[[], T], what: str, seconds: float = SETTLE_SECONDS) -> T:
        """Call a check until it returns a true value. Returns that value."""
        return wait_until(check, what, seconds=seconds)

    # Objects.

    def make(self, obj: KubeObject) -> KubeObject:
        """Create or change an object."""
        return self.api.apply(obj, manager="test")

    def find(self, resource: Kind, name: str, namespace: str = "") -> KubeObject | None:
        """An object, or None if the object or its kind does not exist."""
        return self.api.find(resource, name, namespace)

    def delete(self, resource: Kind, name: str, namespace: str = "") -> None:
        """Delete an object without waiting for its end."""
        self.api.delete(resource, name, namespace)

    def patch(self, resource: Kind, name: str, change: KubeObject, subresource: str = "") -> None:
        """Merge a change into an object."""
        self.api.patch(resource, name, change, subresource=subresource)

    def node(self, name: str, *labels: str) -> None:
        """Create a Node with these labels, each with the value 'yes'."""
        if self.find(NODES, name) is None:
            self.cluster.node_up(name, labels=dict.fromkeys(labels, "yes"))
        else:
            self.patch(NODES, name, {"metadata": {"labels": dict.fromkeys(labels, "yes")}})

    def group(self, name: str, label: str = "", **spec: Any) -> KubeObject:
        """Make a group of the nodes with a label, by default the group's name."""
        return self.make(
            {
                "apiVersion": API_VERSION,
                "kind": "LocalModelNodeGroup",
                "metadata": {"name": name},
                "spec": {"nodeSelector": {label or name: "yes"}, "storageLimit": "1Gi"} | spec,
            }
        )

    def cache(self, name: str, uri: str, group: str, **spec: Any) -> KubeObject:
        """Make a cache."""
        return self.make(
            {
                "apiVersion": API_VERSION,
                "kind": "LocalModelCache",
                "metadata": {"name": name},
                "spec": {"sourceModelUri": uri, "modelSize": "100Mi", "nodeGroup": group} | spec,
            }
        )

    def namespace(self, name: str, **labels: str) -> None:
        """Create a namespace."""
        self.make(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        )

    def secret(self, name: str, data: Mapping[str, str], **annotations: str) -> None:
        """Make a secret of credentials. annotations: KServe's for S3, without their prefix."""
        self.make(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": DEFAULT_NAMESPACE,
                    "annotations": {
                        f"serving.kserve.io/s3-{key}": value for key, value in annotations.items()
                    },
                },
                "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
            }
        )

    def service_account(self, name: str, *secrets: str) -> None:
        """Make a ServiceAccount in the secrets' namespace, with these secrets attached."""
        self.make(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": DEFAULT_NAMESPACE},
                "secrets": [{"name": secret} for secret in secrets],
            }
        )

    # Observations.

    def condition(self, resource: Kind, name: str, kind: str = "Ready") -> KubeObject:
        """A condition of an object; empty while the object has none."""
        obj = self.find(resource, name) or {}
        for condition in obj.get("status", {}).get("conditions", ()):
            if condition["type"] == kind:
                return dict(condition)
        return {}

    def wait_condition(
        self, name: str, reason: str, kind: str = "Ready", resource: Kind = CACHES
    ) -> KubeObject:
        """Wait until a condition of a cache has this reason."""

        def has_it() -> KubeObject:
            condition = self.condition(resource, name, kind)
            return condition if condition.get("reason") == reason else {}

        return self.until(has_it, f"{resource.name} {name} to be {kind} because of {reason}")

    def wait_ready(self, name: str, copies: int, seconds: float = SETTLE_SECONDS) -> KubeObject:
        """Wait until a cache is ready with this many copies. Returns it."""

        def ready() -> KubeObject:
            cache = self.find(CACHES, name) or {}
            counts = cache.get("status", {}).get("copies", {})
            done = self.condition(CACHES, name).get("status") == "True"
            return cache if done and counts.get("available") == copies else {}

        return self.until(ready, f"cache {name} to have {copies} copies", seconds)

    def copy(self, node: str, uri: str) -> Path:
        """The path of a URI's model on a node's disk."""
        return self.cluster.nodes_dir / node / "models" / model_key(uri)

    def published(self, node: str, uri: str) -> bool:
        """Whether a URI's model is published on a node's disk."""
        return self.copy(node, uri).exists()

    def identity(self, node: str, uri: str) -> dict[str, tuple[int, int, int]]:
        """Inode, size and time of each published file, which change if a file is written."""
        folder = self.copy(node, uri)
        return {
            path.relative_to(folder).as_posix(): (s.st_ino, s.st_size, s.st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if (s := path.stat())
        }

    def report(self, node: str, uri: str) -> KubeObject:
        """The status of a model on a node; empty while the agent reports none."""
        obj = self.find(LOCAL_MODEL_NODES, node) or {}
        for model in obj.get("status", {}).get("models", ()):
            if model["key"] == model_key(uri):
                return dict(model)
        return {}

    def wait_bound(self, namespace: str, claim: str, seconds: float = SETTLE_SECONDS) -> KubeObject:
        """Wait until a claim is bound. Returns the claim."""

        def bound() -> KubeObject:
            found = self.find(CLAIMS, claim, namespace) or {}
            return found if found.get("status", {}).get("phase") == "Bound" else {}

        return self.until(bound, f"claim {namespace}/{claim} to be bound", seconds)

    def remove_caches(self, *names: str) -> None:
        """Delete caches, of which some may be gone already, and wait until all are gone."""
        for name in names:
            with suppress(NotFoundError):
                self.delete(CACHES, name)
        self.until(
            lambda: not any(self.find(CACHES, name) for name in names), f"{names} to be gone"
        )
