"""Admission by size: a table of cases, and random changes of caches, nodes and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crds.base import ObjectMeta
from crds.cache import LocalModelNamespaceCache, LocalModelNamespaceCacheSpec
from crds.eviction import EvictionPolicy, EvictionSpec
from crds.node import (
    LocalModel,
    LocalModelNode,
    LocalModelNodeSpec,
    LocalModelNodeStatus,
    NodeModelStatus,
)
from crds.nodegroup import LocalModelNodeGroup, LocalModelNodeGroupSpec
from crds.placement import LocalModelPlacementSpec
from crds.quantity import parse_quantity
from crds.states import ModelState
from hooks import reasons
from hooks.admission import (
    AdmissionInput,
    admission_input,
    admit_by_size,
    fit_into_objects,
)
from hooks.copies import copies_of
from hooks.group_status import debounce, group_status
from hooks.object_size import MODELS_BYTES, PLAN_BYTES, SPEC_BYTES, model_bytes
from hooks.plan import GroupPlan, plan_group
from tests.unit.hooks.stored import read_cache, read_node

if TYPE_CHECKING:
    from hooks.observed import Cache, Node

START = datetime(2026, 1, 1, tzinfo=UTC)
NONE, LRU = EvictionPolicy.NONE, EvictionPolicy.LRU


def _cache(
    name: str,
    size: str,
    *,
    deletion_timestamp: datetime | None = None,
    **spec: Any,
) -> Cache:
    """A LocalModelNamespaceCache, since those may share a URI. Names sort by age."""
    fields = {"source_model_uri": f"s3://models/{name}", "model_size": size, "node_group": "gpu"}
    return read_cache(
        LocalModelNamespaceCache(
            metadata=ObjectMeta(
                name=name,
                namespace="team",
                creation_timestamp=START,
                deletion_timestamp=deletion_timestamp,
            ),
            spec=LocalModelNamespaceCacheSpec(**fields | spec),
        )
    )


def _group(policy: EvictionPolicy, limit: str) -> LocalModelNodeGroup:
    return LocalModelNodeGroup(
        metadata=ObjectMeta(name="gpu", creation_timestamp=START),
        spec=LocalModelNodeGroupSpec(
            storage_limit=limit, node_selector={"pool": "gpu"}, eviction=EvictionSpec(policy=policy)
        ),
    )


A, B, C = _cache("a", "60Gi"), _cache("b", "50Gi"), _cache("c", "40Gi")
URGENT = _cache("u", "60Gi", priority=5)
SHARED = _cache("s", "60Gi", source_model_uri=A.spec.source_model_uri)
SHARED_LARGER = _cache("s", "90Gi", source_model_uri=A.spec.source_model_uri)
PINNED = [_cache(name, "60Gi", retention="Pinned") for name in ("p", "q")]
GOING = _cache("a", "60Gi", deletion_timestamp=START)
FITS_NOT, TOO_LARGE = reasons.STORAGE_LIMIT_EXCEEDED, reasons.MODEL_TOO_LARGE
ADMITTED_OVER, PINNED_OVER = reasons.ADMITTED_EXCEED_LIMIT, reasons.PINNED_EXCEED_LIMIT


@dataclass(frozen=True)
class Case:
    policy: EvictionPolicy
    caches: list[Cache]
    admitted: str
    rejected: dict[str, str] = field(default_factory=dict)
    held: str = ""
    sizes: dict[str, str] = field(default_factory=dict)
    over: str | None = None


@pytest.mark.parametrize(
    "case",
    [
        Case(NONE, [], ""),
        Case(NONE, [A, C], "ac"),
        Case(NONE, [A, B], "a", {"b": FITS_NOT}),
        Case(NONE, [A, B, C], "ac", {"b": FITS_NOT}),
        Case(NONE, [A, B, C], "bc", {"a": FITS_NOT}, held="b"),
        Case(NONE, [A, URGENT], "u", {"a": FITS_NOT}),
        Case(NONE, [A, URGENT], "a", {"u": FITS_NOT}, held="a"),
        Case(NONE, [A, B], "ab", held="ab", over=ADMITTED_OVER),
        Case(NONE, [A, B, C], "ab", {"c": FITS_NOT}, held="ab", over=ADMITTED_OVER),
        Case(NONE, [A, C], "a", {"c": FITS_NOT}, held="a", sizes={"a": "61Gi"}),
        Case(NONE, [A, B], "ab", held="a", sizes={"a": "50Gi"}),
        Case(
            NONE, [A, B], "a", {"b": FITS_NOT}, held="a", sizes={"a": "101Gi"}, over=ADMITTED_OVER
        ),
        Case(NONE, [A, B], "b", {"a": FITS_NOT}, sizes={"a": "101Gi"}),
        Case(NONE, [A, SHARED, C], "acs"),
        Case(NONE, [A, SHARED_LARGER, C], "ac", {"s": FITS_NOT}),
        Case(NONE, [A, SHARED_LARGER, C], "ac", {"s": FITS_NOT}, sizes={"a": "60Gi"}),
        Case(NONE, [A, SHARED_LARGER, C], "acs", sizes={"a": "60Gi", "s": "60Gi"}),
        Case(LRU, [A, SHARED], "a", {"s": TOO_LARGE}, held="as", sizes={"s": "101Gi"}),
        Case(NONE, [A, B, SHARED], "abs", held="ab", over=ADMITTED_OVER),
        Case(NONE, [GOING, B], "a", {"b": FITS_NOT}, held="a"),
        Case(NONE, PINNED, "p", {"q": FITS_NOT}),
        Case(LRU, [A, B, C], "abc"),
        Case(LRU, [A, B], "b", {"a": TOO_LARGE}, sizes={"a": "101Gi"}),
        Case(LRU, [A, B], "b", {"a": TOO_LARGE}, held="ab", sizes={"a": "101Gi"}),
        Case(LRU, [A, B], "ab", sizes={"a": "100Gi"}),
        Case(LRU, [_cache("x", "200Gi")], "", {"x": TOO_LARGE}),
        Case(LRU, [_cache("x", "200Gi")], "x", sizes={"x": "1Gi"}),
        Case(LRU, [GOING], "a", held="a", sizes={"a": "101Gi"}),
        Case(LRU, [GOING], "", {"a": TOO_LARGE}, sizes={"a": "101Gi"}),
        Case(LRU, PINNED, "pq", over=PINNED_OVER),
        Case(LRU, PINNED, "pq", sizes={"p": "40Gi"}),
        Case(LRU, [*PINNED, A], "apq", sizes={"p": "1Gi"}),
    ],
)
def test_a_group_of_100gi(case: Case) -> None:
    models = {cache.metadata.name: cache.identity for cache in case.caches}
    observed = AdmissionInput(
        sizes={models[name]: parse_quantity(size) for name, size in case.sizes.items()},
        held={c.identity for c in case.caches if c.metadata.name in case.held},
    )
    plan = admit_by_size(plan_group("gpu", case.caches), _group(case.policy, "100Gi"), observed)
    assert "".join(sorted(c.metadata.name for c in plan.admitted)) == case.admitted
    assert {one.name: one.reason for one in plan.rejected} == case.rejected
    assert (plan.over_limit and plan.over_limit.reason) == case.over


def test_the_missing_bytes_are_those_after_all_that_came_in() -> None:
    observed = AdmissionInput(sizes={C.identity: 30 << 30}, held={A.identity})
    plan = admit_by_size(plan_group("gpu", [A, B, C]), _group(NONE, "100Gi"), observed)
    (refused,) = plan.rejected
    assert refused.message == (
        "needs 50Gi by its modelSize, and 10Gi of storageLimit 100Gi are left in "
        "LocalModelNodeGroup gpu (40Gi are missing): raise storageLimit, delete a cache, or name "
        "another group"
    )


def _nodes_for(models: int) -> int:
    """The number of nodes with which a group's status has room for exactly so many models."""
    return (MODELS_BYTES - models * model_bytes("c00", "team", 0)) // models


