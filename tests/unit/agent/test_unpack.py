from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent.jobs.archive import layout as unpack_plan
from agent.jobs.archive import tar as unpack_tar
from agent.jobs.archive.unpack import unpack
from agent.structs.archive_kinds import ArchiveKind, archive_kind
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.archives import (
    ROOM,
    TARS,
    Files,
    contents,
    failure,
    header,
    make,
    member,
    patched,
    tar,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = {"config.json": b"{}", "empty": b"", "sub/deep/w.bin": bytes(range(256)) * 9000}


class Nowhere(Files):
    def write(self, *_: object) -> None:
        """Leave it unread."""


DAMAGED, REFUSED = FailureKind.CORRUPT, FailureKind.UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m.tar", ArchiveKind.TAR),
        ("m.v1.TAR.GZ", ArchiveKind.TAR_GZ),
        ("m.tgz", ArchiveKind.TAR_GZ),
        ("a/M.Zip", ArchiveKind.ZIP),
        ("m.taz", ArchiveKind.TAR_GZ),
        ("m.tz", ArchiveKind.TAR_GZ),
        ("m.tar.Z", ArchiveKind.TAR_GZ),
        ("m.tar.bz2", ArchiveKind.TAR_BZ2),
        ("m.tbz2", ArchiveKind.TAR_BZ2),
        ("m.tbz", ArchiveKind.TAR_BZ2),
        ("m.tb2", ArchiveKind.TAR_BZ2),
        ("m.tar.xz", ArchiveKind.TAR_XZ),
        ("m.TXZ", ArchiveKind.TAR_XZ),
        ("m.tar.lzma", ArchiveKind.TAR_XZ),
        ("m.tlz", ArchiveKind.TAR_XZ),
        ("m.gz", None),
        ("m.tar.zst", None),
        ("m.7z", None),
        ("tar", None),
        ("m.zip.part", None),
    ],
)
def test_kind(name: str, kind: ArchiveKind | None) -> None:
    assert archive_kind(name) is kind


@pytest.mark.parametrize("kind", ArchiveKind)
def test_every_file_comes_out(tmp_path: Path, kind: ArchiveKind) -> None:
    assert contents(make(tmp_path / "a", kind, FILES), kind) == FILES


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_tar(tmp_path: Path, style: int) -> None:
    name = "/".join(["folder-ü"] * 15) + "/file"
    files = {name: b"1" * 512, "b": b"2"} if style != tarfile.USTAR_FORMAT else {"b": b"2"}
    members = [(member(path), content) for path, content in files.items()]
    assert contents(tar(tmp_path / "a", members, style=style), ArchiveKind.TAR) == files


@pytest.mark.parametrize("kind", TARS)
def test_leading_dots_and_folders(tmp_path: Path, kind: ArchiveKind) -> None:
    members = [
        (member(".", tarfile.DIRTYPE), b""),
        (member("./sub/", tarfile.DIRTYPE), b""),
        (member("./sub/a"), b"1"),
        (member("sub", tarfile.DIRTYPE), b""),
    ]
    assert contents(tar(tmp_path / "a", members, kind), kind) == {"sub/a": b"1"}


def test_folders_of_a_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", [("./", b""), ("./sub/", b""), ("./sub/a", b"1")])
    assert contents(path, ArchiveKind.ZIP) == {"sub/a": b"1"}


@pytest.mark.parametrize("kind", ArchiveKind)
@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "a\nb", "x" * 256, "./../x", "/../x"],
)
def test_path_that_a_model_cannot_have(tmp_path: Path, kind: ArchiveKind, name: str) -> None:
    error = failure(make(tmp_path / "a", kind, {"ok": b"1", name: b"2"}), kind)
    assert error.kind is REFUSED
    assert repr(name) in error.message


