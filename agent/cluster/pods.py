"""Which pods of the node use which models. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from localmodel.crds.keys import MODEL_KEY_LENGTH
from localmodel.crds.naming import claim_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from localmodel.agent.structs.manifest import CacheName

_ENDED = {"Succeeded", "Failed"}
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_KEY = re.compile(f"[0-9a-f]{{{MODEL_KEY_LENGTH}}}")
_MODELS = "models"


@dataclass(frozen=True)
class PodMounts:
    """What a pod mounts that can be a model.

    `claims` are the PersistentVolumeClaims of its volumes, but for those that it mounts only by
    sub-paths that name models: a claim's volume is the root of all models. `keys` are the models
    that its sub-paths name, `host_keys` those that the paths of its hostPath volumes name.
    """

    namespace: str
    name: str
    claims: frozenset[str]
    keys: frozenset[str]
    host_keys: frozenset[str] = frozenset()


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
    """The pods that use each key, for the keys that any pod uses. caches: whose each key is.

    A pod uses a key if it names it, or if it mounts the whole claim of one of its caches. A claim
    in another namespace that has this name by chance only keeps a model longer. By a sub-path each
    pod with any claim can name each key: where only other namespaces have caches of one, that is no
    use, or any tenant could keep what it likes here, and have it used.
    """
    index = _Index(tuple(pods))
    named = {key: tuple(names) for key, names in caches.items()}
    named |= dict.fromkeys(sorted(index.by_key.keys() - named.keys()), ())
    found = {key: index.users(key, names) for key, names in named.items()}
    return {key: using for key, using in found.items() if using}


class _Index:
    """The pods by what they mount, so that no cache has to look at each of them."""

    def __init__(self, pods: tuple[PodMounts, ...]) -> None:
        self._pods = pods
        # Places in `pods`: by key, and by namespace and claim; an empty namespace is any.
        self.by_key: dict[str, list[int]] = {}
        self._by_claim: dict[tuple[str, str], list[int]] = {}
        for place, pod in enumerate(pods):
            for key in pod.keys | pod.host_keys:
                self.by_key.setdefault(key, []).append(place)
            for claim in pod.claims:
                for namespace in ("", pod.namespace):
                    self._by_claim.setdefault((namespace, claim), []).append(place)
        self._claims = sorted(self._by_claim)

    def users(self, key: str, names: Iterable[CacheName]) -> tuple[PodMounts, ...]:
        """The pods that use a key of these caches, in their order."""
        names = tuple(names)
        namespaces = {cache.namespace for cache in names}
        found = {
            place
            for place in self.by_key.get(key, ())
            if not namespaces
            or not namespaces.isdisjoint({"", self._pods[place].namespace})
            or key in self._pods[place].host_keys
        }
        for cache in names:
            for claim in self._claims_of(cache):
                found.update(self._by_claim.get(claim, ()))
        return tuple(self._pods[place] for place in sorted(found))

    def _claims_of(self, cache: CacheName) -> Iterator[tuple[str, str]]:
        name = claim_name(cache.name, cache.node_group)
        if cache.node_group:
            yield cache.namespace, name
            return
        # Another writer of LocalModelNodes did not tell the group: the claim may be of any.
        for place in range(bisect_left(self._claims, (cache.namespace, name)), len(self._claims)):
            namespace, claim = self._claims[place]
            if namespace != cache.namespace or not claim.startswith(name):
                return
            yield namespace, claim


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
