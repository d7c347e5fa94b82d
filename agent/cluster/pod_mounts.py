"""Decides which pods of the node use which models. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from crds.keys import MODEL_KEY_LENGTH
from crds.naming import claim_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.structs.manifest import CacheName

_ENDED = {"Succeeded", "Failed"}
# The lists of containers in a pod's spec, and those of their statuses.
_CONTAINERS = {
    "containers": "containerStatuses",
    "initContainers": "initContainerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}
_KEY = re.compile(f"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")
_VARIABLE = re.compile(r"\$\(([A-Za-z0-9_.-]+)\)")
# A key is the name of a folder in one of these.
_FOLDERS = {"models", "volumes"}
# Kubelet's reason while a sub-path of a read-only volume does not exist.
_NO_SUB_PATH = "CreateContainerConfigError"


@dataclass(frozen=True)
class PodMounts:
    """The mounts of a pod that can be models.

    `claims` are the PersistentVolumeClaims of its volumes, except those that the pod mounts only
    by sub-paths that name keys: the volume of a claim can be the root of all models. `keys` are the
    keys in its sub-paths, `host_keys` those in the paths of its hostPath volumes.

    `waits`: a container that has such a mount has not started. `is_blocked`: kubelet has reported
    that it cannot start such a container, as it does while a model is missing.
    """

    namespace: str
    name: str
    claims: frozenset[str]
    keys: frozenset[str]
    host_keys: frozenset[str] = frozenset()
    uid: str = ""
    waits: bool = False
    is_blocked: bool = False


@dataclass(frozen=True)
class _Mount:
    """A mount of a container, with the container's status; None while kubelet has reported none."""

    volume: str
    path: str
    status: dict[str, Any] | None


def parse_pod(obj: dict[str, Any]) -> PodMounts | None:
    """The mounts of a pod (as JSON); None if it has ended, or no mount can be a model.

    A pending pod counts, as it may wait for the model. A pod that is being deleted counts until it
    has ended, and waits for nothing.
    """
    status = obj.get("status") or {}
    if status.get("phase") in _ENDED:
        return None
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    mounts: dict[str, list[_Mount]] = {}
    for mount in _mounts(spec, status):
        mounts.setdefault(mount.volume, []).append(mount)
    unstarted: list[_Mount] = []
    claims: set[str] = set()
    keys: set[str] = set()
    host_keys: set[str] = set()
    for volume in spec.get("volumes") or ():
        own = mounts.get(volume["name"], [])
        paths, claim = [mount.path for mount in own], _claim_of(volume, meta["name"])
        if claim:
            named = [_key_of_sub_path(path) for path in paths]
            keys.update(key for key in named if key)
            if not all(named) or not named:
                claims.add(claim)
        elif volume.get("hostPath"):
            root = volume["hostPath"]["path"]
            found = {_key_of_host_path(f"{root}/{path}") for path in paths or [""]} - {""}
            host_keys |= found
            if not found:
                continue
        else:
            continue
        unstarted += [mount for mount in own if not _has_started(mount.status, status)]
    if not claims and not keys and not host_keys:
        return None
    is_leaving = bool(meta.get("deletionTimestamp"))
    return PodMounts(
        meta["namespace"],
        meta["name"],
        frozenset(claims),
        frozenset(keys),
        frozenset(host_keys),
        uid=meta.get("uid") or "",
        waits=bool(unstarted) and not is_leaving,
        is_blocked=any(_is_blocked(mount.status) for mount in unstarted) and not is_leaving,
    )


def _claim_of(volume: dict[str, Any], pod: str) -> str:
    """The claim of a volume, else ''. Kubernetes names the claim of a generic ephemeral volume."""
    if volume.get("persistentVolumeClaim"):
        return str(volume["persistentVolumeClaim"]["claimName"])
    return f"{pod}-{volume['name']}" if volume.get("ephemeral") else ""


def _has_started(container: dict[str, Any] | None, pod: dict[str, Any]) -> bool:
    """Whether a container runs or has run, by its status and its pod's.

    A container that ran and now waits for its next start counts, unless its mounts keep it waiting.
    """
    if container is None:
        return pod.get("phase") != "Pending"
    state = container.get("state") or {}
    if "running" in state or "terminated" in state:
        return True
    return not _is_blocked(container) and "terminated" in (container.get("lastState") or {})


