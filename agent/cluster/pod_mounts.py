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
# Kubelet's reason while a sub-path of a read-only volume does not exist, and the volume that its
# message names. The reason is the same where a Secret is missing.
_NO_SUB_PATH = "CreateContainerConfigError"
_NAMED_VOLUME = re.compile(r'volumeMount "([^"]*)"')
# Kubelet's reasons while a container waits for its image, whatever it mounts.
_NO_IMAGE = {"ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"}


@dataclass(frozen=True)
class WaitingMount:
    """A mount of a container that has not started: the claim, and the key that its path names.

    `claim` is empty for a hostPath volume, and for a sub-path of a generic ephemeral volume. `key`
    is empty for a path that names no key. `is_blocked`: kubelet has reported that it cannot start
    the container, as it does while this mount is missing.
    """

    claim: str
    key: str
    is_blocked: bool = False


@dataclass(frozen=True)
class PodMounts:
    """The mounts of a pod that can be models.

    `claims` are the PersistentVolumeClaims of its volumes, except those that the pod mounts only
    by sub-paths that name keys: the volume of a claim can be the root of all models. `keys` are the
    keys in its sub-paths, `host_keys` those in the paths of its hostPath volumes. `waiting` are the
    mounts of its containers that have not started.
    """

    namespace: str
    name: str
    claims: frozenset[str]
    keys: frozenset[str]
    host_keys: frozenset[str] = frozenset()
    uid: str = ""
    waiting: frozenset[WaitingMount] = frozenset()


@dataclass(frozen=True)
class PodUse:
    """A pod that uses one model.

    `waits`: a container that mounts the model has not started. `is_blocked`: kubelet has reported
    that it cannot start such a container, as it does while the model is missing.
    """

    namespace: str
    name: str
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
    waiting: set[WaitingMount] = set()
    claims: set[str] = set()
    keys: set[str] = set()
    host_keys: set[str] = set()
    for volume in spec.get("volumes") or ():
        own, claim = mounts.get(volume["name"], []), _claim_of(volume, meta["name"])
        if claim:
            named = [(mount, _key_of_sub_path(mount.path)) for mount in own]
            keys.update(key for _, key in named if key)
            if not named or not all(key for _, key in named):
                claims.add(claim)
        elif volume.get("hostPath"):
            root = volume["hostPath"]["path"]
            named = [(mount, _key_of_host_path(f"{root}/{mount.path}")) for mount in own]
            found = {key for _, key in named} if own else {_key_of_host_path(root)}
            host_keys |= found - {""}
        else:
            continue
        waiting.update(_waiting_mounts(named, "" if volume.get("ephemeral") else claim, status))
    if not claims and not keys and not host_keys:
        return None
    return PodMounts(
        meta["namespace"],
        meta["name"],
        frozenset(claims),
        frozenset(keys),
        frozenset(host_keys),
        uid=meta.get("uid") or "",
        waiting=frozenset() if meta.get("deletionTimestamp") else frozenset(waiting),
    )


def _waiting_mounts(
    named: list[tuple[_Mount, str]], claim: str, status: dict[str, Any]
) -> Iterator[WaitingMount]:
    """The mounts that wait of one volume, of which `named` has all with their keys."""
    for mount, key in named:
        if (claim or key) and _awaits_mounts(mount.status, status):
            yield WaitingMount(claim, key, _is_blocked(mount))


def _claim_of(volume: dict[str, Any], pod: str) -> str:
    """The claim of a volume, else ''. Kubernetes names the claim of a generic ephemeral volume."""
    if volume.get("persistentVolumeClaim"):
        return str(volume["persistentVolumeClaim"]["claimName"])
    return f"{pod}-{volume['name']}" if volume.get("ephemeral") else ""


def _awaits_mounts(container: dict[str, Any] | None, pod: dict[str, Any]) -> bool:
    """Whether a container has not started, and not for its image, by its status and its pod's.

    A container that ran and now waits for its next start does not count, unless its mounts keep it
    waiting.
    """
    if container is None:
        return pod.get("phase") == "Pending"
    state = container.get("state") or {}
    if "running" in state or "terminated" in state:
        return False
    waits_for = _waiting(container).get("reason")
    if waits_for == _NO_SUB_PATH:
        return True
    return waits_for not in _NO_IMAGE and "terminated" not in (container.get("lastState") or {})


def _is_blocked(mount: _Mount) -> bool:
    """Whether kubelet has reported that it cannot start a container, maybe for this mount."""
    waiting = _waiting(mount.status)
    volume = _NAMED_VOLUME.search(waiting.get("message") or "")
    is_other = volume is not None and volume[1] != mount.volume
    return waiting.get("reason") == _NO_SUB_PATH and not is_other


def _waiting(container: dict[str, Any] | None) -> dict[str, Any]:
    """Why a container waits: kubelet's reason and message."""
    return ((container or {}).get("state") or {}).get("waiting") or {}


def users(
    pods: Iterable[PodMounts], caches: Mapping[str, Iterable[CacheName]]
) -> dict[str, tuple[PodUse, ...]]:
    """The pods that use each key, without the unused keys. caches: the owners of each key.

    A pod uses a key if a path of it names the key, or if it mounts the whole claim of one of the
    key's caches. A claim of the same name in another namespace only delays a removal. In a
    sub-path, a pod with any claim can name any key: that does not count where only other
    namespaces have caches of the key, or a tenant could keep others' copies on the node. A pod
    waits for a key only by a mount whose claim is of one of the key's caches, or a hostPath: no
    other claim leads to the model for sure.
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
        # By namespace, claim and key of a mount that waits: the pods, and whether they are blocked.
        self._waiting: dict[tuple[str, str, str], dict[int, bool]] = {}
        for index, pod in enumerate(pods):
            for key in pod.keys | pod.host_keys:
                self.by_key.setdefault(key, []).append(index)
            for claim in pod.claims:
                for namespace in ("", pod.namespace):
                    self._by_claim.setdefault((namespace, claim), []).append(index)
            for mount in pod.waiting:
                for namespace in ("", pod.namespace):
                    by_pod = self._waiting.setdefault((namespace, mount.claim, mount.key), {})
                    by_pod[index] = by_pod.get(index, False) or mount.is_blocked
        self._claims = sorted({*self._by_claim, *((one[0], one[1]) for one in self._waiting)})

    def users(self, key: str, names: Iterable[CacheName]) -> tuple[PodUse, ...]:
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
        # The pods that wait for the key, and whether they are blocked.
        waiting = dict(self._waiting.get(("", "", key), {}))
        for cache in names:
            for namespace, claim in self._claims_of(cache):
                found.update(self._by_claim.get((namespace, claim), ()))
                for path in ("", key):
                    for index, is_blocked in self._waiting.get(
                        (namespace, claim, path), {}
                    ).items():
                        waiting[index] = waiting.get(index, False) or is_blocked
        return tuple(self._use(index, waiting) for index in sorted(found))

    def _use(self, index: int, waiting: Mapping[int, bool]) -> PodUse:
        pod = self._pods[index]
        return PodUse(pod.namespace, pod.name, pod.uid, index in waiting, waiting.get(index, False))

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
