"""The types that the hooks read have the fields of the types of `crds/`, with equal values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.base import API_VERSION, Condition, ObjectMeta
from crds.cache import (
    CacheStatus,
    LocalModelCache,
    LocalModelCacheSpec,
    LocalModelNamespaceCacheSpec,
    ModelCopies,
    NamespacedName,
    WorkloadName,
)
from crds.eviction import EvictionSettings
from crds.node import (
    LocalModel,
    LocalModelNode,
    LocalModelNodeGroupRef,
    LocalModelNodeSpec,
    LocalModelNodeStatus,
    NodeModelStatus,
)
from crds.peers import AgentPeer
from crds.states import ModelState
from hooks import observed
from hooks.envelope import BadRequest
from hooks.reading import parse_cache, parse_node
from tests.unit.hooks.stored import read_node

if TYPE_CHECKING:
    from pydantic import BaseModel

# The types of crds that each of these types reads.
READ: dict[type[msgspec.Struct], tuple[type[BaseModel], ...]] = {
    observed.Metadata: (ObjectMeta,),
    observed.Condition: (Condition,),
    observed.ServiceName: (NamespacedName,),
    observed.WorkloadName: (WorkloadName,),
    observed.CacheSpec: (LocalModelCacheSpec, LocalModelNamespaceCacheSpec),
    observed.ModelCopies: (ModelCopies,),
    observed.CacheStatus: (CacheStatus,),
    observed.Cache: (LocalModelCache,),
    observed.ListedModel: (LocalModel,),
    observed.EvictionSettings: (EvictionSettings,),
    observed.GroupRef: (LocalModelNodeGroupRef,),
    observed.NodeSpec: (LocalModelNodeSpec,),
    observed.NodeReport: (NodeModelStatus,),
    observed.AgentPeer: (AgentPeer,),
    observed.NodeStatus: (LocalModelNodeStatus,),
    observed.Node: (LocalModelNode,),
}
CORE = {observed.CoreNode, observed.CoreNodeStatus, observed.NodeCondition}
BASES = {observed.ReadStruct, observed.Resource}


def test_every_type_is_held_against_one_of_the_api() -> None:
    types = {
        value
        for value in vars(observed).values()
        if isinstance(value, type) and issubclass(value, observed.ReadStruct)
    }
    assert types == set(READ) | CORE | BASES


@pytest.mark.parametrize("part", READ, ids=lambda part: part.__name__)
def test_its_fields_are_those_of_the_api(part: type[msgspec.Struct]) -> None:
    there = {
        field.alias: field.is_required()
        for whole in READ[part]
        for field in whole.model_fields.values()
    }
    if issubclass(part, observed.Resource):
        there |= {"kind": True, "apiVersion": True}
    for field in msgspec.structs.fields(part):
        assert field.encode_name in there
        # A field that the schema does not require may be missing.
        assert not field.required or there[field.encode_name]


def test_defaults_are_those_of_the_api() -> None:
    compared = 0
    for part, (whole, *_) in READ.items():
        for field in msgspec.structs.fields(part):
            meant = whole.model_fields.get(field.name)
            if isinstance(field.default, str | int) and meant and meant.default is not None:
                assert field.default == meant.default
                compared += 1
    assert compared >= 8


def _cache(**spec: object) -> msgspec.Raw:
    obj = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {"name": "llama"},
        "spec": {"sourceModelUri": "s3://b/m", "modelSize": "1Gi", "nodeGroup": "gpu"} | spec,
        "status": {"observedGeneration": -1},
    }
    return msgspec.Raw(json.dumps(obj).encode())


def test_a_size_that_is_a_number_is_one() -> None:
    assert parse_cache(_cache(modelSize=5)).spec.declared_bytes == 5


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"modelSize": "much"}, "modelSize"),
        ({"modelSize": None}, "modelSize"),
        ({"priority": "high"}, "priority"),
        ({"nodeGroups": "gpu"}, "nodeGroups"),
        ({"sourceModelUri": 1}, "sourceModelUri"),
    ],
)
def test_what_cannot_be_read_is_named(spec: dict[str, object], word: str) -> None:
    with pytest.raises(BadRequest, match=f"LocalModelCache 'llama'.*{word}"):
        parse_cache(_cache(**spec))


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"expected a LocalModelNode of .*, got LocalModelCache"):
        parse_node(_cache())


def test_words_of_another_version_are_read() -> None:
    assert parse_cache(_cache(retention="Forever")).spec.retention.value == "Pinned"
    report = {"name": "a", "key": "k", "state": "Thawing", "cached": False}
    assert msgspec.convert(report, observed.NodeReport).state is ModelState.PENDING


states = st.sampled_from(ModelState)
reports = st.builds(
    NodeModelStatus,
    name=st.sampled_from("abc"),
    namespace=st.sampled_from(["", "team"]),
    key=st.sampled_from(["k1", "k2"]),
    state=states,
    cached=st.booleans(),
    size=st.none() | st.integers(0, 1 << 62),
    hash=st.none() | st.just("sha256:x"),
    reason=st.none() | st.text(max_size=5),
)


@given(st.lists(reports, max_size=8), st.booleans())
def test_a_node_reads_back_as_it_was_written(told: list[NodeModelStatus], ready: bool) -> None:
    node = LocalModelNode(
        metadata=ObjectMeta(name="node-1", creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC)),
        spec=LocalModelNodeSpec(node_ready=ready),
        status=LocalModelNodeStatus(models=tuple(told)),
    )
    read = read_node(node)
    assert read.ready is ready
    assert read.metadata.creation_timestamp == node.metadata.creation_timestamp
    fields = [field.name for field in msgspec.structs.fields(observed.NodeReport)]
    assert [[getattr(one, name) for name in fields] for one in read.status.models] == [
        [getattr(one, name) for name in fields] for one in told
    ]
    assert read.reports == {one.identity: one for one in read.status.models}


def test_a_model_that_one_of_two_groups_lets_begin_is_not_suspended() -> None:
    fields = {"source_model_uri": "s3://b/m", "model_size": "1Gi", "model_name": "llama"}
    entries = (
        LocalModel(**fields, node_group="a"),
        LocalModel(**fields, node_group="b", suspend=True),
    )
    for order in (entries, entries[::-1]):
        node = read_node(
            LocalModelNode(
                metadata=ObjectMeta(name="node-1"),
                spec=LocalModelNodeSpec(local_models=order, node_ready=True),
            )
        )
        (listed,) = node.listed.values()
        assert not listed.suspend
