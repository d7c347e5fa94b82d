"""The process dies, or the disk fails, at each call that changes the file system."""

from __future__ import annotations

import errno
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agent.disk.files import write_atomically
from agent.disk.on_disk import Found, OnDisk
from agent.disk.store import Store
from agent.structs.records import Evicted, Usage
from agent.structs.sizes import EvictionReason
from crds.keys import model_key
from tests.faults.calls import Crash, faults
from tests.unit.agent.helpers import hidden, manifest_of, publish, stage, tree, view

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Each test changes a disk once for each of its calls, up to hundreds of times, and waits for the
# disk thousands of times: seconds on an idle machine, minutes on one whose disk is busy.
pytestmark = pytest.mark.timeout(600)

URI = "s3://bucket/model"
KEY = model_key(URI)
OLD = {"old.bin": b"old", "same": b"1"}
NEW = {"config.json": b"{}", "deep/w.bin": b"weights", "empty": b""}
MANY = 400
TIME = datetime(2026, 8, 1, tzinfo=UTC)
NOTE = Evicted(time=TIME, size=4096, reason=EvictionReason.MADE_ROOM, message="for another")


def opened(root: Path) -> Store:
    store = Store(root, makes_views=True)
    store.open()
    return store


def check_seen(store: Store, outcomes: tuple[dict[str, bytes] | None, ...]) -> None:
    """What a pod sees at this moment: a whole model or none, by its claim and by the root's."""
    found, shown = tree(store, KEY), view(store, KEY)
    assert found in outcomes
    assert shown in (None, found)


def check_shown(store: Store, files: dict[str, bytes] | None) -> None:
    """The copy has these files, and its view has the very same."""
    assert tree(store, KEY) == files
    assert view(store, KEY) == files
    for path in files or ():
        assert (store.views.path(KEY) / path).samefile(store.path(KEY) / path)
    assert not store.inspect(KEY).lacks_view


def with_foreign(store: Store) -> None:
    theirs = store.root / "models" / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")


def publish_new(store: Store) -> None:
    publish(store, URI, NEW)


def remove(store: Store) -> None:
    store.remove(KEY)


def discard(store: Store) -> None:
    store.discard(KEY)


def drop(store: Store) -> None:
    store.drop(KEY)


def evict(store: Store) -> None:
    store.evict(KEY, NOTE)


def publish_used(store: Store) -> None:
    publish_old(store)
    store.note_usage(KEY, Usage(published_time=TIME, last_used_time=TIME))


def evicted_before(store: Store) -> None:
    publish_used(store)
    store.evict(KEY, NOTE)


def stage_new(store: Store) -> None:
    stage(store, URI, NEW)


def nothing(store: Store) -> None:
    """A disk on which nothing of the model is."""


def publish_old(store: Store) -> None:
    publish(store, URI, OLD)


# What is there before, what is done, and what may be there after it was interrupted.
CASES = [
    pytest.param(nothing, publish_new, (None, NEW), id="first-publication"),
    pytest.param(publish_old, publish_new, (None, OLD, NEW), id="replacement"),
    pytest.param(publish_old, remove, (None, OLD), id="removal"),
    pytest.param(stage_new, discard, (None,), id="discard"),
    pytest.param(publish_used, evict, (None, OLD), id="eviction"),
    pytest.param(publish_used, drop, (None, OLD), id="drop"),
    pytest.param(evicted_before, publish_new, (None, NEW), id="return"),
    pytest.param(evicted_before, remove, (None,), id="removal-of-what-was-evicted"),
]


@pytest.mark.parametrize(("before", "action", "outcomes"), CASES)
def test_a_crash_leaves_the_whole_or_nothing(
    tmp_path: Path,
    before: Callable[[Store], None],
    action: Callable[[Store], None],
    outcomes: tuple[dict[str, bytes] | None, ...],
) -> None:
    for n in range(1, MANY):
        store = opened(tmp_path / str(n))
        with_foreign(store)
        before(store)
        with faults(store.root, n) as calls, suppress(Crash):
            action(store)
        store.close()
        # A pod that looks in right after the crash sees no half model either.
        check_seen(store, outcomes)

        check_restart(store.root, outcomes)
        check_crash_in_recovery(tmp_path, n, before, action, outcomes)
        if not calls.struck:
            assert n > 5
            return
    pytest.fail("it never ends")


