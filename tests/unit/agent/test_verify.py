from __future__ import annotations

import hashlib
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from agent.disk import verify
from agent.disk.verify import Expected, Fault, Verifier
from agent.structs.failures import CancelledError
from agent.structs.remote import Checksum, ChecksumAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"weights" * 300_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CRC = Checksum(ChecksumAlgorithm.CRC32, f"{zlib.crc32(CONTENT):08x}")
OTHER_CRC = Checksum(ChecksumAlgorithm.CRC32, "00000000")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "model"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "w.bin").write_bytes(CONTENT)
    (tree / "link.bin").symlink_to("sub/w.bin")
    (tree / "folder").symlink_to("sub")
    os.mkfifo(tree / "pipe.bin")
    return tree


def verifier(tree: Path) -> Verifier:
    return Verifier(tree, lambda: False)


@pytest.mark.parametrize(
    ("expected", "fault"),
    [
        (Expected("sub/w.bin"), None),
        (Expected("sub/w.bin", len(CONTENT), CRC, SHA256), None),
        (Expected("sub/w.bin", len(CONTENT), sha256=SHA256), None),
        (Expected("sub/w.bin", len(CONTENT) + 1, CRC, SHA256), Fault.SIZE),
        # The source's word comes before that of an earlier download.
        (Expected("sub/w.bin", len(CONTENT), OTHER_CRC, SHA256), Fault.CHECKSUM),
        (Expected("sub/w.bin", sha256="0" * 64), Fault.CONTENT),
        (Expected("sub/other.bin"), Fault.MISSING),
        (Expected("other/w.bin"), Fault.MISSING),
    ],
)
def test_what_is_wrong_with_a_file(tree: Path, expected: Expected, fault: Fault | None) -> None:
    assert verifier(tree).verify(expected).fault is fault


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("sub", "a folder"),
        ("link.bin", "a symbolic link, which is not followed"),
        ("folder/w.bin", "a symbolic link, which is not followed"),
        ("sub/w.bin/x", "a file"),
        ("pipe.bin", "no regular file"),
    ],
)
def test_only_regular_files_are_read(tree: Path, path: str, kind: str) -> None:
    found = verifier(tree).verify(Expected(path))
    assert (found.fault, found.kind, found.sha256) == (Fault.NOT_A_FILE, kind, None)


def test_files_of_a_folder_that_is_missing_are_missing(tree: Path) -> None:
    assert verifier(tree / "gone").verify(Expected("w.bin")).fault is Fault.MISSING


def test_our_digest_is_left_out_where_the_checksum_is_enough(tree: Path) -> None:
    expected = Expected("sub/w.bin", checksum=CRC)
    assert verifier(tree).verify(expected).sha256 == SHA256
    cheap = verifier(tree).verify(expected, ours=False)
    assert (cheap.sha256, cheap.fault, cheap.size) == (None, None, len(CONTENT))


def test_each_piece_is_reported_and_no_file_of_another_size_is_read(tree: Path) -> None:
    read: list[int] = []
    reporting = Verifier(tree, lambda: False, report=read.append)
    reporting.verify(Expected("sub/w.bin", 1))
    assert read == []
    reporting.verify(Expected("sub/w.bin"))
    assert sum(read) == len(CONTENT)
    assert len(read) > 1


def test_a_file_that_is_written_meanwhile_is_told(tree: Path) -> None:
    def grows(descriptor: int) -> Iterator[memoryview]:
        yield from verify.read_pieces(descriptor)
        with (tree / "sub" / "w.bin").open("ab") as file:
            file.write(b"more")

    reader = Verifier(tree, lambda: False, pieces=grows)
    assert reader.verify(Expected("sub/w.bin", sha256=SHA256)).changed
    assert not verifier(tree).verify(Expected("sub/w.bin")).changed


def test_it_can_be_stopped_between_two_pieces(tree: Path) -> None:
    read: list[int] = []
    with pytest.raises(CancelledError):
        Verifier(tree, lambda: bool(read), report=read.append).verify(Expected("sub/w.bin"))
    assert len(read) == 1