@pytest.mark.parametrize("kind", ArchiveKind)
def test_path_that_is_too_long(tmp_path: Path, kind: ArchiveKind) -> None:
    path = make(tmp_path / "a", kind, {"a/" * 2500 + "b": b"1"})
    assert failure(path, kind).kind is REFUSED


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a", "a/b/c")])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("kind", ArchiveKind)
def test_path_of_a_file_and_of_a_folder(
    tmp_path: Path, kind: ArchiveKind, names: tuple[str, str]
) -> None:
    if kind is ArchiveKind.ZIP:
        path = zipped(tmp_path / "a", [(name, b"1") for name in names])
    else:
        path = tar(tmp_path / "a", [(member(name), b"1") for name in names], kind)
    error = failure(path, kind)
    assert error.kind is REFUSED
    assert "twice" in error.message


@pytest.mark.parametrize("kind", TARS)
def test_links_become_copies(tmp_path: Path, kind: ArchiveKind) -> None:
    members = [
        (member("sub/early", tarfile.SYMTYPE, linkname="../real"), b""),
        (member("./real"), b"content"),
        (member("hard", tarfile.LNKTYPE, linkname="./real"), b""),
        (member("chain", tarfile.SYMTYPE, linkname="sub/early"), b""),
        (member("sub/other"), b"other"),
        (member("sub/same", tarfile.SYMTYPE, linkname="other"), b""),
    ]
    assert contents(tar(tmp_path / "a", members, kind), kind) == {
        "real": b"content",
        "sub/early": b"content",
        "hard": b"content",
        "chain": b"content",
        "sub/other": b"other",
        "sub/same": b"other",
    }


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *((tarfile.SYMTYPE, target) for target in (".", "folder/..", "")),
        *((tarfile.LNKTYPE, target) for target in (".", "folder", "gone", "l", "")),
        *(
            (kind, target)
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            for target in ("/etc/passwd", "../x", "a/../../x", "x/" * 3000)
        ),
    ],
)
def test_link_to_nothing_that_a_model_can_have(tmp_path: Path, kind: bytes, target: str) -> None:
    members = [
        (member("folder/real"), b"1"),
        (member("l", kind, linkname=target), b""),
    ]
    error = failure(tar(tmp_path / "a", members), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "'l'" in error.message


def test_file_behind_a_linked_folder(tmp_path: Path) -> None:
    members = [
        (member("out", tarfile.SYMTYPE, linkname="/etc"), b""),
        (member("out/passwd"), b"mine"),
    ]
    assert failure(tar(tmp_path / "a", members), ArchiveKind.TAR).kind is REFUSED


def test_copies_need_room_too(tmp_path: Path) -> None:
    def linked(count: int) -> Path:
        links = [(member(f"l{n}", tarfile.LNKTYPE, linkname="f"), b"") for n in range(count)]
        return tar(tmp_path / "a", [(member("f"), b"12345"), *links])

    assert len(contents(linked(3), ArchiveKind.TAR, free=20)) == 4
    assert failure(linked(3), ArchiveKind.TAR, free=19).kind is FailureKind.NO_SPACE
    assert set(contents(linked(100), ArchiveKind.TAR).values()) == {b"12345"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z", b"V"])
def test_what_is_no_file_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    error = failure(tar(tmp_path / "a", [(member("dev", kind), b"")]), ArchiveKind.TAR)
    assert error.kind is REFUSED


@pytest.mark.parametrize("mode", [0o020666, 0o010666, 0o140666])
def test_what_is_no_file_in_a_zip(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    info.create_system = 3
    error = failure(zipped(tmp_path / "a", [(info, b"/etc/passwd")]), ArchiveKind.ZIP)
    assert error.kind is REFUSED
    assert "'link'" in error.message


def test_encrypted_zip(tmp_path: Path) -> None:
    def encrypt(data: bytearray) -> None:
        data[data.index(b"PK\x01\x02") + 8] |= 1

    path = patched(zipped(tmp_path / "a", [("secret", b"1")]), encrypt)
    error = failure(path, ArchiveKind.ZIP)
    assert error.kind is REFUSED
    assert "encrypted" in error.message


def test_name_with_a_zero_byte(tmp_path: Path) -> None:
    def cut(data: bytearray) -> None:
        data[:] = data.replace(b"a.txt", b"a\0txt")

    path = patched(zipped(tmp_path / "a", [("a.txt", b"1")]), cut)
    assert failure(path, ArchiveKind.ZIP).kind is REFUSED


@pytest.mark.parametrize("kind", ArchiveKind)
def test_no_files(tmp_path: Path, kind: ArchiveKind) -> None:
    error = failure(make(tmp_path / "a", kind, {}), kind)
    assert error.kind is REFUSED
    assert "no file" in error.message


@pytest.mark.parametrize("kind", ArchiveKind)
def test_what_is_no_archive(tmp_path: Path, kind: ArchiveKind) -> None:
    for content in (b"", b"\x1f\x8b", b"x" * 3000, b"PK\x03\x04" + b"\0" * 600):
        (tmp_path / "a").write_bytes(content)
        assert failure(tmp_path / "a", kind).kind is DAMAGED


@pytest.mark.parametrize("kind", ArchiveKind)
def test_every_truncation_is_noticed(tmp_path: Path, kind: ArchiveKind) -> None:
    files = {"a": b"1" * 700, "b": b"2" * 512, "c": b""}
    path = make(tmp_path / "a", kind, files)
    whole = path.read_bytes()
    # A tar ends with zeros, of which some may be missing.
    end = len(whole.rstrip(b"\0")) if kind is ArchiveKind.TAR else len(whole) - 1
    for length in {*range(0, end, 37), end - 1, end, 512, 1024, 2048, 2560, 3072} - {0}:
        if length <= end:
            path.write_bytes(whole[:length])
            assert failure(path, kind).kind is DAMAGED


@pytest.mark.parametrize("kind", [ArchiveKind.TAR_GZ, ArchiveKind.ZIP])
def test_flipped_bits_are_noticed(tmp_path: Path, kind: ArchiveKind) -> None:
    path = make(tmp_path / "a", kind, {"a": bytes(range(256)) * 4})
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02") if kind is ArchiveKind.ZIP else len(whole)
    for at in range(40, start, 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        # Some bits mean nothing, such as a time.
        assert outcome(path, kind) in (DAMAGED, REFUSED, {"a": bytes(range(256)) * 4})


def outcome(path: Path, kind: ArchiveKind) -> FailureKind | dict[str, bytes]:
    try:
        return contents(path, kind)
    except DownloadError as error:
        return error.kind


def test_bad_header_in_the_middle(tmp_path: Path) -> None:
    def damage(data: bytearray) -> None:
        data[1024 + 150] ^= 0xFF

    path = make(tmp_path / "a", ArchiveKind.TAR, {"a": b"1", "b": b"2"})
    assert failure(patched(path, damage), ArchiveKind.TAR).kind is DAMAGED


@pytest.mark.parametrize("kind", ArchiveKind)
def test_bomb_stops_at_the_free_bytes(tmp_path: Path, kind: ArchiveKind) -> None:
    path = make(tmp_path / "a", kind, {"a": b"\0" * 3000, "b": b"\0" * 3000})
    files = Files()
    assert len(contents(path, kind, free=6000)) == 2
    with pytest.raises(DownloadError, match="make space") as caught:
        unpack(path, kind, files, free=5999)
    assert caught.value.kind is FailureKind.NO_SPACE
    assert files.written == ["a"]


def test_zip_that_announces_less_than_it_has(tmp_path: Path) -> None:
    def lie(data: bytearray) -> None:
        at = data.index(b"PK\x01\x02") + 24
        data[at : at + 4] = struct.pack("<I", 10)

    path = patched(zipped(tmp_path / "a", [("a", b"\0" * 5000)]), lie)
    assert failure(path, ArchiveKind.ZIP).kind is DAMAGED


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_plan, "MAX_MEMBERS", 3)
    for kind in ArchiveKind:
        path = make(tmp_path / kind, kind, dict.fromkeys("abcd", b"1"))
        assert failure(path, kind).kind is REFUSED


def test_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_plan, "MAX_PATHS_LENGTH", 1000)
    for kind in ArchiveKind:
        path = make(tmp_path / kind, kind, {"a/" * 100 + "b": b"1"})
        assert failure(path, kind).kind is REFUSED


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_huge_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a"
    with gzip.open(path, "wb", compresslevel=1) as archive:
        archive.write(header(kind, 300 << 20))
        for _ in range(300):
            archive.write(b"1" * (1 << 20))
    tracemalloc.start()
    try:
        assert failure(path, ArchiveKind.TAR_GZ).kind is DAMAGED
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_header_with_a_long_number_takes_no_time(tmp_path: Path) -> None:
    digits = b"1" * (512 * 1500)
    (tmp_path / "a").write_bytes(header(tarfile.XHDTYPE, len(digits)) + digits + b"\0" * 1024)
    assert failure(tmp_path / "a", ArchiveKind.TAR).kind is DAMAGED


def test_headers_of_headers(tmp_path: Path) -> None:
    many = (header(tarfile.XHDTYPE, 9) + b"9 a=b\n".ljust(512, b"\0")) * 5000
    (tmp_path / "a").write_bytes(many)
    assert failure(tmp_path / "a", ArchiveKind.TAR).kind is DAMAGED


@pytest.mark.parametrize("padding", [0, 1, 4, 4096, 65_536, 200_000])
@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        (ArchiveKind.TAR_GZ, gzip.compress),
        (ArchiveKind.TAR_BZ2, bz2.compress),
        (ArchiveKind.TAR_XZ, lzma.compress),
    ],
)
def test_zeros_between_the_parts_of_an_archive(
    tmp_path: Path, kind: ArchiveKind, packed: Callable[[bytes], bytes], padding: int
) -> None:
    # Without an end mark after the first part, as where archives were put together.
    first, second = (member(name, size=512).tobuf() + name.encode() * 512 for name in "ab")
    path = tmp_path / "a"
    path.write_bytes(packed(first) + bytes(padding) + packed(second + bytes(1024)))
    assert contents(path, kind) == {"a": b"a" * 512, "b": b"b" * 512}


