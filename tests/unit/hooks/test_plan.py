from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from crds.base import ObjectMeta
from crds.cache import (
    LocalModelCache,
    LocalModelCacheSpec,
    LocalModelNamespaceCache,
    LocalModelNamespaceCacheSpec,
)
from hooks.plan import plan_group
from tests.unit.hooks.stored import read_cache

if TYPE_CHECKING:
    from hooks.observed import Cache

START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def caches(draw: st.DrawFn) -> list[Cache]:
    made: list[Cache] = []
    for number in range(draw(st.integers(0, 8))):
        fields = {
            "source_model_uri": f"s3://models/{draw(st.integers(0, 3))}",
            "model_size": "1Gi",
            "node_groups": tuple(draw(st.sets(st.sampled_from(["a", "b"]), min_size=1))),
            "priority": draw(st.integers(-2, 2)),
        }
        created = START + timedelta(seconds=draw(st.integers(0, 3)))
        if draw(st.booleans()):
            meta = ObjectMeta(name=f"c{number}", creation_timestamp=created)
            made.append(
                read_cache(LocalModelCache(metadata=meta, spec=LocalModelCacheSpec(**fields)))
            )
        else:
            meta = ObjectMeta(name=f"c{number}", namespace="team", creation_timestamp=created)
            spec = LocalModelNamespaceCacheSpec(**fields)
            made.append(read_cache(LocalModelNamespaceCache(metadata=meta, spec=spec)))
    return made


@given(caches(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_observed_does_not_matter(made: list[Cache], random: object) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_group("a", made) == plan_group("a", shuffled)


@given(caches())
def test_each_cache_of_the_group_is_admitted_or_rejected(made: list[Cache]) -> None:
    plan = plan_group("a", made)
    asked = {(c.metadata.namespace, c.metadata.name) for c in made if "a" in c.spec.group_names}
    admitted = {(c.metadata.namespace, c.metadata.name) for c in plan.admitted}
    rejected = {(r.namespace, r.name) for r in plan.rejected}
    assert admitted | rejected == asked
    assert not admitted & rejected


@given(caches())
def test_a_uri_has_one_cluster_cache_in_all_groups_together(made: list[Cache]) -> None:
    owners: dict[str, str] = {}
    for group in ("a", "b"):
        for cache in plan_group(group, made).admitted:
            if not cache.metadata.namespace:
                uri = cache.spec.source_model_uri
                assert owners.setdefault(uri, cache.metadata.name) == cache.metadata.name


@given(caches())
def test_higher_priority_comes_first_then_age(made: list[Cache]) -> None:
    admitted = plan_group("a", made).admitted
    order = [(-c.spec.priority, c.metadata.creation_timestamp) for c in admitted]
    assert order == sorted(order)
