"""Whether the API server enforces an overlay's admission policies, which it does a moment late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local.kubeapi import ApiError, Object, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy.local.kubeapi import KubeApi

KIND = "ValidatingAdmissionPolicy"
CACHES = Resource("serving.kserve.io/v1alpha1", "localmodelcaches", "LocalModelCache", False)
# The last one of the overlay's manifest: where it is enforced, the others are known too.
LAST = "localmodel-cache-node-groups"


def are_among(objects: Iterable[Object]) -> bool:
    """Whether some of these objects are policies."""
    return any(obj["kind"] == KIND for obj in objects)


def in_force(api: KubeApi) -> bool:
    """Whether a bad cache is refused by a policy, and a good one is not, by a dry run of each.

    A policy with a paramKind refuses everything until the API server has read its parameters.
    """
    return LAST in _refusal(api, {"nodeGroup": "probe"}) and not _refusal(
        api, {"nodeGroups": ["probe"]}
    )


def _refusal(api: KubeApi, groups: Object) -> str:
    """Message of the refusal of a cache of these groups; empty where it would be taken."""
    cache = {
        "apiVersion": CACHES.api_version,
        "kind": CACHES.kind,
        "metadata": {"name": "localmodel-probe"},
        "spec": {"sourceModelUri": "s3://localmodel/probe", "modelSize": "1Gi", **groups},
    }
    try:
        api.request("POST", CACHES.path(), body=cache, params={"dryRun": "All"})
    except ApiError as error:
        return error.message
    return ""
