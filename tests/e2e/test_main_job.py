"""What the product exists for, with plain kubectl."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from crds.keys import model_key
from deploy.kube.kinds import LOCAL_MODEL_NODES, NODES
from tests.content import weights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.world import World

NO_NODE: dict[str, dict[str, list[dict[str, str]]]] = {"spec": {"localModels": []}}
NODE_NAMES = ("node-1", "node-2", "node-3")

SHORT_FORM = """\
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelNodeGroup
metadata: {name: main}
spec:
  nodeSelector: {pool: gpu}
  storageSpec:
    resources: {requests: {storage: 1Gi}}
  storageLimit: 1Gi
---
apiVersion: serving.kserve.io/v1alpha1
kind: LocalModelCache
metadata: {name: x}
spec:
  sourceModelUri: URI
  modelSize: 10Mi
  nodeGroup: main
"""


def _model_hash(**files: bytes) -> str:
    lines = [f"{hashlib.sha256(c).hexdigest()}  {path}\n" for path, c in sorted(files.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_model_is_on_every_node_of_its_group(world: World) -> None:
    content = weights(5_000_001)
    uri = world.http.put("model.bin", content)
    world.kubectl("apply", "-f", "-", stdin=SHORT_FORM.replace("URI", uri))
    world.kubectl("wait", "--for=condition=Ready", "localmodelcache/x", "--timeout=45s")
    # A node that joins later than the others is a copy more: Metacontroller may have to list anew.
    world.wait_ready("x", 3)

    for node in NODE_NAMES:
        assert (world.copy(node, uri) / "model.bin").read_bytes() == content
        report = world.report(node, uri)
        assert report["cached"] is True
        assert report["state"] == "Downloaded"
        assert report["size"] == len(content)
        assert report["hash"] == _model_hash(**{"model.bin": content})

    cache = world.wait_ready("x", 3)
    assert cache["status"]["nodeStatus"] == dict.fromkeys(NODE_NAMES, "NodeDownloaded")
    assert cache["status"]["copies"] == {"available": 3, "total": 3, "failed": 0}
    assert cache["status"]["size"] == len(content)
    assert cache["status"]["progress"] == 100
    assert cache["status"]["observedGeneration"] == cache["metadata"]["generation"]

    table = world.kubectl("get", "lmc,lmng,lmn")
    assert "ModelCached" in table
    assert "3 nodes, 1 model, 3 of 3 copies available" in table
    assert "1 of 1 model cached" in table

    world.remove_caches("x")
    world.until(
        lambda: not any(world.published(node, uri) for node in NODE_NAMES), "the disks to be free"
    )
    world.kubectl("delete", "lmng", "main", "--timeout=60s")
    world.until(lambda: world.find(LOCAL_MODEL_NODES, "node-1"), "the node to stay known")


def test_a_folder_of_files_from_s3(world: World, tmp_path: Path) -> None:
    files = {
        "config.json": b"{}",
        "weights/part-1.safetensors": weights(3_000_000),
        "weights/part-2.safetensors": weights(1),
        "empty": b"",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    uri = world.s3.upload(tmp_path, "folder/model")
    world.s3.upload(tmp_path, "folder/model-v2")
    world.node("node-1", "s3-folder")
    world.group("s3-folder")
    world.cache("s3-folder", uri, "s3-folder")

    cache = world.wait_ready("s3-folder", 1)
    copy = world.copy("node-1", uri)
    found = {p.relative_to(copy).as_posix(): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert found == files
    assert cache["status"]["hash"] == _model_hash(**files)
    world.remove_caches("s3-folder")


def test_a_node_that_joins_gets_the_model_and_one_that_goes_is_forgotten(world: World) -> None:
    uri = world.http.put("join.bin", b"join" * 1000)
    world.node("node-1", "join")
    world.group("join")
    world.cache("join", uri, "join")
    world.wait_ready("join", 1)

    world.node("node-9", "join")
    cache = world.wait_ready("join", 2)
    assert cache["status"]["nodeStatus"]["node-9"] == "NodeDownloaded"
    world.until(
        lambda: (
            world.api.get(NODES, "node-9")["metadata"]["labels"].get(
                "localmodel.serving.kserve.io/join"
            )
            == model_key(uri)
        ),
        "the node's label of a warm model",
    )

    world.cluster.node_down("node-9")
    cache = world.wait_ready("join", 1)
    assert set(cache["status"]["nodeStatus"]) == {"node-1"}
    assert cache["status"]["copies"]["total"] == 1
    world.until(lambda: not world.find(LOCAL_MODEL_NODES, "node-9"), "its LocalModelNode to go")
    world.remove_caches("join")


def test_caches_are_downloaded_in_the_order_of_their_priority(world: World) -> None:
    world.node("node-2", "order")
    world.group("order")
    uris = {n: world.http.put(f"order-{n}", n.encode() * 1000) for n in ("low", "high", "middle")}
    for name, priority in (("low", -1), ("high", 9), ("middle", 0)):
        world.cache(f"order-{name}", uris[name], "order", priority=priority)
    world.until(
        lambda: (
            [
                m["modelName"]
                for m in (world.find(LOCAL_MODEL_NODES, "node-2") or NO_NODE)["spec"]["localModels"]
                if m["nodeGroup"] == "order"
            ]
            == ["order-high", "order-middle", "order-low"]
        ),
        "the order of the plan",
    )
    for name in uris:
        world.wait_ready(f"order-{name}", 1)
    world.remove_caches(*(f"order-{name}" for name in uris))


def test_a_model_that_is_not_what_was_asked_for_is_not_published(world: World) -> None:
    uri = world.http.put("hash.bin", b"not this")
    world.node("node-3", "hash")
    world.group("hash")
    world.cache("hash", uri, "hash", hash=_model_hash(**{"hash.bin": b"but this"}))
    condition = world.wait_condition("hash", "DownloadFailed")
    assert "Corrupt" in condition["message"]
    assert not world.published("node-3", uri)
    world.http.put("hash.bin", b"but this")
    world.wait_ready("hash", 1)
    world.remove_caches("hash")
