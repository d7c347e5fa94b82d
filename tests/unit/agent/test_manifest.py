from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.structs.json_record import RecordError
from agent.structs.manifest import Manifest, check_path, make_manifest, model_hash
from tests.unit.agent.helpers import manifest_of

URI = "hf://meta-llama/meta-llama-3-8b-instruct"


def test_hash_is_that_of_sha256sum_lines_sorted_by_path() -> None:
    files = {"b/x": b"1", "a": b"", "b-x": b"2"}
    lines = "".join(
        f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in ("a", "b-x", "b/x")
    )
    expected = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert manifest_of(URI, files).hash == expected


def test_manifest_has_the_key_of_kserve_and_the_size() -> None:
    manifest = manifest_of(URI, {"a": b"123", "b": b"4"})
    assert (manifest.key, manifest.size) == ("c277d78a31bc6624", 4)


def test_manifest_survives_json() -> None:
    manifest = manifest_of(URI, {"ü/a b": b"1"})
    assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 2},
        {"key": "0" * 16},
        {"size": 2},
        {"hash": "sha256:" + "0" * 64},
        {"files": [{"path": "../a", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
    ],
)
def test_manifest_that_does_not_agree_with_itself_is_refused(change: dict[str, object]) -> None:
    good = json.loads(manifest_of(URI, {"a": b"1"}).encode())
    with pytest.raises(RecordError):
        Manifest.decode(json.dumps(good | change).encode())


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\0", "a\x7f"),
        "\udc80",
        "x" * 256,
        "ü" * 128,
        f"a/{'ü' * 128}/b",
        f"{'a/' * 200}..",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b.c", "...", "a b/ü", "-rf", "x" * 255, "/".join(["x" * 255] * 9)]
)
def test_other_paths_are_kept_as_they_are(path: str) -> None:
    assert check_path(path) == path


@given(st.permutations(["a", "b", "c/d", "c-d"]))
def test_hash_does_not_depend_on_the_order(paths: list[str]) -> None:
    files = manifest_of(URI, {path: path.encode() for path in sorted(paths)}).files
    by_path = {file.path: file for file in files}
    assert model_hash(by_path[path] for path in paths) == model_hash(files)


def test_empty_model_has_a_hash() -> None:
    assert make_manifest(URI, []).hash == "sha256:" + hashlib.sha256(b"").hexdigest()
