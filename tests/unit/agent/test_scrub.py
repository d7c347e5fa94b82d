"""Damage of published files is found, told and repaired."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from agent.cluster.pod_mounts import PodMounts
from agent.disk.on_disk import Found
from agent.jobs.digest_read import with_digests
from agent.jobs.reservations import Coming
from agent.jobs.scrub_read import ScrubReader
from agent.jobs.workers import Workers
from agent.sources import Sources, all_sources
from agent.structs.records import BadFile, Scrub
from agent.structs.remote import Checksum, ChecksumAlgorithm
from agent.structs.sizes import in_blocks
from crds.keys import model_key
from tests.faults.calls import Call, Calls, Fault, raising, watched
from tests.faults.origin import settings
from tests.unit.agent import inside
from tests.unit.agent.crowded import NoPods, entry, told
from tests.unit.agent.helpers import local_model, publish, tree
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import Buckets, WebFiles, serving, span_of
from tests.unit.agent.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.capacity.holdings import Holding
    from agent.disk.store import Store
    from agent.structs.manifest import Manifest
    from tests.unit.agent.servers import Handler

DAY = 86400.0
FILES = {f"{n}.bin": n.encode() * 70_000 for n in ("p", "q", "sub/r")}
URI = "s3://models/m"
KEY = model_key(URI)


class Origin:
    """An S3 server that counts the bytes of each file that it is asked for."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        # What the loop has reserved at each request.
        self.look: Any = lambda: None
        objects = {f"m/{path}": data for path, data in FILES.items()}
        self.buckets = Buckets({"models": objects}, before_get=self._count)

    def _count(self, handler: Handler, key: str) -> bool:
        span = span_of(handler, len(self.buckets.objects["models"][key]))
        assert span is not None
        self.sent[key.removeprefix("m/")] += span.length
        self.look()
        return True


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def world(tmp_path: Path, origin: Origin) -> Iterator[World]:
    """A node that has the model, and an agent that reads what it has again."""
    with serving(origin.buckets) as server:
        world = World(tmp_path / "node", WebFiles({}), server, sources=all_sources())
        world.credentials = lambda _: settings(server.url)
        world.scrub_rate = 1 << 30
        world.pods = NoPods(lambda: world.loop)
        begin(world)
        world.settle()
        assert origin.sent == {path: len(data) for path, data in FILES.items()}
        origin.sent.clear()
        yield world
        world.loop.stop()
        world.loop.step()
        world.store.close()


def begin(world: World, *mounted: str) -> None:
    """An agent starts; a pod mounts these keys."""
    world.restart()
    use(world, *mounted)
    world.want(local_model("m", URI, model_size="1Ki"))


def use(world: World, *keys: str) -> None:
    pod = PodMounts("team", "server", frozenset(), frozenset(keys))
    world.loop.observe_pods((pod,) if keys else ())


def flip(world: World, path: str) -> None:
    """One byte of a published file is another one, and its size and time tell nothing."""
    file = world.store.path(KEY) / path
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def read_again(world: World) -> None:
    """A day passes, the model is read, and what follows from that happens."""
    world.step(DAY)
    world.settle_until(lambda: not inside.scrubbing(world.loop)._key)
    world.settle()


def inodes(world: World) -> dict[str, int]:
    return {path: (world.store.path(KEY) / path).stat().st_ino for path in (".", *FILES)}


def test_only_the_file_with_the_flipped_byte_is_fetched_again(world: World, origin: Origin) -> None:
    read_again(world)
    assert told(world, "Damaged") == []
    before = inodes(world)
    flip(world, "sub/r.bin")
    seen: list[object] = []
    origin.look = lambda: seen.append(tree(world.store, KEY))
    read_again(world)
    assert origin.sent == {"sub/r.bin": len(FILES["sub/r.bin"])}
    # No pod could begin to read it meanwhile.
    assert set(map(str, seen)) == {"None"}
    assert tree(world.store, KEY) == FILES
    after = inodes(world)
    # A new file may get the number of the one that is gone.
    assert {path for path in FILES if after[path] != before[path]} <= {"sub/r.bin"}
    assert len(told(world, "Damaged")) == 1
    assert "sub/r.bin has other content than was downloaded" in told(world, "Damaged")[0]
    assert (entry(world, "m")["state"], entry(world, "m")["cached"]) == ("Downloaded", True)
    read_again(world)
    assert len(told(world, "Damaged")) == 1
    assert sorted(path.name for path in (world.root / ".localmodel" / KEY).iterdir()) == [
        "manifest.json",
        "scrub.json",
        "usage.json",
    ]


