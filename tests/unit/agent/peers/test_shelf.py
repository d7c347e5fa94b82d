"""What an agent has for its peers, on a real disk."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agent.disk.files import sync_directory
from agent.peers import shelf as shelf_module
from agent.peers.shelf import Shelf
from agent.structs.exchange import SharedFile, grant_digest
from agent.structs.manifest import Grant
from agent.structs.pieces import MIN_PIECE_BYTES
from agent.structs.records import BadFile, Scrub
from agent.structs.verified import decode, verified
from crds.keys import model_key
from tests.unit.agent.helpers import stage
from tests.unit.agent.peers.asking import ADMINISTRATOR, TENANT, URI, publish, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from agent.disk.store import Store
    from agent.structs.manifest import Manifest

KEY = model_key(URI)
FILES = {"a.bin": b"first", "sub/b.bin": b"second"}
A, B = (sha256(content) for content in FILES.values())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def shelf(store: Store) -> Shelf:
    return Shelf(store)


def read(shelf: Shelf, digest: str, grant: str = ADMINISTRATOR) -> bytes | None:
    opened = shelf.open(KEY, grant, digest)
    if opened is None:
        return None
    with opened:
        assert opened.pieces is None
        return os.pread(opened.descriptor, opened.size + 1, 0)


def poll(shelf: Shelf, after: int = 0, wait: float = 0) -> tuple[int, dict[str, str]] | None:
    return shelf.pieces(KEY, ADMINISTRATOR, after, wait)


def begin(shelf: Shelf, folder: Path, files: dict[str, bytes]) -> None:
    shared = [SharedFile(path, len(data), sha256(data)) for path, data in files.items()]
    shelf.begin(KEY, ADMINISTRATOR, shared, folder)


def staging(store: Store) -> Path:
    return store.root / ".localmodel" / KEY / "files"


def test_a_published_copy_is_there(shelf: Shelf, store: Store) -> None:
    assert poll(shelf) is None
    assert read(shelf, A) is None
    publish(store, FILES)
    assert (read(shelf, A), read(shelf, B)) == (b"first", b"second")
    found = poll(shelf)
    assert found is not None
    assert found[1] == {A: "*", B: "*"}
    assert read(shelf, "0" * 64) is None
    store.remove(KEY)
    assert poll(shelf) is None
    assert read(shelf, A) is None


def test_without_a_grant_it_is_as_if_nothing_were_there(shelf: Shelf, store: Store) -> None:
    publish(store, FILES, [TENANT])
    stranger = grant_digest(Grant(namespace="other"))
    for grant in (ADMINISTRATOR, stranger, "", "0" * 64):
        assert read(shelf, A, grant) is None
        assert shelf.pieces(KEY, grant, 0, 0) is None
    assert read(shelf, A, grant_digest(TENANT)) == b"first"
    # A grant that comes or goes counts at once.
    publish(store, FILES, [Grant()])
    assert read(shelf, A, grant_digest(TENANT)) is None
    assert read(shelf, A) == b"first"


def test_files_that_a_scrub_found_bad_are_not_served(shelf: Shelf, store: Store) -> None:
    publish(store, FILES)
    first = poll(shelf)
    assert first is not None
    store.note_scrub(KEY, Scrub(time=NOW, bad=(BadFile(path="a.bin", problem="is wrong"),)))
    second = poll(shelf, first[0])
    assert second is not None
    assert second[1] == {A: "0"}
    assert (read(shelf, A), read(shelf, B)) == (None, b"second")
    store.note_scrub(KEY, Scrub(time=NOW))
    assert read(shelf, A) == b"first"


@pytest.mark.parametrize("change", ["longer", "link", "folder above is a link", "pipe", "gone"])
def test_what_is_not_the_published_file_is_not_served(
    shelf: Shelf, store: Store, tmp_path: Path, change: str
) -> None:
    publish(store, {"sub/b.bin": b"second"})
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "b.bin").write_bytes(b"secret")
    folder = store.path(KEY) / "sub"
    if change == "longer":
        (folder / "b.bin").write_bytes(b"second and more")
    elif change == "folder above is a link":
        folder.rename(tmp_path / "old")
        folder.symlink_to(secret)
    else:
        (folder / "b.bin").unlink()
        if change == "link":
            (folder / "b.bin").symlink_to(secret / "b.bin")
        elif change == "pipe":
            os.mkfifo(folder / "b.bin")
    assert read(shelf, B) is None


def test_either_of_two_files_with_the_same_content_serves(shelf: Shelf, store: Store) -> None:
    publish(store, {"one": b"same", "two": b"same"})
    for bad in ("one", "two"):
        store.note_scrub(KEY, Scrub(time=NOW, bad=(BadFile(path=bad, problem="is wrong"),)))
        assert read(shelf, sha256(b"same")) == b"same"


def test_a_download_under_way_serves_the_pieces_that_are_written(
    shelf: Shelf, tmp_path: Path
) -> None:
    data = b"x" * MIN_PIECE_BYTES + b"y"
    (tmp_path / "w").write_bytes(data)
    begin(shelf, tmp_path, {"w": data})
    digest = sha256(data)
    assert shelf.open(KEY, ADMINISTRATOR, digest) is None
    shelf.wrote(KEY, digest, 0b10)
    opened = shelf.open(KEY, ADMINISTRATOR, digest)
    assert opened is not None
    with opened:
        assert (opened.size, opened.pieces) == (len(data), 0b10)
    assert shelf.open(KEY, grant_digest(TENANT), digest) is None
    shelf.end(KEY)
    assert shelf.open(KEY, ADMINISTRATOR, digest) is None
    assert poll(shelf) is None
    # Late words of a download that is over.
    shelf.wrote(KEY, digest, 0b1)
    shelf.lost(KEY, digest)
    shelf.end(KEY)
    assert poll(shelf) is None


def test_files_stay_there_at_each_step_of_a_publication(
    shelf: Shelf, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer finds each file at every moment: in staging, on the move, and published."""
    manifest = stage(store, URI, FILES)
    begin(shelf, staging(store), FILES)
    for digest in (A, B):
        shelf.wrote(KEY, digest, 1)
    found: list[bytes] = []

    def look(*_: object) -> None:
        opened = shelf.open(KEY, ADMINISTRATOR, A)
        assert opened is not None
        with opened:
            found.append(os.pread(opened.descriptor, 100, 0))

    def sync(path: Path) -> None:
        look()
        sync_directory(path)

    monkeypatch.setattr("agent.disk.store.sync_directory", sync)
    store.publish(manifest)
    look()
    shelf.end(KEY)
    look()
    assert len(found) > 5
    assert set(found) == {b"first"}


