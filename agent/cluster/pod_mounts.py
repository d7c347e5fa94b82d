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
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_KEY = re.compile(f"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")
_MODELS = "models"


@dataclass(frozen=True)
class PodMounts:
    """The mounts of a pod that can be models.

    `claims` are the PersistentVolumeClaims of its volumes, except those that the pod mounts only
    by sub-paths that name keys: the volume of a claim is the root of all models. `keys` are the
    keys in its sub-paths, `host_keys` those in the paths of its hostPath volumes.
    """

    namespace: str
    name: str
    claims: frozenset[str]
    keys: frozenset[str]
    host_keys: frozenset[str] = frozenset()


def parse_pod(obj: dict[str, Any]) -> PodMounts | None:
    """The mounts of a pod (as JSON); None if it has ended, or no mount can be a model.

    A pending pod counts, as it may wait for the model. A pod that is being deleted counts until it
    has ended.
    """
    if (obj.get("status") or {}).get("phase") in _ENDED:
        return None
    spec = obj.get("spec") or {}
    mounts: dict[str, list[str]] = {}
    for volume, path in _mounts(spec):
        mounts.setdefault(volume, []).append(path)
    claims: set[str] = set()
    keys: set[str] = set()
    host_keys: set[str] = set()
    for volume in spec.get("volumes") or ():
        paths = mounts.get(volume["name"], [])
        if volume.get("persistentVolumeClaim"):
            named = [_key_of_sub_path(path) for path in paths]
            keys.update(key for key in named if key)
            if not all(named) or not named:
                claims.add(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("hostPath"):
            root = volume["hostPath"]["path"]
            host_keys.update(_key_of_host_path(f"{root}/{path}") for path in paths or [""])
    host_keys.discard("")
    if not claims and not keys and not host_keys:
        return None
    meta = obj["metadata"]
    return PodMounts(
        meta["namespace"], meta["name"], frozenset(claims), frozenset(keys), frozenset(host_keys)
    )


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


def _mounts(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The volume and sub-path of each mount of each container."""
    for kind in _CONTAINERS:
        for container in spec.get(kind) or ():
            for mount in container.get("volumeMounts") or ():
                yield mount["name"], mount.get("subPath") or mount.get("subPathExpr") or ""


def _key_of_sub_path(path: str) -> str:
    """The key in `models/<key>` or `models/<key>/...`, else ''.

    A `$(VARIABLE)` of subPathExpr in the key's position is no key, so the whole claim counts.
    """
    segments = _segments(path)
    if len(segments) > 1 and segments[0] == _MODELS and _KEY.fullmatch(segments[1]):
        return segments[1]
    return ""


def _key_of_host_path(path: str) -> str:
    """The key in `<any root>/models/<key>`, else ''. The agent does not know the host's path."""
    segments = _segments(path)
    for parent, name in pairwise(segments):
        if parent == _MODELS and _KEY.fullmatch(name):
            return name
    return ""


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment not in {"", "."}]