def _many(number: int) -> list[Cache]:
    return [_cache(f"c{index:02d}", "1Gi") for index in range(number)]


def test_a_group_takes_no_more_models_than_its_status_has_room_for() -> None:
    group, caches = _group(LRU, "100Gi"), _many(5)
    plan = fit_into_objects(plan_group("gpu", caches), group, _nodes_for(3), frozenset(), {})
    assert [cache.metadata.name for cache in plan.admitted] == ["c00", "c01", "c02"]
    assert {one.name: one.reason for one in plan.rejected} == {
        "c03": reasons.GROUP_TOO_LARGE,
        "c04": reasons.GROUP_TOO_LARGE,
    }
    assert "make two groups" in plan.rejected[0].message


def test_what_is_in_stays_in_when_a_group_grows_too_large() -> None:
    group, caches = _group(LRU, "100Gi"), _many(5)
    held = frozenset(cache.identity for cache in caches[1:])
    plan = fit_into_objects(plan_group("gpu", caches), group, _nodes_for(2), held, {})
    assert [cache.metadata.name for cache in plan.admitted] == ["c01", "c02", "c03", "c04"]
    asked = plan_group("gpu", caches)
    assert fit_into_objects(asked, group, _nodes_for(5), held, {}) == asked
    assert fit_into_objects(asked, group, 0, held, {}) == asked


