from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crds.generate import generated_files, main, manifest
from crds.keys import model_key
from crds.kinds import KINDS, Kind
from crds.states import (
    CopyState,
    KServeModelStatus,
    KServeNodeStatus,
    ModelState,
    copy_state,
    kserve_model_status,
    kserve_node_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parent.parent.parent.parent

# All fields of KServe's types (September 2026): our CRDs accept and keep them.
_CACHE_SPEC = {
    *("sourceModelUri", "modelSize", "nodeGroups", "serviceAccountName", "storage"),
    "imagePullSecrets",
}
_CACHE_STATUS = {
    *("nodeStatus", "copies", "inferenceServices", "llmInferenceServices", "conditions"),
}
KSERVE_FIELDS = {
    "LocalModelCache": {"spec": _CACHE_SPEC, "status": _CACHE_STATUS},
    "LocalModelNamespaceCache": {
        "spec": _CACHE_SPEC | {"pvcRef"},
        "status": _CACHE_STATUS | {"sharedPVCImport"},
    },
    "LocalModelNodeGroup": {
        "spec": {
            *("storageLimit", "persistentVolumeSpec", "persistentVolumeClaimSpec"),
            *("tolerations", "jobTolerations"),
        },
        "status": {"used", "available"},
    },
    "LocalModelNode": {"spec": {"localModels"}, "status": {"modelStatus"}},
    "LocalModelPlacement": {},
}


def _schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from _walk(inner, f"{path}.{name}")
    if "items" in schema:
        yield from _walk(schema["items"], path + "[]")


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    one: Kind = request.param
    return one


def test_the_files_in_the_tree_are_those_of_the_types(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_check_names_a_file_that_differs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crds.generated.TREE", tmp_path)
    assert main(["--check"]) == 1
    assert "localmodelnodes.yaml: differs from the types" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_nothing_generated_is_left_behind() -> None:
    on_disk = {path.relative_to(TREE) for path in (TREE / "crds/manifests").iterdir()}
    assert on_disk == {path for path in generated_files() if path.parts[0] == "crds"}


def test_every_field_is_described(kind: Kind) -> None:
    for path, schema in _walk(_schema(kind)):
        if path != ".metadata":
            assert schema.get("description"), f"{kind.name}{path}"


def test_every_list_says_how_it_merges(kind: Kind) -> None:
    for path, schema in _walk(_schema(kind)):
        if schema.get("type") == "array":
            assert schema.get("x-kubernetes-list-type"), f"{kind.name}{path}"


def test_no_field_has_a_type_that_kubernetes_cannot_keep(kind: Kind) -> None:
    for path, schema in _walk(_schema(kind)):
        assert schema.get("x-kubernetes-int-or-string") or schema["type"] in (
            "string",
            "integer",
            "boolean",
            "object",
            "array",
        ), f"{kind.name}{path}"
        assert "$ref" not in schema


def test_big_maps_and_lists_are_atomic() -> None:
    schemas = {kind.name: _schema(kind)["properties"] for kind in KINDS}
    node = schemas["LocalModelNode"]
    assert node["spec"]["properties"]["localModels"]["x-kubernetes-list-type"] == "atomic"
    assert node["status"]["properties"]["modelStatus"]["x-kubernetes-map-type"] == "atomic"
    cache = schemas["LocalModelCache"]["status"]["properties"]
    assert cache["nodeStatus"]["x-kubernetes-map-type"] == "atomic"
    plan = schemas["LocalModelPlacement"]["spec"]["properties"]
    assert plan["models"]["x-kubernetes-list-type"] == "atomic"


def test_kserves_fields_are_all_there(kind: Kind) -> None:
    for part, fields in KSERVE_FIELDS[kind.name].items():
        assert fields <= set(_schema(kind)["properties"][part]["properties"])


def test_no_rule_stands_over_an_open_field_of_a_cache() -> None:
    """The API server would take no update of one whose spec breaks the rule by now."""
    for name in ("LocalModelCache", "LocalModelNamespaceCache"):
        (one,) = (kind for kind in KINDS if kind.name == name)
        spec = _schema(one)["properties"]["spec"]
        assert spec["x-kubernetes-validations"]
        whole = [("", spec), *_walk(spec)]
        assert not [
            path for path, part in whole if part.get("x-kubernetes-preserve-unknown-fields")
        ]


def test_what_users_wait_for_has_conditions_and_an_observed_generation(kind: Kind) -> None:
    if not kind.written_by_users:
        return
    status = _schema(kind)["properties"]["status"]
    assert {"conditions", "observedGeneration"} <= set(status["properties"])
    assert status["default"] == {"observedGeneration": -1}
    assert kind.columns[0].name == "Ready"
    assert kind.columns[-1].name == "Age"


def test_keys_are_kserves() -> None:
    assert model_key("hf://meta-llama/meta-llama-3-8b-instruct") == "c277d78a31bc6624"


def test_every_state_has_a_word_of_kserves() -> None:
    assert {kserve_model_status(state) for state in ModelState} == set(KServeModelStatus)
    ours = set(CopyState) - {CopyState.NODE_NOT_READY}
    assert {copy_state(state) for state in ModelState} == ours
    assert {copy_state(status) for status in KServeModelStatus} == ours - {CopyState.EVICTED}
    assert {kserve_node_status(copy) for copy in CopyState} == set(KServeNodeStatus)
