"""Folders that somebody else filled: which are adopted, and that nothing in them is touched."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.disk.on_disk import Found
from agent.engine.engine import Engine
from agent.jobs.adoption.adopting import Refusals
from agent.jobs.download import Download, Progress
from agent.jobs.reservations import Coming, NoRoomError, Reservations
from agent.sources import Sources
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from agent.structs.remote import Checksum, ChecksumAlgorithm
from agent.structs.requests import Request
from crds.keys import model_key
from tests.unit.agent.helpers import hash_of, set_aws, tree
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import Buckets, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.disk.store import Store
    from agent.structs.manifest import Manifest

URI = "mem://model"
pytestmark = pytest.mark.usefixtures("no_waiting")

FILES = {"config.json": b"{}", "sub/w.bin": b"w" * 300_000, "sub/deep/t.txt": b"tokens"}
EXTRA = {".cache/huggingface/download/w.metadata": b"etag", "config.json.lock": b""}


def checksums(
    files: Mapping[str, bytes], algorithm: ChecksumAlgorithm = ChecksumAlgorithm.SHA256
) -> dict[str, Checksum]:
    digest = {ChecksumAlgorithm.SHA256: hashlib.sha256, ChecksumAlgorithm.MD5: hashlib.md5}
    return {
        path: Checksum(algorithm, digest[algorithm](data).hexdigest())
        for path, data in files.items()
    }


def proved(files: Mapping[str, bytes] = FILES) -> Memory:
    return Memory(dict(files), checksums=checksums(files))


def refuse(*_: object) -> None:
    raise NoRoomError


class Node:
    """A store, and what one agent remembers."""

    def __init__(self, store: Store, uri: str = URI) -> None:
        self.store, self.uri, self.key = store, uri, model_key(uri)
        self.folder = store.path(self.key)
        self.refusals = Refusals()
        self.cancelled = threading.Event()
        self.progress: list[Progress] = []
        self.reserved: list[tuple[int, Coming]] = []
        self.download: Download | None = None
        self.reserve: Callable[[int, Coming], None] = lambda *needed: self.reserved.append(needed)

    def lay(self, files: Mapping[str, bytes]) -> dict[str, tuple[int, int, int, int]]:
        """Files as KServe leaves them. Returns what must stay as it is."""
        for path, data in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o664)
            os.utime(target, (1000, 1000))
        return self.identity()

    def identity(self) -> dict[str, tuple[int, int, int, int]]:
        found = {}
        for path in self.folder.rglob("*"):
            if not path.is_dir():
                s = path.lstat()
                name = path.relative_to(self.folder).as_posix()
                found[name] = (s.st_ino, s.st_size, s.st_mtime_ns, s.st_mode)
        return found

    def run(self, source: object, *hashes: str, in_use: bool = False) -> Manifest:
        scheme = self.uri.partition(":")[0]
        self.download = Download(
            Request(self.key, self.uri, (), frozenset(hashes)),
            sources=Sources({scheme: source}),  # type: ignore[dict-item]
            store=self.store,
            engine=Engine(jitter=lambda: 0.0),
            credentials=own_credentials,
            cancelled=self.cancelled,
            in_use=in_use,
            report=self.progress.append,
            reserve=self.reserve,
            refusals=self.refusals,
        )
        return self.download.run()

    def refused(self, source: object, *hashes: str) -> str:
        """The message of a refusal, which touches nothing."""
        before = self.identity()
        with pytest.raises(DownloadError) as caught:
            self.run(source, *hashes)
        assert caught.value.kind is FailureKind.FOREIGN_DIRECTORY
        assert str(self.folder) in caught.value.message
        assert "move it away, or delete it" in caught.value.message
        assert self.identity() == before
        assert self.store.is_foreign(self.key)
        assert self.store.inspect(self.key).found is Found.NOTHING
        return caught.value.message


@pytest.fixture
def node(store: Store) -> Node:
    return Node(store)


def test_a_folder_that_is_the_model_is_adopted_without_a_byte(node: Node) -> None:
    before = node.lay(FILES | EXTRA)
    source = proved()
    manifest = node.run(source)
    assert source.opened == []
    assert node.identity() == before
    assert manifest.hash == hash_of(FILES)
    assert {file.version for file in manifest.files} == {"v1"}
    assert {file.checksum for file in manifest.files} == set(map(str, source.checksums.values()))
    copy = node.store.inspect(node.key)
    assert (copy.found, copy.manifest) == (Found.PUBLISHED, manifest)
    assert node.store.scan()[1] == ()
    assert node.download
    assert node.download.adopted
    assert (node.download.adopted.found, node.download.adopted.added) == (manifest.size, 0)
    # Nothing is reserved, and the comparing is told as such.
    assert node.reserved == []
    assert {progress.comparing for progress in node.progress} == {True}
    assert node.progress[-1].done == node.progress[-1].total == manifest.size


def test_a_folder_of_a_source_without_checksums_is_compared_by_sizes(node: Node) -> None:
    node.lay(FILES)
    manifest = node.run(Memory(FILES))
    # The hash follows, as after a download that the store's checksum proved.
    assert manifest.hash is None
    assert node.store.inspect(node.key).found is Found.PUBLISHED


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sub/w.bin": b"w" * 299_999}, "'sub/w.bin' has 299999 bytes there, and 300000"),
        ({"sub/w.bin": b"v" * 300_000}, "'sub/w.bin' has another sha256 there"),
        ({"config.json": b"[]"}, "'config.json' has another sha256 there"),
    ],
)
def test_a_folder_with_another_file_is_left_alone(
    node: Node, wrong: dict[str, bytes], said: str
) -> None:
    node.lay(FILES | EXTRA | wrong)
    source = proved()
    assert said in node.refused(source)
    assert source.opened == []
    # It is right by now.
    node.lay(FILES)
    node.run(source)
    assert node.store.inspect(node.key).found is Found.PUBLISHED


def test_a_refused_folder_is_downloaded_when_it_is_gone(node: Node) -> None:
    node.lay({"config.json": b"other"})
    node.refused(proved())
    (node.folder / "config.json").unlink()
    node.run(proved())
    assert tree(node.store, node.key) == FILES


def test_a_refused_folder_is_not_read_again_while_all_is_as_it_was(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.lay(FILES | {"sub/w.bin": b"v" * 300_000})
    first = node.refused(proved())
    read: list[str] = []
    monkeypatch.setattr("agent.disk.verify.open_file", lambda _, path: read.append(path))
    assert node.refused(proved()) == first
    assert read == []


def test_what_the_folder_lacks_is_fetched_and_nothing_else(node: Node) -> None:
    lacking = {"sub/deep/t.txt", "new/empty"}
    files = FILES | {"new/empty": b""}
    before = node.lay({path: data for path, data in files.items() if path not in lacking} | EXTRA)
    source = proved(files)
    manifest = node.run(source)
    assert {path for path, *_ in source.opened} == {"sub/deep/t.txt"}
    assert tree(node.store, node.key) == files | EXTRA
    assert {path: node.identity()[path] for path in before} == before
    assert manifest.hash == hash_of(files)
    assert node.reserved == [(4096, Coming.REST)]
    assert {path.name for path in (node.store.root / ".localmodel" / node.key).iterdir()} == {
        "manifest.json"
    }
    assert node.download
    assert node.download.adopted
    assert node.download.adopted.added == len(b"tokens")
    assert node.progress[-1] == Progress(manifest.size, manifest.size)


def test_what_the_folder_lacks_waits_for_room_and_touches_nothing(node: Node) -> None:
    before = node.lay({path: FILES[path] for path in ("config.json", "sub/w.bin")})
    source = proved()
    node.reserve = refuse
    with pytest.raises(NoRoomError):
        node.run(source)
    assert source.opened == []
    assert node.identity() == before
    assert node.store.is_foreign(node.key)


def test_what_comes_beside_a_folder_is_learned_apart_from_the_whole() -> None:
    reservations = Reservations()
    request = Request("key", "mem://m", (), size=1000)
    reservations.grow(request, 700, Coming.MODEL)
    reservations.grow(request, 20, Coming.REST)
    assert reservations.learned == {"key": {(1000, Coming.MODEL): 700, (1000, Coming.REST): 20}}
    assert reservations.reserved == {"key": 20}


def test_a_folder_without_any_file_of_the_model_is_left_alone(node: Node) -> None:
    node.lay({"notes.txt": b"mine"})
    source = proved()
    assert "none of the source's 3 files is in it" in node.refused(source)
    assert source.opened == []


@pytest.mark.parametrize("harm", ["link", "parent", "pipe", "folder"])
def test_links_and_special_files_are_not_followed(node: Node, tmp_path: Path, harm: str) -> None:
    node.lay(FILES)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.bin").write_bytes(FILES["sub/w.bin"])
    target = node.folder / "sub/w.bin"
    if harm == "parent":
        target.unlink()
        (node.folder / "sub/deep/t.txt").unlink()
        (node.folder / "sub/deep").rmdir()
        (node.folder / "sub").rmdir()
        (node.folder / "sub").symlink_to(outside)
    else:
        target.unlink()
    if harm == "link":
        target.symlink_to(outside / "w.bin")
    elif harm == "pipe":
        os.mkfifo(target)
    elif harm == "folder":
        target.mkdir()
    said = {
        "link": "'sub/w.bin' is a symbolic link, which is not followed",
        "parent": "'sub' is a symbolic link, which is not followed",
        "pipe": "'sub/w.bin' is no regular file",
        "folder": "'sub/w.bin' is a folder",
    }
    assert said[harm] in node.refused(proved())
    assert {path.name for path in outside.iterdir()} == {"w.bin"}


def test_a_link_or_a_file_in_the_folders_place_is_left_alone(node: Node, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_bytes(b"{}")
    node.folder.symlink_to(tmp_path / "elsewhere")
    assert "it is a symbolic link" in node.refused(proved())
    node.folder.unlink()
    node.folder.write_text("x")
    assert "it is a file" in node.refused(proved())


def test_an_expected_hash_must_match(node: Node) -> None:
    before = node.lay(FILES)
    said = node.refused(Memory(FILES), "sha256:" + "0" * 64)
    assert hash_of(FILES) in said
    assert "spec.hash" in said
    # All digests are known at once then, whatever the source tells.
    assert node.run(Memory(FILES), hash_of(FILES)).hash == hash_of(FILES)
    assert node.identity() == before


def test_a_comparison_can_be_cancelled(node: Node) -> None:
    node.lay(FILES)
    node.cancelled.set()
    with pytest.raises(CancelledError):
        node.run(proved())
    assert node.store.is_foreign(node.key)


def test_a_folder_that_is_written_meanwhile_is_not_adopted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.lay(FILES)
    real = os.fstat
    seen: list[int] = []

    def moving(descriptor: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "w.bin":
            seen.append(descriptor)
            os.utime(node.folder / "sub/w.bin", (1000 + len(seen), 1000 + len(seen)))
        return real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("agent.disk.verify.os.fstat", moving)
        with pytest.raises(DownloadError, match=r"something still writes to 'sub/w\.bin'"):
            node.run(proved())
    assert node.store.is_foreign(node.key)
    node.run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED


def archive(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def test_an_archive_is_fetched_and_compared_with_what_is_unpacked(node: Node) -> None:
    before = node.lay(FILES | EXTRA)
    manifest = node.run(Memory({"model.tar.gz": archive(FILES)}))
    assert node.identity() == before
    assert manifest.hash == hash_of(FILES)
    assert {path.name for path in (node.store.root / ".localmodel" / node.key).iterdir()} == {
        "manifest.json"
    }


def test_what_a_folder_lacks_of_an_archive_is_put_in(node: Node) -> None:
    before = node.lay({path: FILES[path] for path in ("config.json", "sub/w.bin")})
    assert node.run(Memory({"model.tar.gz": archive(FILES)})).hash == hash_of(FILES)
    assert tree(node.store, node.key) == FILES
    assert {path: node.identity()[path] for path in before} == before


def test_an_archive_that_differs_is_fetched_once(node: Node) -> None:
    node.lay(FILES | {"config.json": b"[]"})
    source = Memory({"model.tar.gz": archive(FILES)})
    assert "'config.json' has another sha256 there" in node.refused(source)
    opened = len(source.opened)
    assert opened
    node.refused(source)
    assert len(source.opened) == opened


def test_one_archive_of_several_files_stays_as_it_is(node: Node) -> None:
    files = FILES | {"more.tar.gz": archive({"x": b"x"})}
    node.lay(FILES)
    node.run(proved(files))
    assert tree(node.store, node.key) == files


def test_a_file_of_unknown_size_is_fetched_to_compare_it(node: Node) -> None:
    before = node.lay(FILES)
    source = Memory(FILES, {"sub/w.bin": None})
    assert node.run(source).hash == hash_of(FILES)
    assert node.identity() == before
    node.store.remove(node.key)
    node.lay(FILES | {"sub/w.bin": b"v" * 300_000})
    assert "'sub/w.bin' has another sha256 there" in node.refused(source)


@pytest.mark.parametrize("in_use", [True, False])
def test_only_bad_files_of_an_adopted_copy_are_fetched_and_the_others_stay(
    node: Node, in_use: bool
) -> None:
    node.lay(FILES | EXTRA)
    node.run(proved())
    (node.folder / "config.json").write_bytes(b"")
    before = {path: s for path, s in node.identity().items() if path != "config.json"}
    source = proved()
    node.run(source, in_use=in_use)
    assert {path for path, *_ in source.opened} == {"config.json"}
    assert tree(node.store, node.key) == FILES | EXTRA
    assert {path: node.identity()[path] for path in before} == before


def test_an_adopted_copy_whose_source_has_changed_is_replaced_when_it_is_damaged(
    node: Node,
) -> None:
    node.lay(FILES | EXTRA)
    node.run(proved())
    (node.folder / "config.json").write_bytes(b"")
    newer = {"config.json": b"[1]", "w.bin": b"other"}
    source = Memory(newer, versions=dict.fromkeys(newer, "v2"))
    node.run(source)
    assert tree(node.store, node.key) == newer


def test_an_adopted_copy_goes_as_a_whole(node: Node) -> None:
    node.lay(FILES | EXTRA)
    node.run(proved())
    node.store.remove(node.key)
    assert tree(node.store, node.key) is None
    assert node.store.scan() == ({}, ())


@pytest.mark.parametrize("kind", ["etag", "checksum", "kms"])
def test_s3_proves_a_folder_by_metadata_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    set_aws(monkeypatch, "AWS_ENDPOINT_URL_S3")
    buckets = Buckets({"b": {f"m/{path}": data for path, data in FILES.items()}})
    if kind == "checksum":
        buckets.checksums = {
            f"m/{path}": ("SHA256", b64encode(hashlib.sha256(data).digest()).decode())
            for path, data in FILES.items()
        }
    elif kind == "kms":
        buckets.sealed = True
    node = Node(store, "s3://b/m")
    with serving(buckets) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        source = S3Source(Transports(max_connections=2))
        node.lay(FILES | {"config.json": b"[]"})
        if kind == "kms":
            # Its ETags are no digests of the content: sizes are all that there is.
            node.run(source)
        else:
            algorithm = "sha256" if kind == "checksum" else "md5"
            assert f"'config.json' has another {algorithm} there" in node.refused(source)
            before = node.lay(FILES)
            assert node.run(source).hash == hash_of(FILES)
            assert node.identity()["config.json"][1:] == before["config.json"][1:]
        got = [path for command, path, _ in server.seen if command == "GET" and "/m/" in path]
    assert got == []
