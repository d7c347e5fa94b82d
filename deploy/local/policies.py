"""Whether the API server enforces an overlay's admission policies, which it does a moment late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube.errors import AlreadyExistsError, ApiError
from deploy.kube.kinds import CACHES, KubeObject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.kube.client import KubeClient

KIND = "ValidatingAdmissionPolicy"
# The last one of each overlay's manifests: where it is enforced, the others are known too.
LAST = "localmodel-cache-unique-uri"

_PROBE = "localmodel-probe"


def are_among(objects: Iterable[KubeObject]) -> bool:
    """Whether some of these objects are policies."""
    return any(obj["kind"] == KIND for obj in objects)


def in_force(api: KubeClient) -> bool:
    """Whether a second cache with the URI of a first one is refused because of it.

    The first one is made for that, and deleted at the end: no controller may run yet. A policy with
    a paramKind refuses everything until the API server has read its parameters.
    """
    if _refusal(api, _PROBE):
        return False
    if f"LocalModelCache {_PROBE} has" not in _refusal(api, f"{_PROBE}-2", dry_run=True):
        return False
    api.delete(CACHES, _PROBE)
    return True


def _refusal(api: KubeClient, name: str, *, dry_run: bool = False) -> str:
    """Message of the refusal of a cache of this name; empty where it is taken, or there."""
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
