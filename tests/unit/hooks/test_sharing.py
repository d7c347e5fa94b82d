"""Caches of several owners with one URI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from crds.base import ObjectMeta
from crds.cache import (
    LocalModelCache,
    LocalModelCacheSpec,
    LocalModelNamespaceCache,
    LocalModelNamespaceCacheSpec,
)
from crds.nodegroup import GroupModel, LocalModelNodeGroupStatus
from crds.states import CopyState
from hooks.copies import Copies
from hooks.group_status import is_shared
from hooks.plan import make_plan
from hooks.sharing import Owners, is_withheld
from tests.unit.hooks.stored import read_cache

if TYPE_CHECKING:
    from hooks.observed import Cache

START = datetime(2026, 1, 1, tzinfo=UTC)
URI = "s3://models/llama"


def _cache(
    namespace: str, age: int, name: str = "llama", uri: str = URI, group: str = "gpu"
) -> Cache:
    meta = ObjectMeta(
        name=name, namespace=namespace, creation_timestamp=START - timedelta(seconds=age)
    )
    fields = {"source_model_uri": uri, "model_size": "1Gi", "node_group": group}
    if namespace:
        spec = LocalModelNamespaceCacheSpec(**fields)
        return read_cache(LocalModelNamespaceCache(metadata=meta, spec=spec))
    return read_cache(LocalModelCache(metadata=meta, spec=LocalModelCacheSpec(**fields)))


def test_a_cluster_cache_comes_first_and_then_the_oldest_namespace() -> None:
    young, old, cluster = _cache("a", 1), _cache("b", 9), _cache("", 0)
    owners = Owners([young, old, cluster])
    order = [owners.precedence(cache.identity) for cache in (cluster, old, young)]
    assert order == [0, 1, 2]
    assert all(owners.share(cache.identity) for cache in (cluster, old, young))
    assert [Owners([young, old]).precedence(c.identity) for c in (old, young)] == [0, 1]


def test_a_namespace_is_as_old_as_the_first_of_its_caches() -> None:
    first, second, other = _cache("a", 9), _cache("a", 1, "again"), _cache("b", 5)
    owners = Owners([second, other, first])
    assert owners.precedence(first.identity) == owners.precedence(second.identity) == 0
    assert owners.precedence(other.identity) == 1


def test_who_is_alone_shares_nothing() -> None:
    mine, again, other = _cache("a", 9), _cache("a", 1, "again"), _cache("b", 5, uri="s3://m/o")
    owners = Owners([mine, again, other])
    assert not any(owners.share(cache.identity) for cache in (mine, again, other))


def test_other_groups_count_since_a_node_may_be_in_several() -> None:
    here, there = _cache("a", 1), _cache("b", 9, group="other")
    plan = make_plan("gpu", [here, there])
    assert [cache.metadata.namespace for cache in plan.admitted] == ["a"]
    owners = Owners([here, there])
    assert owners.share(here.identity)
    assert owners.precedence(here.identity) == 1


@pytest.mark.parametrize(
    ("states", "shared", "withheld"),
    [("", True, True), ("PF", True, True), ("PA", True, False), ("", False, False)],
)
def test_a_claim_waits_for_a_first_copy_where_others_have_the_folder(
    states: str, *, shared: bool, withheld: bool
) -> None:
    assert is_withheld(states, shared=shared) is withheld


def test_what_was_shared_stays_so_until_a_copy_is_the_caches_own() -> None:
    mine, other = _cache("a", 1), _cache("b", 9)
    told = GroupModel(name="llama", namespace="a", key=mine.spec.key, states="P", shared=True)
    before = LocalModelNodeGroupStatus(models=(told,))
    missing, own = Copies((CopyState.PENDING,), (None,)), Copies((CopyState.AVAILABLE,), (None,))
    # The other's cache is gone, and what its source sent may still be in the folder.
    alone = Owners([mine])
    assert is_shared(before, mine, missing, alone)
    assert not is_shared(before, mine, own, alone)
    assert not is_shared(LocalModelNodeGroupStatus(), mine, missing, alone)
    assert is_shared(before, mine, own, Owners([mine, other]))
