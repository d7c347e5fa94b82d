"""Whether the API server enforces an overlay's admission policies, which it does a moment late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local.kubeapi import ApiError, Object, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.local.kubeapi import KubeApi

KIND = "ValidatingAdmissionPolicy"
CACHES = Resource("serving.kserve.io/v1alpha1", "localmodelcaches", "LocalModelCache", False)
# The last one of each overlay's manifests: where it is enforced, the others are known too.
LAST = "localmodel-cache-unique-uri"

_PROBE = "localmodel-probe"
_CONFLICT = 409


def are_among(objects: Iterable[Object]) -> bool:
    """Whether some of these objects are policies."""
    return any(obj["kind"] == KIND for obj in objects)


def in_force(api: KubeApi) -> bool:
    """Whether a second cache with the URI of a first one is refused because of it.

    The first one is made for that, and deleted at the end: no controller may run yet. A policy with
    a paramKind refuses everything until the API server has read its parameters.
    """
    if _refusal(api, _PROBE):
        return False
    if f"LocalModelCache {_PROBE} has" not in _refusal(api, f"{_PROBE}-2", dryRun="All"):
        return False
    api.request("DELETE", CACHES.path("", _PROBE))
    return True


def _refusal(api: KubeApi, name: str, **params: str) -> str:
    """Message of the refusal of a cache of this name; empty where it is taken, or there."""
    cache = {
        "apiVersion": CACHES.api_version,
        "kind": CACHES.kind,
        "metadata": {"name": name},
        "spec": {
            "sourceModelUri": "s3://localmodel/probe",
            "modelSize": "1Gi",
            "nodeGroups": ["probe"],
        },
    }
    try:
        api.request("POST", CACHES.path(), body=cache, params=params)
    except ApiError as error:
        return "" if error.status == _CONFLICT else error.message
    return ""
