"""Folders that are on the nodes' disks before anybody wants their models, as KServe leaves them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from deploy.kube.kinds import LOCAL_MODEL_NODES
from tests.e2e.world import GRACE_SECONDS, SETTLE_SECONDS, World
from tests.unit.agent.servers import Buckets, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILES = {
    "config.json": b"{}",
    "sub/tokens.txt": os.urandom(5000),
    "weights.bin": os.urandom(2 << 20),
}
EXTRA = {".cache/huggingface/download/config.json.metadata": b"etag"}
NODES = ("node-1", "node-2")
# ForeignDirectory is tried again after 10 seconds, then 20, …
RETRY_SECONDS = 60.0


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    """An S3 store that remembers what it was asked for."""
    names = ("adopted", "refused")
    objects = {f"{name}/{path}": data for name in names for path, data in FILES.items()}
    with serving(Buckets({"kserve": objects})) as server:
        yield server


def _fetched(store: Server, name: str) -> list[str]:
    """The objects of which any byte was asked for."""
    prefix = f"/kserve/{name}/"
    return [
        path.removeprefix(prefix)
        for command, path, _ in store.seen
        if command == "GET" and path.startswith(prefix)
    ]


def _lay(world: World, node: str, uri: str, files: Mapping[str, bytes]) -> None:
    folder = world.copy(node, uri)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _want(world: World, store: Server, name: str, uri: str) -> None:
    host = store.url.removeprefix("http://")
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    world.secret(name, keys, endpoint=host, usehttps="0")
    world.service_account(name, name)
    world.group(name, "adoption", eviction={"policy": "None"})
    world.cache(name, uri, name, serviceAccountName=name)


def test_folders_that_kserve_filled_become_models_without_a_download(
    world: World, store: Server
) -> None:
    uri = "s3://kserve/adopted"
    for node in NODES:
        world.node(node, "adoption")
    whole, part = NODES
    _lay(world, whole, uri, FILES | EXTRA)
    # The other's download was interrupted.
    _lay(world, part, uri, {path: FILES[path] for path in ("config.json", "weights.bin")})
    before = {node: world.identity(node, uri) for node in NODES}
    _want(world, store, "adopted", uri)
    cache = world.wait_ready("adopted", 2)
    assert cache["status"]["nodeStatus"] == dict.fromkeys(NODES, "NodeDownloaded")
    assert set(_fetched(store, "adopted")) == {"sub/tokens.txt"}

    # What was there is as it was; only a folder that got a file has another time.
    assert world.identity(whole, uri) == before[whole]
    after = world.identity(part, uri)
    assert {path: after[path] for path in before[part]} == before[part]
    assert (world.copy(part, uri) / "sub/tokens.txt").read_bytes() == FILES["sub/tokens.txt"]

    reports = [world.report(node, uri) for node in NODES]
    assert {report["size"] for report in reports} == {sum(map(len, FILES.values()))}
    hashes = world.until(
        lambda: {h for n in NODES if (h := world.report(n, uri).get("hash"))}, "their hash"
    )
    assert len(hashes) == 1
    world.remove_caches("adopted")
    world.until(
        lambda: not any(world.published(node, uri) for node in NODES),
        "the models to go with their cache",
        GRACE_SECONDS + SETTLE_SECONDS,
    )


def test_a_folder_with_another_file_stays_and_heals_when_it_is_right(
    world: World, store: Server
) -> None:
    uri, node = "s3://kserve/refused", NODES[0]
    for name in NODES:
        world.node(name, "adoption")
    _lay(world, node, uri, FILES | {"config.json": b"[]"})
    before = world.identity(node, uri)
    _want(world, store, "refused", uri)
    condition = world.wait_condition("refused", "DownloadFailed")
    assert "ForeignDirectory" in condition["message"]
    message = world.report(node, uri)["message"]
    assert "'config.json' has another md5 there than at the source" in message
    assert "move it away, or delete it" in message
    assert world.identity(node, uri) == before
    (world.copy(node, uri) / "config.json").write_bytes(FILES["config.json"])
    world.wait_ready("refused", 2, SETTLE_SECONDS + RETRY_SECONDS)
    after = world.identity(node, uri)
    assert after["weights.bin"] == before["weights.bin"]
    told = world.condition(LOCAL_MODEL_NODES, node, "ForeignDirectories").get("message", "")
    assert world.copy(node, uri).name not in told
    world.remove_caches("refused")