def check_restart(root: Path, outcomes: tuple[dict[str, bytes] | None, ...]) -> None:
    store = opened(root)
    store.recover()
    found = tree(store, KEY)
    assert found in outcomes
    check_shown(store, found)
    assert hidden(store) == []
    copies, foreign = store.scan()
    assert foreign == ("theirs",)
    # What was interrupted is brought to an end: nothing is left in between.
    assert copies.get(KEY, OnDisk()).found is not Found.DAMAGED
    whole = copies.get(KEY) is not None and copies[KEY].found is Found.PUBLISHED
    assert whole is (found is not None)
    # A published model keeps nothing beside it; staging that is left is known of.
    left = {path.name for path in (root / ".localmodel" / KEY).glob("*")}
    if whole:
        assert {"manifest.json"} <= left <= {"manifest.json", "usage.json"}
        assert copies[KEY].evicted is None
        assert copies[KEY].tree_bytes > 0
    else:
        # When it was used is noted until it is no longer wanted, also where the note of an eviction
        # was not written any more.
        notes = {"evicted.json", "usage.json"}
        was_evicted = "evicted.json" in left
        assert copies.get(KEY, OnDisk()).evicted == (NOTE if was_evicted else None)
        assert all(
            name in {"files", "journal.json"} or name.startswith("progress-")
            for name in left - notes
        )
    store.recover()
    assert tree(store, KEY) == found
    publish(store, URI, NEW)
    check_shown(store, NEW)
    store.remove(KEY)
    check_shown(store, None)
    assert store.scan() == ({}, ("theirs",))
    assert {path.name for path in (root / ".localmodel").iterdir()} == {"lock"}
    store.close()


def check_crash_in_recovery(
    tmp_path: Path,
    n: int,
    before: Callable[[Store], None],
    action: Callable[[Store], None],
    outcomes: tuple[dict[str, bytes] | None, ...],
) -> None:
    """The same crash, and others while it is recovered from."""
    for m in (1, 2, 3, 5, 8):
        store = opened(tmp_path / f"{n}-{m}")
        with_foreign(store)
        before(store)
        for fail_at, step in ((n, action), (m, Store.recover)):
            with faults(store.root, fail_at), suppress(Crash):
                step(store)
        store.close()
        check_restart(store.root, outcomes)


LACKING = "deep/w.bin"
PART = {path: data for path, data in NEW.items() if path != LACKING}


def lay_part(store: Store) -> dict[str, tuple[int, int]]:
    """A folder that somebody else filled, but for one file. Returns what must stay."""
    for path, data in PART.items():
        (store.path(KEY) / path).parent.mkdir(parents=True, exist_ok=True)
        (store.path(KEY) / path).write_bytes(data)
    return identity(store)


def identity(store: Store) -> dict[str, tuple[int, int]]:
    found = {path: (store.path(KEY) / path).stat() for path in PART}
    return {path: (one.st_ino, one.st_mtime_ns) for path, one in found.items()}


def adopt(store: Store) -> None:
    """As a download does: what is lacking is staged first."""
    lacking = [] if (store.path(KEY) / LACKING).exists() else [LACKING]
    stage(store, URI, {path: NEW[path] for path in lacking})
    store.adopt(manifest_of(URI, NEW), lacking)


