"""Bounds of the objects that the hooks write: the API server stores at most 1.5 MiB of an object.

A plan that is larger could not be stored, and the old one would stay for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hooks.messages import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from crds.models import PlacedModel
    from crds.nodegroup import (
        GroupModel,
        LocalModelNodeGroupSpec,
        LocalModelNodeGroupStatus,
        RejectedModel,
    )
    from crds.placement import LocalModelPlacementSpec

_Item = TypeVar("_Item")

# Of a plan, for its models. The plan has the names of the nodes with the turn too, and a
# LocalModelNode has a status beside its entries.
PLAN_BYTES = 500_000
# Of a plan, for its offers. Without the names of namespaces that hide a model, the offers of all
# models take about as much as the models.
OFFERS_BYTES = 600_000
# Of a plan, for all of it. What the nodes need to fetch from each other gets what the rest leaves.
PLACEMENT_BYTES = 1_400_000
# Of the manifest of a model in a plan: `"verifiedManifest":"sha256:<64 digits>",`.
MANIFEST_BYTES = 93
# Of a LocalModelNode, for its entries, which are those of all its groups. Its peers get what the
# entries leave.
NODE_BYTES = 600_000
# Of a group's status, for its models without their messages.
MODELS_BYTES = 1_100_000
# Of a group's status, for its models and the rejected ones, with their messages.
STATUS_BYTES = 1_300_000
# Of a group's spec, which is stored beside the status, and whose node selector the plan repeats. A
# longer spec leaves less room for the models.
SPEC_BYTES = 150_000
# Characters of a shortened message.
_SHORT_MESSAGE = 120
# Bytes of a model in a status without its name, its message and its letters; and those of its rate
# and its times, which are left out where there is no room.
_MODEL_BYTES = 300
_TIMES_BYTES = 130
_TIMES = ("bytes_per_second", "estimated_completion_time", "last_download_seconds")
# Most services of each kind in the status of a cache.
SERVICES_MAX = 1000
# Most workloads in the status of a cache.
WORKLOADS_MAX = 1000


def json_bytes(model: PlacedModel) -> int:
    """Bytes of an entry of a plan."""
    return len(model.model_dump_json(by_alias=True, exclude_none=True).encode())


def spec_excess(spec: LocalModelNodeGroupSpec) -> int:
    """Bytes of a group's spec above SPEC_BYTES, which the models have less."""
    return max(len(spec.model_dump_json(exclude_unset=True).encode()) - SPEC_BYTES, 0)


def plan_bytes(spec: LocalModelNodeGroupSpec) -> int:
    """Bytes of a plan for its models."""
    return PLAN_BYTES - spec_excess(spec)


def peers_room(plan: LocalModelPlacementSpec, nodes: Iterable[str]) -> int:
    """Bytes that a plan has left for its peers, whichever of the nodes have the turn."""
    rest = plan.model_copy(update={"turn": None, "peers": None})
    taken = len(rest.model_dump_json(by_alias=True, exclude_none=True).encode())
    return PLACEMENT_BYTES - taken - sum(len(name) + 3 for name in nodes)


def fitting(
    status: LocalModelNodeGroupStatus, spec: LocalModelNodeGroupSpec
) -> tuple[LocalModelNodeGroupStatus, int]:
    """The status as it can be stored, and the number of rejected models that it has no room for."""
    room = STATUS_BYTES - spec_excess(spec) - sum(len(name) + 3 for name in status.nodes)
    if _status_bytes(status) <= room:
        return status, 0
    status = status.model_copy(
        update={
            "models": tuple(_short(one) for one in status.models),
            "rejected": tuple(_short_rejected(one) for one in status.rejected),
        }
    )
    if _status_bytes(status) > room:
        models = tuple(one.model_copy(update={"failure": None}) for one in status.models)
        status = status.model_copy(update={"models": models})
    free = room - sum(map(_listed_bytes, status.models))
    listed = first_within(status.rejected, _rejected_bytes, free)
    left_out = len(status.rejected) - len(listed)
    return status.model_copy(update={"rejected": tuple(listed)}), left_out


def first_within(
    items: Sequence[_Item], size: Callable[[_Item], int], room: int
) -> Sequence[_Item]:
    """The first items, as many as there is room for."""
    for index, item in enumerate(items):
        room -= size(item)
        if room < 0:
            return items[:index]
    return items


def _status_bytes(status: LocalModelNodeGroupStatus) -> int:
    listed: Iterable[int] = map(_listed_bytes, status.models)
    return sum(listed) + sum(map(_rejected_bytes, status.rejected))


def model_bytes(name: str, namespace: str, nodes: int) -> int:
    """Bytes of a model in the status of a group, without a message."""
    return _MODEL_BYTES + len(name) + len(namespace) + nodes


def _listed_bytes(model: GroupModel) -> int:
    message = len(model.failure.message.encode()) if model.failure else 0
    times = _TIMES_BYTES if any(getattr(model, name) is not None for name in _TIMES) else 0
    return model_bytes(model.name, model.namespace, len(model.states)) + times + message


def _rejected_bytes(model: RejectedModel) -> int:
    return model_bytes(model.name, model.namespace, 0) + len(model.message.encode())


def _short(model: GroupModel) -> GroupModel:
    model = model.model_copy(update=dict.fromkeys(_TIMES))
    if model.failure is None:
        return model
    message = cut(model.failure.message, _SHORT_MESSAGE)
    return model.model_copy(
        update={"failure": model.failure.model_copy(update={"message": message})}
    )


def _short_rejected(model: RejectedModel) -> RejectedModel:
    return model.model_copy(update={"message": cut(model.message, _SHORT_MESSAGE)})