def test_a_member_that_begins_beyond_a_zip(tmp_path: Path) -> None:
    path = make(tmp_path / "a", ArchiveKind.ZIP, {"a": b"1"})
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02") + 42
    path.write_bytes(data[:at] + struct.pack("<L", 1 << 31) + data[at + 4 :])
    assert failure(path, ArchiveKind.ZIP).kind is DAMAGED


def test_endless_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_tar, "MAX_PADDING_BYTES", 5000)
    path = make(tmp_path / "a", ArchiveKind.TAR, {"a": b"1"})
    path.write_bytes(path.read_bytes() + b"\0" * 20_000)
    assert failure(path, ArchiveKind.TAR).kind is DAMAGED


def test_large_directory_of_a_zip_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    size = 40 << 20
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, size, 0, 0)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(end)
    error = failure(path, ArchiveKind.ZIP)
    assert error.kind is REFUSED
    assert "directory" in error.message


def test_large_member_in_bounded_memory(tmp_path: Path) -> None:
    for kind in ArchiveKind:
        path = make(tmp_path / kind, kind, {"a": b"\0" * (40 << 20)})
        tracemalloc.start()
        try:
            unpack(path, kind, Nowhere(), free=ROOM)
            # The dictionary of xz is 8 MiB.
            most = 16 << 20 if kind is ArchiveKind.TAR_XZ else 8 << 20
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", ArchiveKind)
def test_error_of_the_writer_passes(tmp_path: Path, kind: ArchiveKind) -> None:
    class Full(Files):
        def write(self, *_: object) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        unpack(make(tmp_path / "a", kind, FILES), kind, Full(), free=ROOM)


@pytest.mark.parametrize("kind", ArchiveKind)
def test_archive_that_cannot_be_read(tmp_path: Path, kind: ArchiveKind) -> None:
    with pytest.raises(FileNotFoundError):
        contents(tmp_path / "gone", kind)
