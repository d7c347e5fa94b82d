"""KServe's contract, line by line: files (docs/kserve.md), as agents lay them on a node's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crds.keys import model_key
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, VOLUMES
from deploy.local.product import agent_name
from tests.content import weights
from tests.contract.servers_hf import Repo
from tests.e2e.kserve import SECONDS, KServeNodesWorld

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = "hf://meta-llama/meta-llama-3-8b-instruct"
EXAMPLE_KEY = "c277d78a31bc6624"
STRANGERS = "somebody-elses"


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def node(kserve_nodes: KServeNodesWorld) -> str:
    """A node whose disk has a directory that no agent made."""
    folder = kserve_nodes.cluster.nodes_dir / "node-4" / "models" / STRANGERS
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_bytes(b"mine")
    kserve_nodes.node("node-4", "files")
    kserve_nodes.kserve_group("files", "node-4")
    return "node-4"


def test_the_folder_is_named_by_the_uri_and_has_the_files_directly_inside(
    kserve_nodes: KServeNodesWorld, node: str
) -> None:
    files = {
        "config.json": b"{}",
        "model.safetensors": weights(5001),
        "original/params.json": b"[]",
    }
    kserve_nodes.hub.repos[EXAMPLE.removeprefix("hf://")] = repo = Repo()
    repo.commit(files)
    kserve_nodes.kserve_cache("llama", "files", sourceModelUri=EXAMPLE)
    cache = kserve_nodes.wait_ready("llama", 1)
    disk = kserve_nodes.cluster.nodes_dir / node
    assert _files(disk / "models" / EXAMPLE_KEY) == files
    assert cache["status"]["key"] == EXAMPLE_KEY


def test_a_services_claim_leads_to_the_folder(kserve_nodes: KServeNodesWorld, node: str) -> None:
    uri = kserve_nodes.http.put("claimed.bin", b"claimed" * 100)
    kserve_nodes.kserve_cache("claimed", "files", sourceModelUri=uri)
    kserve_nodes.wait_ready("claimed", 1)
    kserve_nodes.service("claimed-a", "chat", "claimed", nodegroup="files")
    claim = kserve_nodes.wait_bound("claimed-a", "claimed-files")
    volume = kserve_nodes.api.get(VOLUMES, claim["spec"]["volumeName"])
    # The node's disk here stands for /models of a real node; KServe's pod webhook has the sub-path.
    assert volume["spec"]["local"]["path"] == "/models"
    mounted = kserve_nodes.cluster.nodes_dir / node / f"models/{model_key(uri)}"
    assert _files(mounted) == {"claimed.bin": b"claimed" * 100}
    # So no container starts on an empty directory that kubelet would make for a missing model.
    assert volume["spec"]["mountOptions"] == ["ro"]


def test_the_uri_counts_as_it_is_written(
    kserve_nodes: KServeNodesWorld, node: str, tmp_path: Path
) -> None:
    """A prefix is no name of a model, and a slash at the end makes another folder."""
    for path, content in {
        "written/config.json": b"",
        "written/sub/weights": b"1",
        "written-v2/weights": b"2",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    uri = kserve_nodes.s3.upload(tmp_path, "files") + "/written"
    kserve_nodes.reader("files")
    for name, written in {"written": uri, "written-slash": f"{uri}/"}.items():
        kserve_nodes.kserve_cache(name, "files", sourceModelUri=written, serviceAccountName="files")
    for name, written in {"written": uri, "written-slash": f"{uri}/"}.items():
        kserve_nodes.wait_ready(name, 1)
        found = _files(kserve_nodes.copy(node, written))
        assert found == {"config.json": b"", "sub/weights": b"1"}
    assert model_key(uri) != model_key(f"{uri}/")


def test_caches_with_one_uri_share_a_folder_and_a_download(
    kserve_nodes: KServeNodesWorld, node: str
) -> None:
    content = weights(2 << 20)
    uri = kserve_nodes.http.put("shared.bin", content)
    kserve_nodes.kserve_group("shared", node)
    kserve_nodes.kserve_cache("shared", "shared", sourceModelUri=uri)
    kserve_nodes.wait_ready("shared", 1)
    before = kserve_nodes.identity(node, uri)
    asked = len(kserve_nodes.http.requests)
    for space in ("shared-a", "shared-b"):
        kserve_nodes.kserve_cache("shared", "shared", namespace=space, sourceModelUri=uri)
        kserve_nodes.wait_copies("shared", 1, namespace=space)
    # Each namespace's cache costs one look at what the source has, and the first byte of each file,
    # with its own credentials.
    assert len(kserve_nodes.http.requests) == asked + 4
    assert kserve_nodes.http.fetched.count("shared.bin") == 1
    assert kserve_nodes.identity(node, uri) == before
    assert _files(kserve_nodes.copy(node, uri)) == {"shared.bin": content}
    # What the group takes is told, with the model once.
    kserve_nodes.until(
        lambda: kserve_nodes.api.get(GROUPS, "shared")["status"].get("used") == "2Mi",
        "the group to tell its size",
        SECONDS,
    )

    # An agent that starts again asks the origin for nothing.
    asked = len(kserve_nodes.http.requests)
    pid = kserve_nodes.cluster.kill(agent_name(node))
    kserve_nodes.cluster.wait_for_pid(agent_name(node), after=pid)
    uri_after = kserve_nodes.http.put("after.bin", b"after")
    kserve_nodes.kserve_cache("after", "shared", sourceModelUri=uri_after)
    kserve_nodes.wait_ready("after", 1)
    later = kserve_nodes.http.requests[asked:]
    assert {one.partition(" ")[2] for one in later} == {"/after.bin"}

    # It stays as long as anybody wants it.
    kserve_nodes.delete(CACHES, "shared")
    kserve_nodes.delete(NAMESPACE_CACHES, "shared", "shared-a")
    kserve_nodes.until(
        lambda: (
            not kserve_nodes.find(CACHES, "shared")
            and not kserve_nodes.find(NAMESPACE_CACHES, "shared", "shared-a")
        ),
        "two of them to go",
    )
    assert kserve_nodes.identity(node, uri) == before
    kserve_nodes.delete(NAMESPACE_CACHES, "shared", "shared-b")
    kserve_nodes.until(lambda: not kserve_nodes.published(node, uri), "the folder to go")


def test_a_folder_of_somebody_else_is_told_and_left_alone(
    kserve_nodes: KServeNodesWorld, node: str
) -> None:
    condition = kserve_nodes.wait_condition(
        node, "Found", kind="ForeignDirectories", resource=LOCAL_MODEL_NODES
    )
    assert STRANGERS in condition["message"]
    folder = kserve_nodes.cluster.nodes_dir / node / "models" / STRANGERS
    assert _files(folder) == {"notes.txt": b"mine"}


def test_nodes_that_have_a_model_carry_its_label(kserve_nodes: KServeNodesWorld) -> None:
    """So a workload can prefer them; KServe binds pods wherever they are."""
    nodes = ["node-1", "node-2"]
    uri = kserve_nodes.http.put("warm.bin", weights(1 << 20))
    label = f"localmodel.serving.kserve.io/warm={model_key(uri)}"
    kserve_nodes.kserve_group("warm", *nodes)
    kserve_nodes.http.bytes_per_second = 1 << 20
    try:
        kserve_nodes.kserve_cache("warm", "warm", sourceModelUri=uri)

        def warm() -> list[str]:
            found = _labelled(kserve_nodes, label)
            # Whoever has the label has the whole model.
            assert all(kserve_nodes.published(name, uri) for name in found)
            return found

        kserve_nodes.until(lambda: warm() == nodes, "both nodes to be warm")
    finally:
        kserve_nodes.http.bytes_per_second = 0
    kserve_nodes.remove_caches("warm")
    kserve_nodes.until(lambda: not _labelled(kserve_nodes, label), "the labels to go")


def _labelled(kserve_nodes: KServeNodesWorld, label: str) -> list[str]:
    found = kserve_nodes.kubectl("get", "nodes", "-l", label, "-o", "name")
    return [name.removeprefix("node/") for name in found.split()]
