"""What every source must do, as tests that run against a real server of its kind.

A test module makes a `Store` and has a class for it:

    class TestGoogle(SourceContract):
        @pytest.fixture(scope="class")
        def store(self) -> Iterator[Store]: ...
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.remote import ChecksumAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sources.base import Source
    from agent.structs.remote import RemoteFile, RemoteModel

CONTENT = bytes(range(256)) * 40
TREE = {
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": CONTENT,
    "onnx/deep/er/model name+100%.onnx": b"onnx" * 300,
}


class Store(ABC):
    """A server with models, and the source that reads it. What a kind of server lacks is a flag."""

    source: Source
    # May read.
    good = Credentials.of({}, own=True)
    # Each of them may not.
    bad: tuple[Credentials, ...] = ()
    # Those of somebody who has none, but knows where the server is.
    nobody = Credentials.of({}, own=True)
    # Whether `nobody` may read too.
    public = False
    # What no message may hold.
    secrets: tuple[str, ...] = ()
    # A URI of a folder or a file inside of a model works.
    parts = True
    # An empty file can be in it.
    empty_files = True
    # Files can be replaced where they are.
    changeable = True
    # Files of CONTENT's length have a checksum.
    checksums = True

    @abstractmethod
    def put(self, files: Mapping[str, bytes]) -> str:
        """Put files, by their paths, into a new and empty place. Returns its URI, without a `/`."""

    @abstractmethod
    def change(self, uri: str, path: str, content: bytes) -> None:
        """Replace a file of a place that `put` made, so that the server can tell them apart."""

    def missing(self) -> str:
        """A URI in a place that `put` made with nothing at it."""
        return self.put({"other/file": b"x"}) + "/absent"

    def resolve(self, uri: str, version: str | None = None) -> RemoteModel:
        """The model, with the good credentials."""
        return self.source.resolve(uri, self.good, version)


class SourceContract:
    """The tests. A subclass supplies the fixture `store`."""

    def test_lists_every_file_with_its_size(self, store: Store) -> None:
        model = store.resolve(store.put(_tree(store)))

        assert _sizes(model) == {path: len(content) for path, content in _tree(store).items()}

    def test_the_origin_is_a_scheme_and_a_host(self, store: Store) -> None:
        model = store.resolve(store.put({"a": b"1"}))

        scheme, _, host = model.origin.partition("://")
        assert scheme
        assert "/" not in host
        assert "@" not in host

    def test_reads_every_file_whole(self, store: Store) -> None:
        model = store.resolve(store.put(_tree(store)))

        read = {file.path: bytes_of(model, file) for file in model.files}
        assert read == _tree(store)

    def test_a_uri_of_one_file_is_that_file(self, store: Store) -> None:
        uri = store.put({"model/weights.bin": CONTENT, "model/weights.bin.old": b"old"})
        if not store.parts:
            return

        model = store.resolve(f"{uri}/model/weights.bin")
        assert _sizes(model) == {"weights.bin": len(CONTENT)}
        assert bytes_of(model, model.files[0]) == CONTENT

    @pytest.mark.parametrize("end", ["", "/"])
    def test_a_uri_names_whole_segments(self, store: Store, end: str) -> None:
        uri = store.put({"model/a": b"1", "model/b/c": b"22", "model-v2/d": b"333", "modele": b"4"})
        if not store.parts:
            return

        assert _sizes(store.resolve(f"{uri}/model{end}")) == {"a": 1, "b/c": 2}

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (0, 1),
            (0, 100),
            (4000, 4001),
            (1234, 9876),
            (len(CONTENT) - 1, len(CONTENT)),
            (5000, len(CONTENT)),
            (0, len(CONTENT)),
        ],
    )
    def test_a_range_has_exactly_its_bytes(self, store: Store, start: int, end: int) -> None:
        model = store.resolve(store.put({"file": CONTENT}))
        (file,) = model.files
        if not file.ranges:
            start, end = 0, len(CONTENT)

        assert bytes_of(model, file, start, end) == CONTENT[start:end]

    def test_several_threads_read_at_once(self, store: Store) -> None:
        model = store.resolve(store.put({"file": CONTENT}))
        (file,) = model.files
        step = 1024 if file.ranges else len(CONTENT)
        starts = range(0, len(CONTENT), step)

        with ThreadPoolExecutor(4) as threads:
            pieces = threads.map(lambda at: bytes_of(model, file, at, at + step), starts)
            assert b"".join(pieces) == CONTENT

    def test_a_body_can_be_left_half_read(self, store: Store) -> None:
        model = store.resolve(store.put({"file": CONTENT}))
        (file,) = model.files
        body = model.read(file, 0, len(CONTENT))
        assert body.read(10) == CONTENT[:10]
        body.abort()
        body.close()

        assert bytes_of(model, file) == CONTENT

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        uri = store.missing()

        error = failure_of(store, uri, store.good)
        assert error.kind is FailureKind.NOT_FOUND
        _assert_helpful(error, store)

    def test_wrong_credentials_are_denied(self, store: Store) -> None:
        uri = store.put({"a": b"1"})

        for credentials in store.bad:
            error = failure_of(store, uri, credentials)
            assert error.kind is FailureKind.DENIED
            _assert_helpful(error, store)

    def test_without_credentials_only_what_is_public_is_read(self, store: Store) -> None:
        uri = store.put({"a": b"1"})

        if store.public:
            model = store.source.resolve(uri, store.nobody, None)
            assert bytes_of(model, model.files[0]) == b"1"
        else:
            error = failure_of(store, uri, store.nobody)
            assert error.kind is FailureKind.DENIED
            _assert_helpful(error, store)

    @pytest.mark.parametrize("content", [CONTENT[::-1], b"shorter", CONTENT * 2])
    def test_bytes_of_another_version_are_never_read(self, store: Store, content: bytes) -> None:
        if not store.changeable:
            return
        uri = store.put({"file": CONTENT, "other": b"2"})
        model = store.resolve(uri)
        file = next(one for one in model.files if one.path == "file")
        store.change(uri, "file", content)

        for start, end in ((0, len(CONTENT)), (3, 5)):
            if not file.ranges and start:
                continue
            read, error = _outcome(model, file, start, end)
            if error is None:
                assert read == CONTENT[start:end]
            else:
                assert error.kind is FailureKind.CHANGED
                _assert_helpful(error, store)

    def test_a_listing_after_a_change_has_another_version(self, store: Store) -> None:
        if not store.changeable:
            return
        uri = store.put({"file": CONTENT})
        before = store.resolve(uri)
        store.change(uri, "file", CONTENT[::-1])
        after = store.resolve(uri)

        pins = [(model.version, model.files[0].version) for model in (before, after)]
        assert pins[0] != pins[1]
        assert bytes_of(after, after.files[0]) == CONTENT[::-1]

    def test_the_checksum_is_that_of_the_content(self, store: Store) -> None:
        tree = _tree(store)
        model = store.resolve(store.put(tree))
        given = {file.path: file.checksum for file in model.files if file.checksum}

        for path, checksum in given.items():
            assert checksum.value == checksum_of(checksum.algorithm, tree[path])
        if store.checksums:
            assert "model.safetensors" in given

    def test_a_former_version_is_listed_again_while_it_is_there(self, store: Store) -> None:
        uri = store.put({"file": CONTENT})
        first = store.resolve(uri)
        again = store.resolve(uri, first.version)

        assert (again.version, again.files) == (first.version, first.files)

    def test_a_former_version_that_is_gone_gives_the_newest(self, store: Store) -> None:
        model = store.resolve(store.put({"file": CONTENT}), "0123456789abcdef" * 4)

        assert _sizes(model) == {"file": len(CONTENT)}


def bytes_of(model: RemoteModel, file: RemoteFile, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a range, or of the whole file."""
    end = file.size if end is None else end
    if end == start:
        # Nothing is asked for, as the downloads do it.
        return b""
    body = model.read(file, start, end)
    try:
        pieces = []
        while piece := body.read(4096):
            pieces.append(piece)
    finally:
        body.close()
    return b"".join(pieces)


