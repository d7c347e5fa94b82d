"""Agents of a group exchange what they have, so that the origin sends each byte once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import TYPE_CHECKING

import pytest

from agent.structs.causes import unreachable
from tests.unit.agent.helpers import tree
from tests.unit.agent.peers.group import KEY, group, origin

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
FILES = {
    "config.json": b"{}",
    "a.bin": os.urandom(24 * MIB + 12_345),
    "b.bin": os.urandom(16 * MIB),
    "empty": b"",
}
SIZE = sum(map(len, FILES.values()))


@pytest.mark.parametrize("tls", [False, True])
def test_all_nodes_get_the_model_and_the_origin_sends_it_about_once(
    tmp_path: Path, *, tls: bool
) -> None:
    # The pace of an origin that is the limit: each read of it waits.
    source = origin(FILES, on_read=lambda _path, _at: time.sleep(0.02), piece=256 << 10)
    with group(tmp_path, source, 4, tls=tls) as nodes:
        manifests = nodes.download()
        assert [tree(node.store, KEY) for node in nodes.nodes] == [FILES] * 4
    assert {manifest.hash for manifest in manifests} == {manifests[0].hash}
    assert source.sent.total() < 2 * SIZE
    for manifest in manifests:
        assert (manifest.origin_bytes or 0) + (manifest.peer_bytes or 0) >= SIZE
    assert all(manifest.peer_bytes for manifest in manifests)


def test_node_that_comes_late_asks_the_origin_for_its_listing_alone(tmp_path: Path) -> None:
    source = origin(FILES)
    with group(tmp_path, source, 2) as nodes:
        first, second = nodes.nodes
        first.download()
        sent = source.sent.total()
        manifest = second.download()
        assert tree(second.store, KEY) == FILES
    assert source.sent.total() == sent
    assert (manifest.origin_bytes, manifest.peer_bytes) == (0, SIZE)


def test_node_that_begins_later_leaves_to_the_first_what_that_has_asked_for(
    tmp_path: Path,
) -> None:
    files, reads = {"a.bin": os.urandom(80 * MIB)}, Semaphore(0)

    def read(_path: str, _at: int) -> None:
        reads.release()
        time.sleep(0.03)

    source = origin(files, on_read=read, piece=256 << 10)
    with group(tmp_path, source, 2) as nodes, ThreadPoolExecutor(2) as pool:
        first, second = nodes.nodes
        downloads = [pool.submit(first.download)]
        # It is alone, and asks for nearly everything.
        for _ in range(20):
            assert reads.acquire(timeout=20)
        downloads.append(pool.submit(second.download))
        for download in downloads:
            download.result()
    # Half of that belongs to the second one by now, which would ask for it again.
    assert source.sent.total() < 1.4 * 80 * MIB


def test_origin_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    source = origin(FILES)
    with group(tmp_path, source, 2) as nodes:
        first, second = nodes.nodes
        first.download()

        def gone(*_: object) -> None:
            raise unreachable(ConnectionError(), "mem")

        source.on_open = gone
        second.download()
        assert tree(second.store, KEY) == FILES
