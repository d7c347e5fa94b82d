"""Whether the API server enforces admission policies already, some time after their creation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube.errors import AlreadyExistsError, ApiError
from deploy.kube.kinds import CACHES, PLACEMENTS, PODS, KubeObject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.client import KubeClient

KIND = "ValidatingAdmissionPolicy"
# The last policy in the manifests of each overlay: when it is enforced, the others are too.
LAST = "localmodel-cache-unique-uri"

_PROBE = "localmodel-probe"


def are_among(objects: Iterable[KubeObject]) -> bool:
    """Whether objects include admission policies."""
    return any(obj["kind"] == KIND for obj in objects)


def in_force(api: KubeClient) -> bool:
    """Whether the policies refuse a second cache with one URI, and not the first cache.

    A policy with a paramKind and failurePolicy Fail refuses everything until the API server has
    read its parameters. Creates the first cache and deletes it at the end, so no controller may run
    yet.
    """
    if _refusal(api, _PROBE):
        return False
    if f"LocalModelCache {_PROBE} has" not in _refusal(api, f"{_PROBE}-2", dry_run=True):
        return False
    api.delete(CACHES, _PROBE)
    return True


def for_pods_in_force(api: KubeClient) -> bool:
    """Whether a pod gets a model by its label, and an unknown model is refused.

    Creates a plan of no node, and deletes it at the end.
    """
    plan = {
        "apiVersion": PLACEMENTS.api_version,
        "kind": PLACEMENTS.name,
        "metadata": {"name": _PROBE},
        "spec": {
            "nodeSelectorTerms": [],
            "storageLimit": "0",
            "offers": {_PROBE: {"key": "0" * 16, "default": True}},
        },
    }
    api.apply(plan, manager=_PROBE)
    if _claims(api, _PROBE) != f"{_PROBE}={_PROBE}-{_PROBE}":
        return False
    if f"there is no model {_PROBE}-2" not in _claims(api, f"{_PROBE}-2"):
        return False
    api.delete(PLACEMENTS, _PROBE)
    return True


def _claims(api: KubeClient, model: str) -> str:
    """The claims that a pod would get by its label, or the message of the refusal."""
    pod = {
        "apiVersion": PODS.api_version,
        "kind": PODS.name,
        "metadata": {
            "name": _PROBE,
            "namespace": "default",
            "labels": {"localmodel.serving.kserve.io/model": model},
        },
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }
    try:
        made = api.create(pod, dry_run=True)
    except ApiError as error:
        return error.message
    annotations: dict[str, str] = made["metadata"].get("annotations", {})
    return annotations.get("localmodel.serving.kserve.io/claims", "")


def _refusal(api: KubeClient, name: str, *, dry_run: bool = False) -> str:
    """Create a cache, and return the message of the refusal; empty if it is created or exists."""
    cache = {
        "apiVersion": CACHES.api_version,
        "kind": CACHES.name,
        "metadata": {"name": name},
        "spec": {
            "sourceModelUri": "s3://localmodel/probe",
            "modelSize": "1Gi",
            "nodeGroups": ["probe"],
        },
    }
    try:
        api.create(cache, dry_run=dry_run)
    except AlreadyExistsError:
        return ""
    except ApiError as error:
        return error.message
    return ""
