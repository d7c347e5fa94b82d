"""Each field that a user can write has a bound in the schema, or a reason here why it has none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from crds.base import FOR_USERS
from crds.generate import manifest
from crds.kinds import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    Schema = dict[str, Any]

# Kinds that the hooks write, out of what users wrote. A bound there would refuse the whole plan for
# one object that was stored before the bound: hooks/object_size.py bounds their bytes.
WRITTEN_BY_HOOKS = {"LocalModelNode", "LocalModelPlacement"}

# Parts of core/v1 that are kept as given, as in KServe's own CRDs. An administrator writes them;
# the API server stores at most 1.5 MiB of an object, and a longer spec leaves the models less room.
OPEN_AS_IN_KSERVE = {
    ".spec.storageSpec",
    ".spec.storageSpec.resources",
    ".spec.persistentVolumeSpec",
    ".spec.persistentVolumeSpec.hostPath",
    ".spec.persistentVolumeSpec.local",
    ".spec.persistentVolumeClaimSpec",
    ".spec.persistentVolumeClaimSpec.resources",
    ".spec.tolerations[]",
    ".spec.jobTolerations[]",
}


def _schema(kind: Kind) -> Schema:
    schema: Schema = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _unbounded(schema: Schema, path: str) -> Iterator[str]:
    """Paths of the strings, lists and maps below a schema that may be of any length."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        yield path
    if schema.get("x-kubernetes-int-or-string") or schema.get("type") == "string":
        if not {"maxLength", "enum"} & schema.keys():
            yield path
    elif schema.get("type") == "array":
        if "maxItems" not in schema:
            yield path
        yield from _unbounded(schema["items"], f"{path}[]")
    elif "additionalProperties" in schema:
        if "maxProperties" not in schema:
            yield path
        yield from _unbounded(schema["additionalProperties"], f"{path}{{}}")
    for name, inner in schema.get("properties", {}).items():
        yield from _unbounded(inner, f"{path}.{name}")


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k.name not in WRITTEN_BY_HOOKS], ids=lambda kind: kind.name
)
def test_all_that_a_user_writes_has_a_bound(kind: Kind) -> None:
    found = set(_unbounded(_schema(kind)["properties"]["spec"], ".spec"))
    assert found == (OPEN_AS_IN_KSERVE if kind.name == "LocalModelNodeGroup" else set())


def test_the_kinds_that_hooks_write_are_those_that_nobody_waits_for() -> None:
    assert {kind.name for kind in KINDS if not kind.written_by_users} == WRITTEN_BY_HOOKS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_schema_has_a_word_that_kubernetes_does_not_know(kind: Kind) -> None:
    assert not re.search(FOR_USERS, str(_schema(kind)))


def test_a_bound_of_users_is_not_repeated_where_hooks_write() -> None:
    schemas = {kind.name: _schema(kind)["properties"]["spec"]["properties"] for kind in KINDS}
    asked = schemas["LocalModelNodeGroup"]["persistentVolumeSpec"]["properties"]["nodeAffinity"]
    asked = asked["properties"]["required"]["properties"]["nodeSelectorTerms"]
    written = schemas["LocalModelPlacement"]["nodeSelectorTerms"]
    for terms, bounded in ((asked, True), (written, False)):
        values = terms["items"]["properties"]["matchExpressions"]["items"]["properties"]["values"]
        assert ("maxItems" in terms) is bounded
        assert ("maxItems" in values) is bounded
        assert ("maxLength" in values["items"]) is bounded
