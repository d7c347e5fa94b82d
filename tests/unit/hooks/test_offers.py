"""What pods get that ask for a model by name."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from crds.base import ObjectMeta
from crds.cache import (
    LocalModelCache,
    LocalModelCacheSpec,
    LocalModelNamespaceCache,
    LocalModelNamespaceCacheSpec,
)
from crds.keys import model_key
from crds.models import PlacedModel
from crds.placement import LocalModelPlacementSpec, Offer
from hooks.object_size import OFFERS_BYTES
from hooks.observed import Condition
from hooks.offers import Names, make_offers
from hooks.plan import GroupPlan, plan_group
from tests.unit.hooks.stored import read_cache


def _plan(*names: str, groups: tuple[str, ...] = ("gpu",)) -> GroupPlan:
    """The plan of gpu with these caches, those of namespaces as namespace/name."""
    caches = []
    for title in names:
        namespace, _, name = title.rpartition("/")
        meta = ObjectMeta(name=name, namespace=namespace)
        spec = {"source_model_uri": f"s3://{title}", "model_size": "1Gi", "node_groups": groups}
        cache = (
            LocalModelNamespaceCache(metadata=meta, spec=LocalModelNamespaceCacheSpec(**spec))
            if namespace
            else LocalModelCache(metadata=meta, spec=LocalModelCacheSpec(**spec))
        )
        caches.append(read_cache(cache))
    return plan_group("gpu", caches)


def test_the_first_group_of_a_cache_is_the_default() -> None:
    first = make_offers("gpu", _plan("llama", groups=("gpu", "cpu")), Names(), None)
    second = make_offers("gpu", _plan("llama", groups=("cpu", "gpu")), Names(), None)
    assert (first["llama"].default, second["llama"].default) == (True, False)
    assert first["llama"].key == second["llama"].key == model_key("s3://llama")
    assert first["llama"].size == 1 << 30


def test_a_cache_of_a_namespace_hides_the_clusters_of_the_same_name_there() -> None:
    names = Names([("b", "llama"), ("a", "llama"), ("a", "qwen")])
    offers = make_offers("gpu", _plan("llama", "a/llama", "mistral"), names, None)
    assert {name: offer.hidden_in for name, offer in offers.items()} == {
        "llama": ("a", "b"),
        "a/llama": (),
        "mistral": (),
    }


def test_a_name_that_is_too_long_for_a_label_is_there_as_the_node_hook_writes_it() -> None:
    offers = make_offers("gpu", _plan("a" * 63, "a" * 64), Names(), None)
    assert offers["a" * 63].label_name == ""
    assert offers["a" * 64].label_name == "a" * 54 + "-" + "ffe054fe"


def test_a_model_whose_offer_does_not_fit_has_none() -> None:
    many = Names((f"team-{n:05d}", "llama") for n in range(OFFERS_BYTES // 10))
    assert make_offers("gpu", _plan("llama", "mistral"), many, None).keys() == {"mistral"}
    fewer = Names((f"team-{n:05d}", "llama") for n in range(OFFERS_BYTES // 20))
    offers = make_offers("gpu", _plan("llama", "mistral"), fewer, None)
    assert offers.keys() == {"llama", "mistral"}
    spec = LocalModelPlacementSpec(storage_limit="1Gi", offers=offers)
    json = spec.model_dump_json(by_alias=True, exclude_none=True)
    assert len(json) < OFFERS_BYTES
    assert LocalModelPlacementSpec.model_validate_json(json) == spec


def test_a_model_that_stays_because_its_cache_is_unreadable_is_offered_as_before() -> None:
    model = PlacedModel(model_name="llama", source_model_uri="s3://llama", model_size="1Gi")
    plan = GroupPlan(admitted=(), rejected=(), kept=(model,))
    before = LocalModelPlacementSpec(
        storage_limit="1Gi", offers={"llama": Offer(key=model.key, default=True)}
    )
    assert make_offers("gpu", plan, Names(), before)["llama"].default
    assert not make_offers("gpu", plan, Names(), None)["llama"].default


def test_a_cache_of_a_namespace_whose_claim_is_anothers_is_not_offered() -> None:
    taken = Condition("ClaimsBound", "False", datetime.now(UTC), "ClaimNameTaken")
    plan = _plan("llama", "a/llama")
    marked = tuple(
        replace(cache, status=replace(cache.status, conditions=(taken,))) for cache in plan.admitted
    )
    # A LocalModelCache has claims in many namespaces.
    assert make_offers("gpu", GroupPlan(marked, ()), Names(), None).keys() == {"llama"}