def _with_parameters(cache: Cache, length: int) -> Cache:
    storage = {"key": "k", "parameters": {"prefix": "x" * length}}
    return msgspec.structs.replace(cache, spec=msgspec.structs.replace(cache.spec, storage=storage))


def test_a_plan_takes_no_more_than_an_object_can_hold() -> None:
    group, (small, *others) = _group(LRU, "100Gi"), _many(4)
    large = [_with_parameters(cache, PLAN_BYTES // 2 - 1000) for cache in others]
    plan = fit_into_objects(plan_group("gpu", [*large, small]), group, 1, frozenset(), {})
    assert [cache.metadata.name for cache in plan.admitted] == ["c00", "c01", "c02"]
    assert {one.name: one.reason for one in plan.rejected} == {"c03": reasons.GROUP_TOO_LARGE}


def test_a_long_spec_of_a_group_leaves_its_models_less_room() -> None:
    group, caches = _group(LRU, "100Gi"), _many(4)
    large = [_with_parameters(cache, PLAN_BYTES // 5) for cache in caches]
    plan = plan_group("gpu", large)
    assert fit_into_objects(plan, group, 1, frozenset(), {}) == plan
    spec = group.spec.model_copy(
        update={"node_selector": {f"label-{n}": "v" * 1000 for n in range(SPEC_BYTES // 1000)}}
    )
    assert (
        fit_into_objects(plan, group.model_copy(update={"spec": spec}), 1, frozenset(), {}) == plan
    )
    spec = spec.model_copy(
        update={"node_selector": {"label": "v" * (SPEC_BYTES + PLAN_BYTES // 2)}}
    )
    fewer = fit_into_objects(plan, group.model_copy(update={"spec": spec}), 1, frozenset(), {})
    assert [cache.metadata.name for cache in fewer.admitted] == ["c00", "c01"]
    assert "or the group's own spec" in fewer.rejected[0].message


def test_what_is_in_and_grows_beyond_an_object_stays_as_it_was() -> None:
    group, caches = _group(LRU, "100Gi"), _many(3)
    had = {cache.identity: cache.placed for cache in caches}
    grown = [_with_parameters(cache, PLAN_BYTES // 2 - 1000) for cache in caches]
    plan = fit_into_objects(plan_group("gpu", grown), group, 1, had.keys(), had)
    assert [cache.metadata.name for cache in plan.admitted] == ["c00", "c01"]
    assert plan.kept == (caches[2].placed,)
    (refused,) = plan.rejected
    assert (refused.name, refused.reason) == ("c02", reasons.GROUP_TOO_LARGE)
    assert "the nodes keep the model as it was" in refused.message
    spec = plan.placement(group)
    assert len(spec.model_dump_json()) < 1 << 20
    assert {model.identity for model in spec.models} == set(had)


@dataclass
class World:
    """A group with one node, whose agent reports sizes and removes models that are not listed."""

    policy: EvictionPolicy
    limit: int = 10
    caches: dict[str, Cache] = field(default_factory=dict)
    real: dict[str, int] = field(default_factory=dict)
    reports: dict[str, NodeModelStatus] = field(default_factory=dict)
    stored: LocalModelPlacementSpec | None = None
    status: dict[str, Any] = field(default_factory=dict)
    now: datetime = START

    @property
    def group(self) -> LocalModelNodeGroup:
        return _group(self.policy, str(self.limit)).model_copy(update=self.status)

    @property
    def node(self) -> Node:
        models = self.stored.models if self.stored else ()
        listed = tuple(LocalModel(**dict(model), node_group="gpu") for model in models)
        return read_node(
            LocalModelNode(
                metadata=ObjectMeta(name="node-1"),
                spec=LocalModelNodeSpec(local_models=listed, node_ready=True),
                status=LocalModelNodeStatus(models=tuple(self.reports.values())),
            )
        )

    def plan(self) -> tuple[GroupPlan, AdmissionInput]:
        caches = list(self.caches.values())
        asked = plan_group("gpu", caches)
        observed = admission_input(self.group, asked, caches, [self.node], self.stored)
        return admit_by_size(asked, self.group, observed), observed

    def sync(self) -> GroupPlan:
        """Call the group's hook, a second after the last call."""
        plan, _ = self.plan()
        group, self.now = self.group, self.now + timedelta(seconds=1)
        new = group_status(
            group,
            plan,
            [self.node],
            copies_of(plan.admitted, [self.node]),
            stored=self.stored,
            download=None,
            host_path="/",
            now=self.now,
        )
        self.stored = plan.placement(group)
        self.status = {"status": debounce(group.status, new, self.now)[0]}
        return plan

    def agent(self) -> None:
        """The agent reports the listed models, and removes the others at once."""
        self.reports = {
            cache.metadata.name: NodeModelStatus(
                name=cache.metadata.name,
                namespace="team",
                key=cache.spec.key,
                state=ModelState.DOWNLOADING,
                cached=False,
                size=self.real[cache.spec.key],
            )
            for cache in self.caches.values()
            if any(model.identity == cache.identity for model in (self.stored or EMPTY).models)
        }

    def cache_hook(self) -> None:
        """The caches' statuses get the sizes from the group's status."""
        status = self.group.status
        told = {one.identity: one.size for one in status.models}
        told |= {one.identity: one.size for one in status.rejected}
        for name, cache in self.caches.items():
            size = told.get(cache.identity) or cache.status.size
            self.caches[name] = replace(cache, status=replace(cache.status, size=size))

    def make(self, name: str, uri: int, declared: int, real: int, priority: int) -> None:
        uri_text = f"s3://models/{uri}"
        old = self.caches.get(name)
        if old is not None:
            uri_text = old.spec.source_model_uri
        cache = _cache(name, str(declared), source_model_uri=uri_text, priority=priority)
        self.real.setdefault(cache.spec.key, real)
        status = old.status if old else cache.status
        self.caches[name] = replace(cache, status=status)


EMPTY = LocalModelPlacementSpec(storage_limit="1")

names = st.sampled_from("abcdef")
steps = st.one_of(
    st.tuples(
        st.just("make"),
        names,
        st.integers(0, 3),
        st.integers(1, 12),
        st.integers(1, 14),
        st.integers(-1, 1),
    ),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("limit"), st.integers(1, 20)),
    st.tuples(st.just("agent")),
    st.tuples(st.just("cache_hook")),
)


def _do(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("make", name, uri, declared, real, priority):
            world.make(name, uri, declared, real, priority)
        case ("delete", name):
            world.caches.pop(name, None)
        case ("limit", limit):
            world.limit = limit
        case ("agent",):
            world.agent()
        case _:
            world.cache_hook()


def _taken(
    plan: GroupPlan, observed: AdmissionInput, only: set[tuple[str, str, str]] | None = None
) -> int:
    folders: dict[str, int] = {}
    for cache in plan.admitted:
        if only is None or cache.identity in only:
            key = cache.spec.key
            folders[key] = max(folders.get(key, 0), observed.size(cache))
    return sum(folders.values())


@given(st.lists(steps, max_size=25))
def test_without_eviction_nothing_is_thrown_out_and_nothing_new_is_too_much(
    script: list[tuple[Any, ...]],
) -> None:
    world = World(NONE)
    world.sync()
    for step in script:
        before = {model.identity for model in (world.stored or EMPTY).models}
        _do(world, step)
        plan, observed = world.plan()
        after = {cache.identity for cache in plan.admitted}
        there = {cache.identity for cache in world.caches.values()}
        assert before & there <= after
        taken, stayed = _taken(plan, observed), _taken(plan, observed, before)
        assert taken <= max(world.limit, stayed)
        assert (plan.over_limit is not None) == (taken > world.limit)
        assert world.sync() == plan
        assert world.sync() == plan


@given(st.lists(steps, max_size=25))
def test_with_eviction_all_come_in_but_those_that_are_too_large(
    script: list[tuple[Any, ...]],
) -> None:
    world = World(LRU)
    for step in script:
        _do(world, step)
        plan, observed = world.plan()
        assert all(observed.size(cache) <= world.limit for cache in plan.admitted)
        refused = {one.identity for one in plan.rejected}
        for cache in world.caches.values():
            assert (cache.identity in refused) == (observed.size(cache) > world.limit)
        assert world.sync() == plan
        assert world.sync() == plan


def test_a_size_stays_known_when_a_raised_limit_lets_its_model_in() -> None:
    world = World(LRU, limit=1)
    world.make("a", 0, declared=1, real=2, priority=0)
    world.sync()
    world.agent()
    world.sync()
    world.make("a", 0, declared=3, real=2, priority=0)
    world.agent()
    world.limit = 2
    for _ in range(3):
        assert [cache.metadata.name for cache in world.sync().admitted] == ["a"]


@given(st.lists(st.sampled_from(["agent", "cache_hook", "sync"]), max_size=12))
def test_what_turned_out_too_large_comes_in_no_more(order: list[str]) -> None:
    world = World(LRU)
    world.make("a", 1, declared=1, real=11, priority=0)
    world.sync()
    world.agent()
    world.sync()
    for what in order:
        getattr(world, what)()
        plan, _ = world.plan()
        assert not plan.admitted
        assert world.stored is not None
        assert not world.stored.models