def test_a_poll_ends_with_new_pieces_and_with_the_publication(shelf: Shelf, store: Store) -> None:
    manifest = stage(store, URI, FILES)
    begin(shelf, staging(store), FILES)
    first = poll(shelf)
    assert first is not None
    assert first[1] == {}
    seen: list[dict[str, str]] = []
    woken = threading.Semaphore(0)

    def follow() -> None:
        after = first[0] if first else 0
        while len({digest for one in seen for digest in one}) < 2:
            news = poll(shelf, after, 20)
            assert news is not None
            after, files = news
            if files:
                seen.append(files)
                woken.release()

    thread = threading.Thread(target=follow)
    thread.start()
    shelf.wrote(KEY, A, 1)
    assert woken.acquire(timeout=20)
    store.publish(manifest)
    shelf.end(KEY)
    thread.join(20)
    assert not thread.is_alive()
    assert seen[0] == {A: "*"}
    assert seen[-1][B] == "*"


def test_a_poll_without_news_ends_after_its_wait_or_when_its_peer_is_gone(
    shelf: Shelf, store: Store
) -> None:
    publish(store, FILES)
    first = poll(shelf)
    assert first is not None
    assert poll(shelf, first[0], 0.05) == (first[0], {})
    assert shelf.pieces(KEY, ADMINISTRATOR, first[0], 20, lambda: True) == (first[0], {})


def test_a_poll_of_a_download_that_fails_ends(shelf: Shelf, tmp_path: Path) -> None:
    begin(shelf, tmp_path, FILES)
    first = poll(shelf)
    assert first is not None
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(poll(shelf, first[0], 20)))
    thread.start()
    shelf.end(KEY)
    thread.join(20)
    assert ended == [None]


def test_after_a_restart_a_revision_gets_all(shelf: Shelf, store: Store) -> None:
    publish(store, FILES)
    first = poll(shelf)
    assert first is not None
    again = poll(Shelf(store), first[0])
    assert again is not None
    assert again[0] != first[0]
    assert again[1] == first[1]


def test_the_verified_manifest_is_there_by_its_hash(shelf: Shelf, store: Store) -> None:
    published = verified(publish(store, FILES, [TENANT]))
    assert published is not None
    grant = grant_digest(TENANT)
    content = shelf.manifest(KEY, grant, published.hash)
    assert content is not None
    assert decode(content, published.hash) == published
    assert shelf.manifest(KEY, grant, f"sha256:{'0' * 64}") is None
    assert shelf.manifest(KEY, ADMINISTRATOR, published.hash) is None
    assert shelf.manifest("0" * 16, grant, published.hash) is None


def test_a_manifest_is_read_once_per_change(
    shelf: Shelf, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, FILES)
    reads: list[str] = []
    really = store.intact

    def intact(key: str) -> tuple[Manifest, frozenset[str]] | None:
        reads.append(key)
        return really(key)

    monkeypatch.setattr(store, "intact", intact)
    for _ in range(10):
        assert read(shelf, A) == b"first"
        poll(shelf)
    assert len(reads) == 1


def test_what_is_known_of_copies_is_bounded(
    shelf: Shelf, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "MAX_MODELS", 2)
    uris = [f"{URI}-{number}" for number in range(5)]
    for uri in uris:
        publish(store, FILES, uri=uri)
    for uri in (*uris, *uris):
        opened = shelf.open(model_key(uri), ADMINISTRATOR, A)
        assert opened is not None
        with opened:
            assert len(shelf._places) <= 2
    for number in range(1000):
        assert shelf.pieces(f"{number:016x}", ADMINISTRATOR, 0, 0) is None
    assert len(shelf._places) <= 2