def failure_of(store: Store, uri: str, credentials: Credentials) -> DownloadError:
    """How it fails to list a model and to read its first file."""
    with pytest.raises(DownloadError) as caught:
        _read_first(store.source.resolve(uri, credentials, None))
    return caught.value


def checksum_of(algorithm: ChecksumAlgorithm, content: bytes) -> str:
    """What a checksum must be, computed the slow way."""
    if algorithm is ChecksumAlgorithm.CRC32C:
        return f"{_crc(content, 0x82F63B78, 32):08x}"
    if algorithm is ChecksumAlgorithm.CRC64NVME:
        return f"{_crc(content, 0x9A6C9329AC4BC9B5, 64):016x}"
    if algorithm is ChecksumAlgorithm.GIT_BLOB:
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return hashlib.new(algorithm.value, content).hexdigest()


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    ones = (1 << bits) - 1
    value = ones
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
    return value ^ ones


def _outcome(
    model: RemoteModel, file: RemoteFile, start: int, end: int
) -> tuple[bytes, DownloadError | None]:
    try:
        return bytes_of(model, file, start, end), None
    except DownloadError as error:
        return b"", error


def _read_first(model: RemoteModel) -> None:
    bytes_of(model, model.files[0])


def _tree(store: Store) -> dict[str, bytes]:
    return {path: content for path, content in TREE.items() if content or store.empty_files}


def _sizes(model: RemoteModel) -> dict[str, int | None]:
    return {file.path: file.size for file in model.files}


def _assert_helpful(error: DownloadError, store: Store) -> None:
    assert len(error.message) > 20
    for secret in store.secrets:
        assert secret not in error.message