@pytest.mark.parametrize("is_away", [False, True], ids=["", "the-disk-is-away"])
def test_a_file_that_changes_before_it_is_digested_is_found_by_the_checksum_of_its_store(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    # The check value that CRC-32C is published with.
    checksum = Checksum(ChecksumAlgorithm.CRC32C, "e3069283")
    source = Memory({"one": b"123456789"}, checksums={"one": checksum})
    digested = 0

    def harmed(
        model: Path, manifest: Manifest, stopped: Callable[[], bool]
    ) -> Manifest | tuple[BadFile, ...]:
        nonlocal digested
        digested += 1
        if digested == 1:
            (model / "one").write_bytes(b"123456780")
        return with_digests(model, manifest, stopped)

    def probed(store: Store) -> None:
        if is_away and digested == 1:
            raise OSError(errno.EIO, "Input/output error", str(store.root))

    monkeypatch.setattr("agent.jobs.workers.with_digests", harmed)
    monkeypatch.setattr("agent.jobs.workers.probe", probed)
    other = World(
        tmp_path / "other", world.web, world.server, sources=Sources({"mem": cast("Any", source)})
    )
    other.want(local_model("m", "mem://model"))
    key = model_key("mem://model")

    def is_whole() -> bool:
        if is_away and digested == 1:
            # Until the next look at the disk; a later one would report the damage once more.
            other.step(10.0)
        manifest = other.store.inspect(key).manifest
        return manifest is not None and manifest.hash is not None

    with capture_logs() as logs:
        other.settle_until(is_whole)
    assert [line["key"] for line in logs if line["event"] == "Published model is damaged"] == [key]
    assert tree(other.store, key) == source.contents
    assert (digested, source.sent["one"]) == (3 if is_away else 2, 18)
    other.loop.stop()
    other.loop.step()
    other.store.close()


def test_a_copy_that_a_pod_mounts_is_mended_where_it_is(world: World, origin: Origin) -> None:
    use(world, KEY)
    before = inodes(world)
    flip(world, "q.bin")
    seen: list[Holding] = []
    origin.look = lambda: seen.append(inside.holding(world.loop, KEY))
    read_again(world)
    assert origin.sent == {"q.bin": len(FILES["q.bin"])}
    # Room for that file alone, beside the copy that stays; of a limit, both count once.
    whole, bad = sum(map(in_blocks, map(len, FILES.values()))), in_blocks(len(FILES["q.bin"]))
    (model,) = seen
    assert (model.reserved, model.on_disk, model.of_limit) == (bad, whole + bad, whole)
    assert tree(world.store, KEY) == FILES
    after = inodes(world)
    assert [path for path in after if after[path] != before[path]] == ["q.bin"]
    assert entry(world, "m")["state"] == "Downloaded"
    # What the model takes is known as before.
    assert inside.reservations(world.loop).learned[KEY] == {(1024, Coming.MODEL): whole}


def test_a_mounted_copy_whose_source_has_changed_waits_for_its_pods(
    world: World, origin: Origin
) -> None:
    use(world, KEY)
    flip(world, "q.bin")
    origin.buckets.objects["models"]["m/q.bin"] = b"anew"
    read_again(world)
    found = entry(world, "m")
    assert (found["state"], found["reason"], found["cached"]) == ("Failed", "Corrupt", False)
    assert "end the pods that mount it" in found["message"]
    assert origin.sent == {}
    use(world)
    world.step(300)
    world.settle()
    assert origin.sent == {"q.bin": 4}
    assert tree(world.store, KEY) == FILES | {"q.bin": b"anew"}


def test_damage_is_still_known_after_a_restart(world: World, origin: Origin) -> None:
    flip(world, "p.bin")
    origin.buckets.refuse = (503, "SlowDown")
    use(world, KEY)
    read_again(world)
    assert entry(world, "m")["cached"] is False
    begin(world, KEY)
    world.step()
    # The attempt to mend it is known too, and that it failed.
    assert (entry(world, "m")["reason"], entry(world, "m")["cached"]) == ("Throttled", False)
    origin.buckets.refuse = None
    world.step(300)
    world.settle()
    assert origin.sent == {"p.bin": len(FILES["p.bin"])}
    assert tree(world.store, KEY) == FILES


def test_when_it_was_used_survives_a_repair_and_a_restart(world: World, origin: Origin) -> None:
    use(world, KEY)
    world.step()
    use(world)
    world.step(60)
    used = entry(world, "m")["lastUsedTime"]
    flip(world, "p.bin")
    origin.buckets.refuse = (503, "SlowDown")
    read_again(world)
    # It is not there any more, and its origin does not answer.
    assert tree(world.store, KEY) is None
    for _ in range(2):
        begin(world)
        world.step()
        assert entry(world, "m")["lastUsedTime"] == used
    origin.buckets.refuse = None
    world.step(300)
    world.settle()
    assert origin.sent == {"p.bin": len(FILES["p.bin"])}
    assert (entry(world, "m")["state"], entry(world, "m")["lastUsedTime"]) == ("Downloaded", used)
    # It goes with the model.
    world.want()
    world.step()
    world.step(300)
    world.settle()
    assert [path.name for path in (world.root / ".localmodel").iterdir()] == ["lock"]


def test_damage_is_told_where_it_cannot_be_noted(world: World, origin: Origin) -> None:
    """Such as on a full disk. It does not become whole by the next look at the disk."""
    flip(world, "p.bin")
    origin.buckets.refuse = (503, "SlowDown")
    use(world, KEY)

    def notes(call: Call) -> bool:
        return call.creates and ("scrub.json" in call.path or "probe" in call.path)

    full = raising(lambda call: OSError(errno.ENOSPC, "No space left on device", call.path))
    with watched(Calls(world.root, Fault(full, notes, Fault(full, notes)), 1)) as calls:
        read_again(world)
        world.step(60)
        world.settle()
        assert calls.struck
        assert (entry(world, "m")["reason"], entry(world, "m")["cached"]) == ("Throttled", False)
        assert inside.inventory(world.loop).copy(KEY).found is Found.DAMAGED
        origin.buckets.refuse = None
        world.step(300)
        world.settle()
    assert origin.sent == {"p.bin": len(FILES["p.bin"])}
    assert tree(world.store, KEY) == FILES


def test_a_disk_that_is_away_has_no_bad_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(world, "p.bin")

    def away(self: Store) -> None:
        raise OSError(errno.EIO, "Input/output error", str(self.root))

    with monkeypatch.context() as broken:
        broken.setattr("agent.jobs.workers.probe", away)
        read_again(world)
    assert told(world, "Damaged") == []
    assert entry(world, "m")["cached"] is True


def test_a_clock_that_is_set_back_makes_nothing_be_read_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = Workers.scrub

    def scrub(self: Workers, manifest: Manifest, *rest: Any) -> None:
        read.append(manifest.key)
        real(self, manifest, *rest)

    monkeypatch.setattr(Workers, "scrub", scrub)
    world.clock_set = -30 * DAY
    for _ in range(20):
        world.step(60)
        world.settle_until(lambda: not inside.scrubbing(world.loop)._key)
    # Nothing says that it was read before: so it is, once.
    assert read == [KEY]


def test_models_are_read_one_after_the_other_and_the_longest_unread_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(WebFiles({})) as server:
        world = World(tmp_path / "node", WebFiles({}), server)
        for name in "abc":
            publish(world.store, f"{world.url}/{name}.bin", {"w": name.encode()})
        for name, day in (("a", 20), ("b", 3), ("c", 10)):
            noted = Scrub(time=datetime(2026, 7, day, tzinfo=UTC))
            world.store.note_scrub(world.key(name), noted)
        order: list[str] = []
        # Those that read; a thread that has reported may live on for a moment.
        reading: set[str] = set()
        together: list[int] = []
        real = ScrubReader.bad_files

        def bad_files(self: ScrubReader, folder: Path, manifest: Manifest) -> Any:
            order.append(manifest.key)
            reading.add(manifest.key)
            together.append(len(reading))
            try:
                return real(self, folder, manifest)
            finally:
                reading.remove(manifest.key)

        monkeypatch.setattr(ScrubReader, "bad_files", bad_files)
        world.scrub_rate = 1 << 20
        world.restart()
        # Its own notes count, and not when the files of this test were made.
        monkeypatch.setattr("agent.disk.on_disk._first_usage", lambda _: None)
        world.want(*map(world.model, "abc"))
        world.settle_until(lambda: len(order) == 3)
        world.settle_until(lambda: not inside.scrubbing(world.loop)._key)
        assert order == [world.key(name) for name in "bca"]
        assert together == [1, 1, 1]
        world.store.close()


def test_a_copy_that_was_moved_behind_a_link_is_good(store: Store, tmp_path: Path) -> None:
    manifest = publish(store, URI, FILES)
    store.path(KEY).rename(tmp_path / "elsewhere")
    store.path(KEY).symlink_to(tmp_path / "elsewhere")
    reader = ScrubReader(1 << 30, threading.Event())
    assert reader.bad_files(store.path(KEY), manifest) == ()


class Waits:
    """A clock that goes on when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> bool:
        self.seconds += seconds
        return False


def test_reading_keeps_to_its_rate(store: Store) -> None:
    manifest = publish(store, URI, {"large": bytes(8 << 20)})
    clock = Waits()
    reader = ScrubReader(1 << 20, threading.Event(), clock.now, clock.wait)
    assert reader.bad_files(store.path(KEY), manifest) == ()
    assert 6 <= clock.seconds <= 8


@contextmanager
def failing(store: Store, code: int, times: int) -> Iterator[Calls]:
    """The first reads of q.bin fail."""
    left = [times]

    def meets(call: Call) -> bool:
        return call.name == "open" and call.path.endswith("q.bin")

    def act(call: Call, real: Any, arguments: Any, keywords: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code), call.path)
        return real(*arguments, **keywords)

    with watched(Calls(store.root, Fault(act, meets, Fault(act, meets)), 1)) as calls:
        yield calls


def test_a_file_is_bad_that_cannot_be_read_in_two_tries(store: Store) -> None:
    manifest = publish(store, URI, FILES)
    reader = ScrubReader(1 << 30, threading.Event())
    with failing(store, errno.EIO, 1):
        assert reader.bad_files(store.path(KEY), manifest) == ()
    with failing(store, errno.EIO, 2):
        (bad,) = reader.bad_files(store.path(KEY), manifest)
    assert (bad.path, bad.problem) == ("q.bin", "cannot be read: Input/output error")
    # That the agent has too many files open says nothing of this one.
    with failing(store, errno.EMFILE, 2), pytest.raises(OSError, match="Too many open files"):
        reader.bad_files(store.path(KEY), manifest)


def test_good_files_behind_a_link_are_not_ours_to_take(store: Store, tmp_path: Path) -> None:
    publish(store, URI, FILES)
    elsewhere = tmp_path / "elsewhere"
    store.path(KEY).rename(elsewhere)
    store.path(KEY).symlink_to(elsewhere)
    (elsewhere / "p.bin").unlink()
    store.salvage(KEY, store.inspect(KEY), lambda: False)
    assert not store.path(KEY).is_symlink()
    assert (elsewhere / "q.bin").exists()
    assert store.inspect(KEY).found is Found.NOTHING


def test_a_mode_that_changed_is_mended_without_a_byte(world: World, origin: Origin) -> None:
    folder = world.store.path(KEY)
    (folder / "sub" / "r.bin").chmod(0o600)
    (folder / "sub").chmod(0o700)
    folder.chmod(0o750)
    before = inodes(world)
    read_again(world)
    modes = {stat.S_IMODE((folder / path).stat().st_mode) for path in (".", "sub")}
    assert (modes, stat.S_IMODE((folder / "sub" / "r.bin").stat().st_mode)) == ({0o755}, 0o644)
    assert inodes(world) == before
    assert origin.sent == {}
    assert told(world, "Damaged") == []


def test_a_mode_that_cannot_be_mended_is_told_and_the_file_replaced(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    file = world.store.path(KEY) / "sub" / "r.bin"
    os.link(file, tmp_path / "private")
    file.chmod(0o600)
    read_again(world)
    assert "sub/r.bin has the mode 0600" in told(world, "Damaged")[0]
    assert origin.sent == {"sub/r.bin": len(FILES["sub/r.bin"])}
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert entry(world, "m")["state"] == "Downloaded"


def test_a_file_that_is_away_has_no_mode(world: World, origin: Origin) -> None:
    (world.store.path(KEY) / "p.bin").unlink()
    read_again(world)
    assert origin.sent == {"p.bin": len(FILES["p.bin"])}
    assert tree(world.store, KEY) == FILES