def _is_blocked(container: dict[str, Any] | None) -> bool:
    waiting = ((container or {}).get("state") or {}).get("waiting") or {}
    return waiting.get("reason") == _NO_SUB_PATH


def users(
    pods: Iterable[PodMounts], caches: Mapping[str, Iterable[CacheName]]
) -> dict[str, tuple[PodMounts, ...]]:
    """The pods that use each key, without the unused keys. caches: the owners of each key.

    A pod uses a key if a path of it names the key, or if it mounts the whole claim of one of the
    key's caches. A claim of the same name in another namespace only delays a removal. In a
    sub-path, a pod with any claim can name any key: that does not count where only other
    namespaces have caches of the key, or a tenant could keep others' copies on the node.
    """
    index = _Index(tuple(pods))
    named = {key: tuple(names) for key, names in caches.items()}
    named |= dict.fromkeys(sorted(index.by_key.keys() - named.keys()), ())
    found = {key: index.users(key, names) for key, names in named.items()}
    return {key: using for key, using in found.items() if using}


class _Index:
    """The pods by their mounts, so that a cache need not be compared with every pod."""

    def __init__(self, pods: tuple[PodMounts, ...]) -> None:
        self._pods = pods
        # Indexes into `pods`: by key, and by namespace and claim; an empty namespace means any.
        self.by_key: dict[str, list[int]] = {}
        self._by_claim: dict[tuple[str, str], list[int]] = {}
        for index, pod in enumerate(pods):
            for key in pod.keys | pod.host_keys:
                self.by_key.setdefault(key, []).append(index)
            for claim in pod.claims:
                for namespace in ("", pod.namespace):
                    self._by_claim.setdefault((namespace, claim), []).append(index)
        self._claims = sorted(self._by_claim)

    def users(self, key: str, names: Iterable[CacheName]) -> tuple[PodMounts, ...]:
        """The pods that use a key of these caches, in the order of `pods`."""
        names = tuple(names)
        namespaces = {cache.namespace for cache in names}
        found = {
            index
            for index in self.by_key.get(key, ())
            if not namespaces
            or not namespaces.isdisjoint({"", self._pods[index].namespace})
            or key in self._pods[index].host_keys
        }
        for cache in names:
            for claim in self._claims_of(cache):
                found.update(self._by_claim.get(claim, ()))
        return tuple(self._pods[index] for index in sorted(found))

    def _claims_of(self, cache: CacheName) -> Iterator[tuple[str, str]]:
        name = claim_name(cache.name, cache.node_group)
        if cache.node_group:
            yield cache.namespace, name
            return
        # Without a group, from another writer of LocalModelNodes, the claim of any group counts.
        for index in range(bisect_left(self._claims, (cache.namespace, name)), len(self._claims)):
            namespace, claim = self._claims[index]
            if namespace != cache.namespace or not claim.startswith(name):
                return
            yield namespace, claim


def _mounts(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[_Mount]:
    """Each mount of each container."""
    for kind, statuses in _CONTAINERS.items():
        by_name = {one["name"]: one for one in status.get(statuses) or ()}
        for container in spec.get(kind) or ():
            for mount in container.get("volumeMounts") or ():
                path = mount.get("subPath") or _expanded(mount.get("subPathExpr") or "", container)
                yield _Mount(mount["name"], path, by_name.get(container["name"]))


def _expanded(path: str, container: dict[str, Any]) -> str:
    """A subPathExpr with the container's variables that have a value in the spec."""
    if "$(" not in path:
        return path
    values = {one["name"]: one.get("value") for one in container.get("env") or ()}
    return _VARIABLE.sub(lambda found: values.get(found[1]) or found[0], path)


def _key_of_sub_path(path: str) -> str:
    """The key in `models/<key>` or `volumes/<key>`, or in a path below one of them, else ''.

    A `$(VARIABLE)` whose value is not known here is no key, so the whole claim counts.
    """
    segments = _segments(path)
    if len(segments) > 1 and segments[0] in _FOLDERS and _KEY.fullmatch(segments[1]):
        return segments[1]
    return ""


def _key_of_host_path(path: str) -> str:
    """The key in `<any root>/models/<key>` or `<any root>/volumes/<key>`, else ''.

    The agent does not know the root's path on the host.
    """
    segments = _segments(path)
    for parent, name in pairwise(segments):
        if parent in _FOLDERS and _KEY.fullmatch(name):
            return name
    return ""


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment not in {"", "."}]
