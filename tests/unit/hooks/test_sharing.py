"""Caches of several owners with one URI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from crds.base import ObjectMeta
from crds.cache import (
    LocalModelCache,
    LocalModelCacheSpec,
    LocalModelNamespaceCache,
    LocalModelNamespaceCacheSpec,
)
from crds.keys import model_key
from crds.node import (
    LocalModelNode,
    LocalModelNodeSpec,
    LocalModelNodeStatus,
    NodeModelStatus,
)
from crds.states import ModelState
from hooks.copies import copies_of
from hooks.plan import plan_group
from hooks.sharing import ForeignCopies, Owners
from tests.unit.hooks.stored import read_cache, read_node

if TYPE_CHECKING:
    from hooks.observed import Cache, Node

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
    plan = plan_group("gpu", [here, there])
    assert [cache.metadata.namespace for cache in plan.admitted] == ["a"]
    owners = Owners([here, there])
    assert owners.share(here.identity)
    assert owners.precedence(here.identity) == 1


def _node(name: str, *reports: tuple[str, str, bool], ready: bool = True) -> Node:
    models = tuple(
        NodeModelStatus(
            name=cache,
            namespace=namespace,
            key=model_key(URI),
            state=ModelState.DOWNLOADED if cached else ModelState.PENDING,
            cached=cached,
        )
        for namespace, cache, cached in reports
    )
    return read_node(
        LocalModelNode(
            metadata=ObjectMeta(name=name),
            spec=LocalModelNodeSpec(node_ready=ready),
            status=LocalModelNodeStatus(models=models),
        )
    )


def _waits(cache: Cache, nodes: list[Node], *others: Cache) -> bool:
    caches = [cache, *others]
    copies = copies_of(caches, nodes)[cache.identity]
    return ForeignCopies(nodes, caches, Owners(caches)).blocks_claims(cache, copies)


MINE = ("a", "llama", True)
NOT_MINE = ("a", "llama", False)
ANOTHERS = ("b", "llama", True)


def test_a_claim_of_a_folder_of_several_waits_for_a_first_copy() -> None:
    mine, other = _cache("a", 1), _cache("b", 9)
    assert _waits(mine, [_node("n", NOT_MINE)], other)
    assert not _waits(mine, [_node("n", MINE)], other)
    assert not _waits(mine, [_node("n", NOT_MINE)])


def test_a_claim_waits_for_each_node_that_has_anothers_copy() -> None:
    """A claim gives access to all nodes of its group."""
    mine, other = _cache("a", 1), _cache("b", 9)
    own, both = _node("1", MINE), _node("2", MINE, ANOTHERS)
    foreign = _node("3", NOT_MINE, ANOTHERS)
    assert not _waits(mine, [own, both], other)
    assert _waits(mine, [own, both, foreign], other)
    # Also if the node does not report this cache yet, and the other cache is deleted.
    assert _waits(mine, [own, _node("3", ANOTHERS)])
    # A node that is not Ready runs no new pod, and may never come back.
    assert not _waits(mine, [own, _node("3", ANOTHERS, ready=False)], other)


def test_the_administrators_claims_wait_likewise() -> None:
    cluster, other = _cache("", 1), _cache("b", 9)
    own = _node("1", ("", "llama", True))
    assert not _waits(cluster, [own], other)
    assert _waits(cluster, [own, _node("2", ANOTHERS)], other)


def test_another_cache_of_the_same_owner_holds_up_nothing() -> None:
    assert not _waits(_cache("a", 1), [_node("1", MINE), _node("2", ("a", "former", True))])
