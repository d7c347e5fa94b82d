"""The offers of a plan: what pods get that ask for a model by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.placement import Offer
from crds.quantity import parse_quantity
from hooks import naming
from hooks.object_size import OFFERS_BYTES
from hooks.plan import claim_is_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crds.models import PlacedModel
    from crds.placement import LocalModelPlacementSpec
    from hooks.plan import CacheName, GroupPlan

# Bytes of an offer in JSON without its name, its list and its labelName.
_OFFER_BYTES = 90


class Names:
    """The namespaces that have a LocalModelNamespaceCache, by its name.

    caches: namespace and name of each, also of those that no group admits or that cannot be read: a
    name must not mean another model in a namespace because the namespace's own cache has a defect.
    """

    def __init__(self, caches: Iterable[CacheName] = ()) -> None:
        self._namespaces: dict[str, list[str]] = {}
        for namespace, name in sorted(caches):
            self._namespaces.setdefault(name, []).append(namespace)

    def hiding(self, namespace: str, name: str) -> tuple[str, ...]:
        """The namespaces in which the name means another cache than this one of a namespace."""
        return () if namespace else tuple(self._namespaces.get(name, ()))


def make_offers(
    group: str, plan: GroupPlan, names: Names, stored: LocalModelPlacementSpec | None
) -> dict[str, Offer]:
    """The offers of a group's plan, by the names of Offer; the most important ones that fit."""
    room = OFFERS_BYTES
    offers: dict[str, Offer] = {}
    for model, default in _models(group, plan, stored):
        namespace, name = model.namespace, model.model_name
        label = naming.label_value(name)
        offer = Offer(
            key=model.key,
            size=parse_quantity(model.model_size),
            default=default,
            hidden_in=names.hiding(namespace, name),
            label_name="" if label == name else label,
        )
        size = _bytes(model, offer)
        if size <= room:
            room -= size
            offers[_title(model)] = offer
    return offers


def _models(
    group: str, plan: GroupPlan, stored: LocalModelPlacementSpec | None
) -> Iterator[tuple[PlacedModel, bool]]:
    """The models of a plan, and whether a pod gets their claim of this group by default.

    Not those of caches that are being deleted: their claims go too, and no new pod can mount them.
    Nor those whose claim leads to another cache's model.
    """
    for cache in plan.admitted:
        if not (cache.deleting or claim_is_taken(cache)):
            yield cache.placed, cache.spec.group_names[0] == group
    for model in plan.kept:
        # Its groups are not known: it is offered as before.
        before = stored.offers.get(_title(model)) if stored else None
        yield model, before is not None and before.default


def _title(model: PlacedModel) -> str:
    return f"{model.namespace}/{model.model_name}" if model.namespace else model.model_name


def _bytes(model: PlacedModel, offer: Offer) -> int:
    hidden = sum(len(namespace) + 3 for namespace in offer.hidden_in)
    return _OFFER_BYTES + len(_title(model)) + len(offer.label_name) + hidden
