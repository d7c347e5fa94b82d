"""Hook of Node: its share of the plans, as a LocalModelNode, and labels for its warm models.

Absence is not a wish: where a LocalModelPlacement is missing, what the LocalModelNode lists of
that group stays. Only a plan that is there takes models out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.base import API_VERSION
from crds.node import LocalModel, LocalModelNode, LocalModelNodeGroupRef, LocalModelNodeSpec
from crds.placement import LocalModelPlacement
from crds.states import ModelState
from hooks import naming
from hooks.envelope import (
    BadRequest,
    CustomizeRequest,
    CustomizeResponse,
    DecoratorRequest,
    DecoratorResponse,
    Object,
    RelatedRule,
    parse_objects,
)
from hooks.selectors import selects

if TYPE_CHECKING:
    from collections.abc import Mapping


def customize(_request: CustomizeRequest) -> CustomizeResponse:
    """All plans.

    The answer must not depend on the node: Metacontroller caches it by generation, and a Node has
    none.
    """
    return CustomizeResponse(
        related_resources=(RelatedRule(api_version=API_VERSION, resource="localmodelplacements"),)
    )


def sync(request: DecoratorRequest) -> DecoratorResponse:
    """The node's LocalModelNode, if it is or was in a group, and its labels."""
    node = request.object
    if node.get("kind") != "Node":
        raise BadRequest(f"expected a Node, got {node.get('kind')}")
    name: str = node["metadata"]["name"]
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    placements = parse_objects(LocalModelPlacement, request.related)
    observed = parse_objects(LocalModelNode, request.attachments).get(name)

    groups, models = _share(name, labels, placements, observed)
    if not groups and observed is None:
        return DecoratorResponse(labels=dict.fromkeys(filter(naming.is_warm_label, labels)))
    spec = LocalModelNodeSpec(
        local_models=tuple(sorted(models, key=lambda model: -model.priority)),
        groups=tuple(groups),
        node_ready=_is_ready(node),
    )
    return DecoratorResponse(
        labels=_warm_labels(labels, observed),
        attachments=(
            {
                "apiVersion": API_VERSION,
                "kind": "LocalModelNode",
                "metadata": _metadata(name, groups, observed),
                "spec": spec.to_json(),
            },
        ),
    )


def _metadata(
    name: str, groups: list[LocalModelNodeGroupRef], observed: LocalModelNode | None
) -> Object:
    labels = {naming.group_label(group.name): "" for group in groups}
    metadata: Object = {"name": name, "labels": labels}
    if observed is None or observed.spec.groups != tuple(groups):
        return metadata
    if not labels.items() <= observed.metadata.labels.items():
        # Somebody took a label off. Metacontroller applies an object again when its generation or
        # what we ask for changes, and a change of labels is no new generation.
        version = observed.metadata.resource_version
        metadata["annotations"] = {naming.RESTORED_ANNOTATION: version}
    return metadata


def _share(
    name: str,
    labels: Mapping[str, str],
    placements: Mapping[str, LocalModelPlacement],
    observed: LocalModelNode | None,
) -> tuple[list[LocalModelNodeGroupRef], list[LocalModel]]:
    groups: dict[str, LocalModelNodeGroupRef] = {}
    models: list[LocalModel] = []
    for group, placement in sorted(placements.items()):
        if selects(placement.spec.node_selector_terms, name, labels):
            groups[group] = LocalModelNodeGroupRef(
                name=group,
                storage_limit=placement.spec.storage_limit,
                eviction=placement.spec.eviction,
            )
            models += [
                LocalModel(**dict(model), node_group=group) for model in placement.spec.models
            ]
    if observed is not None:
        # What names no group is from an older KServe: it goes once a plan says what is wanted.
        kept = [
            model
            for model in observed.spec.local_models
            if model.node_group not in placements and (model.node_group or not groups)
        ]
        holders = {model.node_group for model in kept}
        groups |= {ref.name: ref for ref in observed.spec.groups if ref.name in holders}
        models += kept
    return [groups[group] for group in sorted(groups)], models


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _warm_labels(
    labels: Mapping[str, str], observed: LocalModelNode | None
) -> dict[str, str | None]:
    if observed is None or observed.status.observed_generation is None:
        # Nothing is known of the disk: what the labels say stands.
        return {}
    warm: dict[str, str | None] = {
        naming.warm_label(model.name, model.namespace): model.key
        for model in observed.status.models
        if model.cached and model.state is ModelState.DOWNLOADED
    }
    cold: dict[str, str | None] = {
        label: None for label in labels if naming.is_warm_label(label) and label not in warm
    }
    return warm | cold
