"""Quantities at the edge: what the API server takes, and what Kubernetes makes of what we write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from crds.quantity import parse_quantity
from deploy.kube.errors import InvalidError
from deploy.kube.kinds import CACHES, CLAIMS, GROUPS, VOLUMES

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind
    from tests.e2e.world import World

LARGEST = 2**63 - 1

TAKEN = [
    ("1m", 1),
    ("0.1n", 1),
    ("0.5", 1),
    ("1e-3", 1),
    ("1e3", 1000),
    ("1.5Gi", 3 * 2**29),
    ("+1Gi", 2**30),
    (".5Gi", 2**29),
    ("5.", 5),
    ("1Pi", 2**50),
    ("1E", 10**18),
    ("7Ei", 7 * 2**60),
    ("9223372036854775807", LARGEST),
    (LARGEST, LARGEST),
    # More than an int64: as much as can be.
    ("8Ei", LARGEST),
    ("9223372036854775808", LARGEST),
    ("9.3E", LARGEST),
    ("20E", LARGEST),
    ("1e99", LARGEST),
    ("9" * 64, LARGEST),
]
REFUSED = [
    *("0", "00", "-0", "0.0", "0e5", 0),
    *("-1", "-1Gi", "-1m", -1, "-20E"),
    *("1e100", "1e1000000", "1E-1000000", "9" * 65),
    *("", "1K", "1e", "1_000", "0x10", " 1Gi", "1Gi\n", "Gi", "1.5.5", "NaN", "inf"),
    *(LARGEST + 1, 1.5, True),
]


def _takes(world: World, resource: Kind, name: str, spec: dict[str, Any]) -> str:
    """Why the API server does not take an object, which is not kept; empty: it does."""
    head = {"apiVersion": API_VERSION, "kind": resource.name, "metadata": {"name": name}}
    try:
        world.api.create(head | {"spec": spec}, dry_run=True)
    except InvalidError as error:
        return str(error)
    return ""


def _fields(world: World, value: Any) -> dict[str, str]:
    """What is said of a quantity in each field of a spec that has one."""
    template = {"local": {"path": "/models"}}
    volume, claim = (
        {"capacity": {"storage": value}},
        {"resources": {"requests": {"storage": value}}},
    )
    short, long = {"nodeSelector": {"a": "b"}}, {"persistentVolumeSpec": template}
    cache = {"sourceModelUri": "s3://models/a", "nodeGroup": "a", "modelSize": value}
    groups: dict[str, dict[str, Any]] = {
        "storageLimit": short | {"storageLimit": value},
        "storageSpec": short | {"storageLimit": "1Gi", "storageSpec": claim},
        "capacity": {
            "storageLimit": "1Gi",
            "persistentVolumeSpec": template | volume,
            "persistentVolumeClaimSpec": {},
        },
        "requests": long | {"storageLimit": "1Gi", "persistentVolumeClaimSpec": claim},
    }
    found = {field: _takes(world, GROUPS, "edge", spec) for field, spec in groups.items()}
    return found | {"modelSize": _takes(world, CACHES, "edge", cache)}


def test_every_field_takes_what_is_more_than_zero_and_can_be_computed_with(world: World) -> None:
    for value, size in TAKEN:
        assert set(_fields(world, value).values()) == {""}, value
        assert parse_quantity(str(value)) == size


def test_every_field_refuses_the_rest(world: World) -> None:
    for value in REFUSED:
        for field, refusal in _fields(world, value).items():
            assert refusal, (field, value)
    # In words, where it is a quantity.
    for field, refusal in _fields(world, "0").items():
        assert "must be a quantity of more than zero" in refusal, field


# A limit, and the size of a model.
BOUND = [
    *((value, value) for value, _ in TAKEN),
    *((limit, "1Gi") for limit in ("9223372036854775808", "9.3E", "20E", "1e99", "9" * 64)),
]


@pytest.mark.parametrize(
    ("name", "limit", "size"),
    [(f"edge-{number}", *pair) for number, pair in enumerate(BOUND)],
    ids=[f"{limit!s:.20}-{size!s:.20}" for limit, size in BOUND],
)
def test_a_claim_binds_whatever_the_limit_and_the_size_are(
    world: World, name: str, limit: str | int, size: str | int
) -> None:
    world.group(name, storageLimit=limit)
    world.namespace(name, edge=name)
    selector = {"matchLabels": {"edge": name}}
    world.cache(name, f"s3://models/{name}", name, modelSize=size, namespaceSelector=selector)
    world.until(
        lambda: (
            (world.find(CLAIMS, f"{name}-{name}", name) or {}).get("status", {}).get("phase")
            == "Bound"
        ),
        "the claim to be bound",
    )
    claim = world.api.get(CLAIMS, f"{name}-{name}", name)
    volume = world.api.get(VOLUMES, claim["spec"]["volumeName"])
    assert parse_quantity(volume["spec"]["capacity"]["storage"]) == parse_quantity(str(limit))
    world.delete(CACHES, name)
    world.until(lambda: not world.find(CACHES, name), "the cache to go")
    world.delete(GROUPS, name)
