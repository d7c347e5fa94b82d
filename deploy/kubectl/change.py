"""What evict, verify, pin and unpin change, and what they say before. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crds.keys import model_key
from crds.naming import claim_name
from crds.node_requests import (
    Operation,
    format_request_time,
    parse_request_name,
    request_annotation,
)
from deploy.kube import meta
from deploy.kubectl.cells import entries_of
from deploy.kubectl.links import moment
from deploy.kubectl.node_forecast import Copy, copies_of, ledger_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from deploy.kube.kinds import KubeObject
    from deploy.kubectl.snapshot import Snapshot

MANAGER = "localmodel-kubectl"
# The reason of a model that was evicted, and that something refers to.
_COMES_BACK = "Referenced"


class NoCopyError(Exception):
    """A node has no whole copy of a model. The message says what it has."""


class EvictionEffect(Struct, frozen=True, rename="camel"):
    """What a request to evict a copy does.

    models: all caches of the copy. pods: how many pods use it. hindrance: why the copy stays for
    now; empty: it goes at once. returns: whether it comes back then, since a service or a workload
    refers to it.
    """

    node: str
    key: str
    models: tuple[str, ...]
    bytes: int
    pods: int
    hindrance: str
    returns: bool


def key_of(cache: KubeObject) -> str:
    """The key of a cache's model."""
    return model_key(str((cache.get("spec") or {}).get("sourceModelUri") or ""))


def copy_on(node: KubeObject, key: str, model: str) -> Copy:
    """The whole copy of a key on a node. Raises NoCopyError."""
    copy = copies_of(node).get(key, Copy())
    if not copy.cached:
        state = f": it is {copy.state} there" if copy.state else ""
        raise NoCopyError(f"{meta.name(node)} has no copy of {model}{state}")
    return copy


def nodes_with(snapshot: Snapshot, key: str, model: str) -> list[KubeObject]:
    """The LocalModelNodes that have a whole copy of a key, by name. Raises NoCopyError."""
    nodes = snapshot.local_model_node_by_name
    found = [
        nodes[name] for name in sorted(nodes) if copies_of(nodes[name]).get(key, Copy()).cached
    ]
    if not found:
        raise NoCopyError(f"no node has a copy of {model}")
    return found


def eviction_effect(node: KubeObject, key: str) -> EvictionEffect:
    """What a request to evict a copy does, as far as the LocalModelNode says."""
    copy, ledger = copies_of(node).get(key, Copy()), ledger_of(node, {})
    holding = ledger.holding(key)
    keeping = sorted(
        name
        for name in holding.groups
        if name not in ledger.groups or not ledger.groups[name].evicts
    )
    hindrance = ""
    if copy.pods:
        hindrance = f"{_pods(copy.pods)} it: it goes when they have ended"
    elif holding.pinned:
        hindrance = "a cache of it has retention: Pinned: run kubectl localmodel unpin first"
    elif keeping or not holding.groups:
        group = keeping[0] if keeping else ""
        hindrance = f"the group {group} evicts nothing: set its eviction.policy to LRU"
    return EvictionEffect(
        meta.name(node),
        key,
        copy.models,
        copy.disk_bytes,
        copy.pods,
        hindrance,
        # The pods that use it have ended by then.
        returns=any(
            entry.get("referenced")
            for entry in entries_of(node)
            if model_key(str(entry.get("sourceModelUri") or "")) == key
        ),
    )


def _pods(number: int) -> str:
    return "a pod uses" if number == 1 else f"{number} pods use"


def request_time(node: KubeObject, key: str, now: datetime) -> datetime:
    """The time to write into a request: later than all that the agent has noted of the copy.

    The status has times in seconds, by the node's clock.
    """
    noted = (
        _second_after(model.get(field))
        for model in _reports(node, key)
        for field in ("downloadedTime", "verifiedTime")
    )
    return max([now, *(time for time in noted if time)])


def _second_after(text: object) -> datetime | None:
    """The second after a time of a status; None if there is none, or no later time."""
    then = moment(str(text or ""))
    try:
        return then + timedelta(seconds=1) if then else None
    except OverflowError:
        return None


