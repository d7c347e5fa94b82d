"""Which pods of the node use which models. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from crds.keys import MODEL_KEY_LENGTH
from crds.naming import claim_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.disk.manifest import CacheName

_ENDED = {"Succeeded", "Failed"}
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_KEY = re.compile(f"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")
_MODELS = "models"


@dataclass(frozen=True)
class PodMounts:
    """What a pod mounts that can be a model.

    `claims` are the PersistentVolumeClaims of its volumes, but for those that it mounts only by
    sub-paths that name models: a claim's volume is the root of all models. `keys` are the models
    that its sub-paths, or the paths of its hostPath volumes, name.
    """

    namespace: str
    name: str
    claims: frozenset[str]
    keys: frozenset[str]


def parse_pod(obj: dict[str, Any]) -> PodMounts | None:
    """What a pod (as JSON) mounts; None if it has ended, or mounts nothing that can be a model.

    A pod that waits to start counts: it may wait for the model. One that is being deleted counts
    until it has ended.
    """
    if (obj.get("status") or {}).get("phase") in _ENDED:
        return None
    spec = obj.get("spec") or {}
    mounts: dict[str, list[str]] = {}
    for volume, path in _mounts(spec):
        mounts.setdefault(volume, []).append(path)
    claims: set[str] = set()
    keys: set[str] = set()
    for volume in spec.get("volumes") or ():
        paths = mounts.get(volume["name"], [])
        if volume.get("persistentVolumeClaim"):
            named = [_key_of_sub_path(path) for path in paths]
            keys.update(key for key in named if key)
            if not all(named) or not named:
                claims.add(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("hostPath"):
            root = volume["hostPath"]["path"]
            keys.update(_key_of_host_path(f"{root}/{path}") for path in paths or [""])
    keys.discard("")
    if not claims and not keys:
        return None
    meta = obj["metadata"]
    return PodMounts(meta["namespace"], meta["name"], frozenset(claims), frozenset(keys))


def users(
    pods: Iterable[PodMounts], caches: Mapping[str, Iterable[CacheName]]
) -> dict[str, tuple[PodMounts, ...]]:
    """The pods that use each key, for the keys that any pod uses. caches: whose each key is.

    A pod uses a key if it names it, or if it mounts the whole claim of one of its caches. A claim
    in another namespace that has this name by chance only keeps a model longer.
    """
    pods = tuple(pods)
    named = {key: tuple(names) for key, names in caches.items()}
    named |= {key: () for pod in pods for key in sorted(pod.keys) if key not in named}
    found = {
        key: tuple(
            pod
            for pod in pods
            if key in pod.keys or any(_mounts_claim_of(pod, cache) for cache in names)
        )
        for key, names in named.items()
    }
    return {key: using for key, using in found.items() if using}


def _mounts_claim_of(pod: PodMounts, cache: CacheName) -> bool:
    if cache.namespace not in {"", pod.namespace}:
        return False
    name = claim_name(cache.name, cache.node_group)
    if not cache.node_group:
        # Another writer of LocalModelNodes did not tell the group: the claim may be of any.
        return any(claim.startswith(name) for claim in pod.claims)
    return name in pod.claims


def _mounts(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Volume and sub-path of each mount of each container."""
    for kind in _CONTAINERS:
        for container in spec.get(kind) or ():
            for mount in container.get("volumeMounts") or ():
                yield mount["name"], mount.get("subPath") or mount.get("subPathExpr") or ""


def _key_of_sub_path(path: str) -> str:
    """The key in `models/<key>` or `models/<key>/...`, else ''.

    A `$(VARIABLE)` of subPathExpr in its place is no key, so that the claim counts.
    """
    segments = _segments(path)
    if len(segments) > 1 and segments[0] == _MODELS and _KEY.fullmatch(segments[1]):
        return segments[1]
    return ""


def _key_of_host_path(path: str) -> str:
    """The key in `<root>/models/<key>`, else ''. The root's path on the host is not known here."""
    segments = _segments(path)
    for parent, name in pairwise(segments):
        if parent == _MODELS and _KEY.fullmatch(name):
            return name
    return ""


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment not in {"", "."}]
