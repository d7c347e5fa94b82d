"""A cluster with KServe's objects, on which localmodel is installed, and what must not change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crds.keys import model_key
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    DEPLOYMENTS,
    GROUPS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    VOLUMES,
)
from deploy.local import manifests
from deploy.local.waiting import wait_until
from tests.content import weights
from tests.e2e.kserve import ISVCS, LLM_ISVCS, KServeWorld
from tests.e2e.kserve_crds import KSERVE, kserves, ours
from tests.e2e.kserve_left import (
    CONTROLLER,
    FINALIZER,
    JOB_NAMESPACE,
    NAMESPACE_FINALIZER,
    KServeLeft,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.kube.kinds import Kind, KubeObject
    from tests.e2e.takeover import Ran, Takeover

NODE_NAMES = ("node-1", "node-2", "node-3")

# Each cache: its namespace, its groups, and the nodes that have its folder.
LAID_OUT: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "llama": ("", ("gpu",), ("node-1", "node-2")),
    "bert": ("", ("gpu", "cpu"), NODE_NAMES),
    "private": ("team-a", ("gpu",), ("node-1", "node-2")),
}
SERVED = {
    ("team-a", "llama-gpu"): "llama",
    ("team-b", "llama-gpu"): "llama",
    ("team-a", "private-gpu"): "private",
}
# A cache that KServe imports into a claim.
IMPORTED = ("team-b", "shared", "shared-models")
# The nodes of each group.
NODES_OF = {"gpu": ("node-1", "node-2"), "cpu": ("node-3",)}


@dataclass
class Migration:
    """The cluster, the state before the takeover, and the output of the command."""

    world: KServeWorld
    takeover: Takeover | None = None
    objects: dict[str, KubeObject] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    shown: Ran | None = None
    first: Ran | None = None
    installed_at: float = 0.0

    @property
    def command(self) -> Takeover:
        """`localmodel-takeover`, once the cluster runs."""
        assert self.takeover is not None
        return self.takeover

    def uri(self, cache: str) -> str:
        """The source URI of a cache."""
        return self.world.http.url(f"{cache}/weights.bin")

    # KServe's objects and files.

    def lay_out(self) -> None:
        """Make KServe's objects and files, on a cluster without localmodel."""
        world, left = self.world, KServeLeft(self.world.api)
        for plural in KSERVE:
            world.api.create(kserves(plural))
        names = [ours(plural)["metadata"]["name"] for plural in KSERVE]
        wait_until(lambda: manifests.established(world.api, names), "KServe's kinds", seconds=20)
        world.space(JOB_NAMESPACE, "team-a", "team-b")
        groups = {name: world.kserve_group(name, *nodes) for name, nodes in NODES_OF.items()}
        caches = {
            name: world.kserve_cache(
                name, *of, namespace=space, sourceModelUri=self.uri(name), modelSize="1Mi"
            )
            for name, (space, of, _) in LAID_OUT.items()
        }
        for name in NODES_OF:
            # Objects of newer versions of KServe.
            tolerations = [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
            world.patch(GROUPS, name, {"spec": {"tolerations": tolerations}})
            groups[name] = world.api.get(GROUPS, name)
        world.patch(CACHES, "llama", {"spec": {"imagePullSecrets": [{"name": "registry"}]}})
        self._imported(left)
        self._users(caches)
        nodes = self._model_nodes(left)
        self._folders()
        for name, (_, of, _) in LAID_OUT.items():
            for group in of:
                left.download_volume(caches[name], groups[group])
        for (namespace, _), name in SERVED.items():
            left.serving_volume(caches[name], groups["gpu"], namespace)
        left.running(left.job("llama", nodes["node-1"], self.uri("llama"), "llama-gpu"))
        self._deleted_one(left, nodes["node-1"])
        left.program(DEPLOYMENTS, CONTROLLER, replicas=0)
        for namespace, claim in (*SERVED, (JOB_NAMESPACE, "llama-gpu")):
            world.wait_bound(namespace, claim)
        left.webhook()

    def _imported(self, left: KServeLeft) -> None:
        """Make a cache with pvcRef that KServe's controller has imported."""
        space, name, claim = IMPORTED
        world = self.world
        cache = left.create(
            NAMESPACE_CACHES,
            {
                "metadata": {"name": name, "namespace": space, "finalizers": [NAMESPACE_FINALIZER]},
                "spec": {"sourceModelUri": self.uri(name), "modelSize": "1Mi", "pvcRef": claim},
            },
        )
        left.create(
            CLAIMS,
            {
                "metadata": {"name": claim, "namespace": space},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "resources": {"requests": {"storage": "1Gi"}},
                    "storageClassName": "nfs",
                },
            },
        )
        left.import_job(cache)
        ready = {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T03:40:00Z",
            "reason": "ImportSucceeded",
            "message": "Model import completed",
        }
        status = {
            "conditions": [ready],
            "copies": {"available": 1, "total": 1},
            "sharedPVCImport": {"pvcUID": "u", "completionTime": "2026-11-24T03:40:00Z"},
        }
        world.api.patch(NAMESPACE_CACHES, name, {"status": status}, space, subresource="status")

    def _users(self, caches: dict[str, KubeObject]) -> None:
        """Make the services, and write their names into the caches' status as KServe does."""
        world = self.world
        world.service("team-a", "chat", "llama", nodegroup="gpu")
        world.service("team-b", "big", "llama", resource=LLM_ISVCS, nodegroup="gpu")
        world.service("team-a", "own", "private", of_namespace=True, nodegroup="gpu")
        listed = {
            "llama": {
                "inferenceServices": [{"namespace": "team-a", "name": "chat"}],
                "llmInferenceServices": [{"namespace": "team-b", "name": "big"}],
            },
            "private": {"inferenceServices": [{"namespace": "team-a", "name": "own"}]},
        }
        for name, (space, _, nodes) in LAID_OUT.items():
            resource = NAMESPACE_CACHES if space else CACHES
            finalizer = NAMESPACE_FINALIZER if space else FINALIZER
            status = {
                "nodeStatus": dict.fromkeys(nodes, "NodeDownloaded"),
                "copies": {"available": len(nodes), "total": len(nodes), "failed": 0},
            }
            world.api.patch(resource, name, {"metadata": {"finalizers": [finalizer]}}, space)
            change = {"status": status | listed.get(name, {})}
            world.api.patch(resource, name, change, space, subresource="status")
            caches[name] = world.api.get(resource, name, space)

    def _model_nodes(self, left: KServeLeft) -> dict[str, KubeObject]:
        made = {}
        for node in NODE_NAMES:
            held = [
                (name, space, group)
                for name, (space, of, nodes) in LAID_OUT.items()
                for group in of
                if node in nodes and node in NODES_OF[group]
            ]
            entries = [
                {
                    "modelName": name,
                    "sourceModelUri": self.uri(name),
                    "nodeGroup": group,
                    **({"namespace": space} if space else {}),
                }
                for name, space, group in held
            ]
            obj = left.create(
                LOCAL_MODEL_NODES, {"metadata": {"name": node}, "spec": {"localModels": entries}}
            )
            keys = [f"{space}/{name}" if space else name for name, space, _ in held]
            self.world.report(node, dict.fromkeys(keys, "ModelDownloaded"))
            made[node] = obj
        return made

    def _folders(self) -> None:
        for name, (_, _, nodes) in LAID_OUT.items():
            path = f"{name}/weights.bin"
            content = weights(200_003)
            self.world.http.put(path, content)
            for node in nodes:
                folder = self.disk(node) / "models" / model_key(self.uri(name))
                folder.mkdir(parents=True)
                (folder / "weights.bin").write_bytes(content)

    def _deleted_one(self, left: KServeLeft, node: KubeObject) -> None:
        """Make and delete a cache whose deletion KServe's controller has not handled."""
        world = self.world
        world.kserve_cache("going", "gpu", sourceModelUri=self.uri("going"))
        world.patch(CACHES, "going", {"metadata": {"finalizers": [FINALIZER]}})
        world.delete(CACHES, "going")
        # The cache's Job has not begun either.
        left.job("going", node, self.uri("going"), "going-gpu")

    # The comparison.

    def disk(self, node: str) -> Path:
        """The disk of a node."""
        return self.world.cluster.nodes_dir / node

    def look_at_files(self) -> dict[str, Any]:
        """The files below models/ on each disk: kind, inode, mode, owner, time, and content."""
        seen: dict[str, Any] = {}
        for node in NODE_NAMES:
            root = self.disk(node) / "models"
            for path in sorted(root.rglob("*")):
                info = path.lstat()
                content = path.read_bytes() if path.is_file() else None
                seen[str(path.relative_to(self.disk(node).parent))] = (
                    *(info.st_ino, info.st_mode, info.st_uid, info.st_mtime_ns, info.st_ctime_ns),
                    content,
                )
        return seen

    def look_at_objects(self) -> dict[str, KubeObject]:
        """The state that must stay: uid and spec of each object, and services as a whole."""
        world = self.world
        seen: dict[str, KubeObject] = {}
        for resource in (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES):
            for obj in world.api.list(resource):
                if obj["metadata"]["name"] != "going":
                    seen[_name(resource, obj)] = _kept(obj)
        for namespace, claim in SERVED:
            obj = world.api.get(CLAIMS, claim, namespace)
            seen[_name(CLAIMS, obj)] = _kept(obj) | {"phase": obj["status"]["phase"]}
            obj = world.api.get(VOLUMES, f"{claim}-{namespace}")
            seen[_name(VOLUMES, obj)] = _kept(obj) | {"phase": obj["status"]["phase"]}
        for resource in (ISVCS, LLM_ISVCS):
            for obj in world.api.list(resource):
                seen[_name(resource, obj)] = obj
        space, name, claim = IMPORTED
        for resource, one in ((CLAIMS, claim), (JOBS, f"{name}-import")):
            obj = world.api.get(resource, one, space)
            seen[_name(resource, obj)] = _kept(obj)
        obj = world.api.get(NAMESPACE_CACHES, name, space)
        status = obj["status"]
        seen[_name(NAMESPACE_CACHES, obj)] |= {
            "ready": [one for one in status["conditions"] if one["type"] == "Ready"],
            "status": {field: status[field] for field in ("copies", "sharedPVCImport")},
            "held": NAMESPACE_FINALIZER in obj["metadata"].get("finalizers", ()),
        }
        return seen

    def compare(self) -> None:
        """Check that each object of before still exists, with the same uid and content."""
        now = self.look_at_objects()
        assert set(now) == set(self.objects)
        for name, before in self.objects.items():
            assert _covers(before, now[name]), (name, before, now[name])


def _name(resource: Kind, obj: KubeObject) -> str:
    metadata = obj["metadata"]
    return f"{resource.name} {metadata.get('namespace', '')}/{metadata['name']}"


def _kept(obj: KubeObject) -> KubeObject:
    return {"uid": obj["metadata"]["uid"], "spec": obj["spec"]}


def _covers(before: Any, now: Any) -> bool:
    """Whether each value of before is still there; localmodel adds fields of its own."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(_covers(v, now.get(k)) for k, v in before.items())
    if isinstance(before, list) and all(isinstance(item, dict) for item in before):
        # Entries of a LocalModelNode have the order of the plan.
        return len(before) == len(now) and all(
            any(_covers(item, other) for other in now) for item in before
        )
    return bool(before == now)