def request_patch(
    node: KubeObject, operation: Operation, key: str, time: datetime | None
) -> KubeObject:
    """The merge patch of a LocalModelNode that makes a request, or withdraws it (no time).

    Requests for models that the node neither lists nor has any more are removed.
    """
    spec = node.get("spec") or {}
    known = {model_key(entry["sourceModelUri"]) for entry in spec.get("localModels") or ()}
    known |= copies_of(node).keys()
    changed: dict[str, str | None] = {
        name: None for name in meta.annotations_of(node) if _key_in(name) not in {None, *known}
    }
    changed[request_annotation(operation, key)] = format_request_time(time) if time else None
    return {"metadata": {"annotations": changed}}


def _key_in(annotation: str) -> str | None:
    try:
        found = parse_request_name(annotation)
    except ValueError:
        return None
    return found[1] if found else None


@dataclass(frozen=True)
class Progress:
    """Where a request stands. done: whether it was carried out. message: what it waits for."""

    done: bool
    message: str = ""


def eviction_progress(node: KubeObject, key: str, time: datetime) -> Progress:
    """Where a request to evict stands, by the LocalModelNode.

    A copy that is not `cached` may still be on the disk, such as one of a disk that failed.
    """
    models = _reports(node, key)
    if any(model["state"] == "Evicted" for model in models):
        # An eviction is reported two seconds before it happens.
        return Progress(done=not any(one.get("diskBytes") for one in models), message="it goes")
    # It is on its way back, or it is back, or waits for that. While there is a copy, also on a disk
    # that failed, a report has the time of its download.
    gone = any(model.get("reason") == _COMES_BACK for model in models) or not any(
        model.get("cached") or model.get("downloadedTime") for model in models
    )
    return Progress(
        done=gone or _is_after(models, "downloadedTime", time), message=_message(models)
    )


def verification_progress(node: KubeObject, key: str, time: datetime) -> Progress:
    """Where a request to verify stands, by the LocalModelNode."""
    models = _reports(node, key)
    if not any(model.get("cached") for model in models):
        # A copy that another cache is served from has its bytes, whatever hash this one requests.
        damaged = [model for model in models if model.get("reason") == "Corrupt"]
        return Progress(done=True, message=_message(damaged) or "the copy has gone")
    if _is_after((one for one in models if one.get("cached")), "verifiedTime", time):
        return Progress(done=True)
    return Progress(done=False, message="not verified yet: its files are read")


def _reports(node: KubeObject, key: str) -> list[dict[str, Any]]:
    models = (node.get("status") or {}).get("models") or ()
    return [model for model in models if model["key"] == key]


def _is_after(models: Iterable[dict[str, Any]], field: str, time: datetime) -> bool:
    """Whether a time of a report is that of a request or later. Reports have whole seconds."""
    times = (_second_after(model.get(field)) for model in models)
    return any(after is not None and after > time for after in times)


def _message(models: Iterable[dict[str, Any]]) -> str:
    return next((str(one["message"]) for one in models if one.get("message")), "")


def retention_apply(cache: KubeObject, *, pinned: bool) -> KubeObject:
    """The configuration to apply by server-side apply. The uid prevents that it makes a cache."""
    names = {
        key: cache["metadata"][key]
        for key in ("name", "namespace", "uid")
        if key in cache["metadata"]
    }
    return {
        "apiVersion": cache["apiVersion"],
        "kind": cache["kind"],
        "metadata": names,
        "spec": {"retention": "Pinned" if pinned else "Evictable"},
    }


def pods_of_claims(pods: Iterable[KubeObject], caches: Iterable[KubeObject]) -> list[str]:
    """The pods that mount a claim of one of these caches, as namespace/name.

    Pods that mount the root by a hostPath, or the model by a sub-path of another claim, are not
    among them.
    """
    claims = [
        (meta.namespace(cache), claim_name(meta.name(cache), group))
        for cache in caches
        for group in _groups(cache)
    ]
    return sorted(
        f"{meta.namespace(pod)}/{meta.name(pod)}"
        for pod in pods
        if any(
            name in _claims_of(pod) and namespace in {"", meta.namespace(pod)}
            for namespace, name in claims
        )
    )


def _groups(cache: KubeObject) -> list[str]:
    spec = cache.get("spec") or {}
    return [name for name in (*(spec.get("nodeGroups") or ()), spec.get("nodeGroup")) if name]


def _claims_of(pod: KubeObject) -> set[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if volume.get("persistentVolumeClaim")
    }
