"""Helpers that several tests of the agent share."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.structs.manifest import ManifestFile, make_manifest
from agent.structs.remote import RemoteFile
from crds.node import LocalModel
from tests.faults.disk import read_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from agent.disk.store import Store
    from agent.engine.engine import Engine
    from agent.engine.origins import Origin
    from agent.structs.manifest import Manifest
    from crds.node import LocalModelNodeGroupRef


def set_aws(monkeypatch: pytest.MonkeyPatch, *unset: str) -> None:
    """Set AWS keys in the environment, hide all other AWS settings, and unset `unset`."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", *unset):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


def remembered(engine: Engine, origin: str) -> Origin:
    """What an engine has learned of an origin that has no job any more."""
    origins = engine._schedule._origins
    assert origin not in origins.in_use
    return origins._remembered.get(origin, lambda: pytest.fail(f"{origin} is not remembered"))


def dropped_line(logs: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    """Wait for the first line about dropped writes. Threads of other tests may log other lines."""
    while True:
        for line in list(logs):
            if "firstDropped" in line:
                return line
        time.sleep(0.01)


def local_model(name: str, uri: str, **fields: Any) -> LocalModel:
    defaults = {"model_size": "1Gi", "node_group": "gpus"}
    return LocalModel(model_name=name, source_model_uri=uri, **(defaults | fields))


def node_object(
    *models: LocalModel,
    uid: str = "uid-1",
    generation: int = 1,
    groups: Sequence[LocalModelNodeGroupRef] = (),
    **fields: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNode",
        "metadata": {"name": "node-1", "uid": uid, "generation": generation},
        "spec": {
            "localModels": [model.to_json() for model in models],
            "groups": [group.to_json() for group in groups],
        },
        **fields,
    }


def manifest_of(uri: str, files: Mapping[str, bytes]) -> Manifest:
    return make_manifest(
        uri,
        [
            ManifestFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in files.items()
        ],
    )


def hash_of(files: Mapping[str, bytes]) -> str:
    """The hash of a model with these files."""
    found = manifest_of("mem://any", files).hash
    assert found is not None
    return found


def stage(store: Store, uri: str, files: Mapping[str, bytes]) -> Manifest:
    """Stage these files. Returns the manifest to publish them with."""
    manifest = manifest_of(uri, files)
    store.finish_interrupted(manifest.key)
    staging = store.staging(manifest.key)
    try:
        staging.begin(
            uri, None, [RemoteFile(path, path, len(d), "v1") for path, d in files.items()]
        )
        for path, data in files.items():
            staged = staging.staged[path]
            staged.open()
            staged.write(data, 0)
            staged.mark(0, len(data))
            staged.seal(len(data), sync=True)
        staging.sync()
    finally:
        staging.close()
    return manifest


def publish(store: Store, uri: str, files: Mapping[str, bytes]) -> Manifest:
    manifest = stage(store, uri, files)
    store.publish(manifest)
    return manifest


def view(store: Store, key: str) -> dict[str, bytes] | None:
    """The files that the volume of a model shows; None if it shows none."""
    return read_tree(store.views.path(key))


def hidden(store: Store) -> list[str]:
    """What is left of views that were being made or deleted."""
    folders = [store.root / "volumes" / name for name in (".new", ".old")]
    return [path.name for folder in folders if folder.exists() for path in folder.iterdir()]


def tree(store: Store, key: str) -> dict[str, bytes] | None:
    """The published files of a model; None if there is no directory."""
    root = store.root / "models" / key
    if not root.is_dir():
        return None
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