@pytest.mark.parametrize("error", [Crash, lambda: OSError(errno.EIO, "injected")])
def test_an_interrupted_adoption_leaves_a_foreign_folder_or_an_adopted_one(
    tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    for n in range(1, MANY):
        store = opened(tmp_path / str(n))
        before = lay_part(store)
        with faults(store.root, n, error) as calls, suppress(Crash, OSError):
            adopt(store)
        store.close()
        store = opened(tmp_path / str(n))
        for recover_at in (1, 2, 3, 0):
            with faults(store.root, recover_at, error), suppress(Crash):
                store.recover()
            assert tree(store, KEY) in (PART, NEW)
            assert view(store, KEY) in (None, NEW)
            assert identity(store) == before
            copies, foreign = store.scan()
            adopted = copies.get(KEY, OnDisk()).found is Found.PUBLISHED
            assert foreign == (() if adopted else (KEY,))
            assert tree(store, KEY) == NEW or not adopted
        if not adopted:
            adopt(store)
        check_shown(store, NEW)
        assert identity(store) == before
        assert store.inspect(KEY).found is Found.PUBLISHED
        assert [path.name for path in (store.root / ".localmodel" / KEY).iterdir()] == [
            "manifest.json"
        ]
        store.close()
        if not calls.struck:
            assert n > 10
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize(("before", "action", "outcomes"), CASES)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_error_of_the_disk_leaves_the_whole_or_nothing(
    tmp_path: Path,
    before: Callable[[Store], None],
    action: Callable[[Store], None],
    outcomes: tuple[dict[str, bytes] | None, ...],
    code: int,
) -> None:
    for n in range(1, MANY):
        store = opened(tmp_path / str(n))
        with_foreign(store)
        before(store)
        with (
            faults(store.root, n, lambda: OSError(code, "injected"), once=True) as calls,
            suppress(OSError),
        ):
            action(store)
        check_seen(store, outcomes)
        # The same process goes on.
        publish(store, URI, NEW)
        check_shown(store, NEW)
        store.close()
        check_restart(store.root, (NEW,))
        if not calls.struck:
            return
    pytest.fail("it never ends")


def test_data_is_on_the_disk_before_the_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    with faults(tmp_path, fail_at=10**9) as calls:
        publish(store, URI, NEW)
    store.close()
    meta = str(tmp_path / ".localmodel" / KEY)
    renames = [
        n
        for n, call in enumerate(calls.log)
        if call.name == "rename" and "journal" not in call.path
    ]
    assert [calls.log[n].path for n in renames] == [
        f"{meta}/staged.json.tmp",
        f"{meta}/files",
        f"{meta}/staged.json",
    ]
    opened_for_sync = [call.path for call in calls.log[: renames[1]] if call.name == "open"]
    for path in (f"{meta}/files/deep", f"{meta}/files", meta):
        assert path in opened_for_sync
    syncs = [n for n, call in enumerate(calls.log) if call.name == "fsync"]
    staged = next(n for n, call in enumerate(calls.log) if "staged.json.tmp" in call.path)
    # Progress, journal and its directory; three files; two directories.
    assert sum(n < staged for n in syncs) == 3 + 3 + 2
    # The manifest and its directory; then models/ and the rest.
    assert sum(staged < n < renames[1] for n in syncs) == 2
    assert sum(n > renames[1] for n in syncs) == 3


def test_an_eviction_leaves_its_note_and_when_it_was_used(tmp_path: Path) -> None:
    store = opened(tmp_path)
    evicted_before(store)
    store.recover()
    copy = store.inspect(KEY)
    assert copy.found is Found.NOTHING
    assert copy.evicted == NOTE
    assert copy.usage == Usage(published_time=TIME, last_used_time=TIME)
    # A download that is given up leaves the note alone.
    stage_new(store)
    store.discard(KEY)
    assert store.inspect(KEY).evicted == NOTE
    publish_new(store)
    assert store.inspect(KEY).evicted is None
    assert not (tmp_path / ".localmodel" / KEY / "evicted.json").exists()
    store.close()


def test_an_eviction_that_an_error_broke_off_is_brought_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    publish_used(store)

    def fails(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as broken:
        broken.setattr("agent.disk.store.sync_directory", fails)
        with pytest.raises(OSError, match="Input/output error"):
            store.evict(KEY, NOTE)
    store.discard(KEY)
    assert {path.name for path in (tmp_path / ".localmodel" / KEY).iterdir()} == {"usage.json"}
    copy = store.inspect(KEY)
    assert (copy.found, copy.is_left) == (Found.NOTHING, True)
    store.remove(KEY)
    assert store.scan() == ({}, ())
    assert not (tmp_path / ".localmodel" / KEY).exists()
    store.close()


@pytest.mark.parametrize("once", [True, False])
def test_an_eviction_stands_without_its_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    store = opened(tmp_path)
    publish_old(store)
    tries: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        tries.append(path)
        if once and len(tries) > 1:
            # The model's files have gone by then.
            assert not (tmp_path / ".localmodel" / KEY / "old").exists()
            write_atomically(path, content)
        else:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.disk.store.write_atomically", full)
    with suppress(OSError):
        store.evict(KEY, NOTE)
    assert tree(store, KEY) is None
    assert store.inspect(KEY).evicted == (NOTE if once else None)
    store.close()


BAD = {**NEW, "config.json": b"[]", "deep/w.bin": b"damaged"}


def damage(store: Store) -> None:
    """Two files have other content than was downloaded; the good ones are staged."""
    publish_new(store)
    for path in ("config.json", "deep/w.bin"):
        (store.path(KEY) / path).write_bytes(BAD[path])
    stage(store, URI, {path: NEW[path] for path in ("config.json", "deep/w.bin")})


def mend(store: Store) -> None:
    store.mend(manifest_of(URI, NEW), ["config.json", "deep/w.bin"])


@pytest.mark.parametrize("error", [Crash, lambda: OSError(errno.EIO, "injected")])
def test_an_interrupted_repair_leaves_each_file_as_it_was_or_mended(
    tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    for n in range(1, MANY):
        store = opened(tmp_path / str(n))
        damage(store)
        folder = store.views.path(KEY).stat().st_ino
        with faults(store.root, n, error) as calls, suppress(Crash, OSError):
            mend(store)
        store.close()
        for files in (tree(store, KEY), view(store, KEY)):
            assert files is not None
            assert files.keys() == NEW.keys()
            assert all(data in (BAD[path], NEW[path]) for path, data in files.items())
        store = opened(tmp_path / str(n))
        for recover_at in (1, 2, 3, 0):
            with faults(store.root, recover_at, error), suppress(Crash):
                store.recover()
        # What the copy has by now, its view has too, in the folder that pods have mounted.
        found = tree(store, KEY)
        assert found is not None
        check_shown(store, found)
        assert store.views.path(KEY).stat().st_ino == folder
        assert hidden(store) == []
        store.close()
        if not calls.struck:
            assert found == NEW
            return
    pytest.fail("it never ends")
