from __future__ import annotations

import pytest

from agent.control.status_size import STATUS_BYTES, storable
from crds.node import (
    LocalModel,
    LocalModelNodeSpec,
    LocalModelNodeStatus,
    NodeModelStatus,
)
from crds.states import ModelState, kserve_model_status
from hooks.object_size import NODE_BYTES

REQUEST_BYTES_MAX = 3 << 19


def _status(count: int, message: str, name: int = 63, namespace: int = 63) -> LocalModelNodeStatus:
    models = tuple(
        NodeModelStatus(
            name=f"{index:0{name}d}",
            namespace="n" * namespace,
            key="k" * 16,
            state=ModelState.FAILED,
            cached=False,
            size=1 << 62,
            disk_bytes=1 << 62,
            hash="sha256:" + "a" * 64,
            manifest_hash="sha256:" + "b" * 64,
            origin_bytes=1 << 40,
            peer_bytes=1 << 40,
            attempts=9,
            reason="r" * 64,
            message=message or None,
        )
        for index in range(count)
    )
    words = {f"{one.namespace}/{one.name}": kserve_model_status(one.state) for one in models}
    return LocalModelNodeStatus(models=models, model_status=words)


def test_a_status_that_is_short_enough_stays_as_it_is() -> None:
    status = _status(100, "m" * 1024)
    assert storable(status) is status


@pytest.mark.parametrize(("count", "left"), [(450, 1024), (930, 120), (1050, None), (2000, None)])
def test_messages_become_shorter_before_models_are_left_out(count: int, left: int | None) -> None:
    status = storable(_status(count, "m" * 1024))
    assert len(status.models) == count
    assert {len(one.message) if one.message else None for one in status.models} == {left}
    assert {one.state for one in status.models} == {ModelState.FAILED}
    assert len(status.model_dump_json(by_alias=True, exclude_none=True)) <= 1.1 * STATUS_BYTES


@pytest.mark.parametrize("uri", [10, 2048])
def test_spec_and_status_of_a_full_node_can_be_stored(uri: int) -> None:
    """As many models of the longest names, URIs and messages as a node's list has room for."""
    entry = LocalModel(
        source_model_uri="u" * uri,
        model_name="n" * 63,
        namespace="n" * 63,
        model_size="140Gi",
        node_group="g" * 63,
    )
    count = NODE_BYTES // len(entry.model_dump_json(by_alias=True, exclude_none=True))
    spec = LocalModelNodeSpec(local_models=(entry,) * count)
    status = storable(_status(count, "ü" * 1024))
    whole = [one.model_dump_json(by_alias=True, exclude_none=True) for one in (spec, status)]
    assert sum(len(text.encode()) for text in whole) < REQUEST_BYTES_MAX - 50_000
