"""Archives as people and programs make them: what Python's tarfile unpacks comes out, as files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.jobs.archive import layout, packed
from agent.jobs.archive.unpack import unpack
from agent.structs.archive_kinds import ArchiveKind
from agent.structs.failures import CancelledError, DownloadError, FailureKind
from tests.unit.agent.archives import (
    ROOM,
    TARS,
    Files,
    contents,
    failure,
    header,
    make,
    member,
    tar,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DAMAGED, REFUSED = FailureKind.CORRUPT, FailureKind.UNSUPPORTED
FILES = {"config.json": b"{}", "sub/w.bin": bytes(range(256)) * 5000}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "nothing": bytes,
}


def read(folder: Path) -> dict[str, bytes]:
    """What a program finds in a folder, through links."""
    found = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root, name)
            if path.exists():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def as_tarfile(archive: Path, tmp_path: Path) -> dict[str, bytes]:
    """What KServe would make of it."""
    out = tmp_path / "tarfile"
    with tarfile.open(archive, "r", encoding="utf-8") as opened:
        opened.extractall(out, filter="data")
    return read(out)


def shell(command: str, folder: Path) -> None:
    subprocess.run(["bash", "-ec", command], cwd=folder, check=True, timeout=60)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("named", TARS)
def test_the_first_bytes_say_what_it_is(tmp_path: Path, packer: str, named: ArchiveKind) -> None:
    path = make(tmp_path / "a", ArchiveKind.TAR, FILES)
    path.write_bytes(PACKERS[packer](path.read_bytes()))
    assert contents(path, named) == FILES


def test_a_zip_and_a_tar_under_each_others_name(tmp_path: Path) -> None:
    assert contents(make(tmp_path / "a", ArchiveKind.ZIP, FILES), ArchiveKind.TAR_GZ) == FILES
    assert contents(make(tmp_path / "b", ArchiveKind.TAR_GZ, FILES), ArchiveKind.ZIP) == FILES


def test_a_zip_with_a_program_before_it(tmp_path: Path) -> None:
    path = make(tmp_path / "a", ArchiveKind.ZIP, FILES)
    path.write_bytes(b"#!/bin/sh\nexit 1\n" * 100 + path.read_bytes())
    assert contents(path, ArchiveKind.ZIP) == FILES


@pytest.mark.parametrize(
    ("start", "name"), [(b"\x28\xb5\x2f\xfd", "Zstandard"), (b"\x1f\x9d\x90", "compress")]
)
def test_what_is_packed_otherwise_is_told(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "a").write_bytes(start + bytes(2000))
    error = failure(tmp_path / "a", ArchiveKind.TAR_GZ)
    assert error.kind is REFUSED
    assert f"is packed by {name}" in error.message


@pytest.mark.parametrize("packer", [name for name in PACKERS if name not in {"nothing", "lzma"}])
def test_parts_one_after_the_other(tmp_path: Path, packer: str) -> None:
    path, pack = make(tmp_path / "a", ArchiveKind.TAR, FILES), PACKERS[packer]
    whole = path.read_bytes()
    path.write_bytes(
        pack(whole[:1000]) + pack(whole[1000:70_000]) + pack(b"") + pack(whole[70_000:])
    )
    assert contents(path, ArchiveKind.TAR_GZ) == FILES
    # Zeros may lie between, and after the end whatever likes.
    path.write_bytes(pack(whole[:1000]) + bytes(512) + pack(whole[1000:]) + b"garbage" * 100)
    assert contents(path, ArchiveKind.TAR_GZ) == FILES


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "nothing"])
def test_a_part_that_is_not_whole(tmp_path: Path, packer: str) -> None:
    path, pack = make(tmp_path / "a", ArchiveKind.TAR, {"a": b"1" * 700}), PACKERS[packer]
    whole = pack(path.read_bytes())
    for damaged in (whole[:-1], whole[: len(whole) // 2], pack(path.read_bytes()[:1024])):
        path.write_bytes(damaged)
        assert failure(path, ArchiveKind.TAR_GZ).kind is DAMAGED


def test_a_tar_without_an_end_is_whole_if_its_compression_is(tmp_path: Path) -> None:
    path = make(tmp_path / "a", ArchiveKind.TAR, {"a": b"1"})
    endless = path.read_bytes().rstrip(b"\0").ljust(1024, b"\0")
    path.write_bytes(endless)
    assert failure(path, ArchiveKind.TAR).kind is DAMAGED
    path.write_bytes(gzip.compress(endless))
    assert contents(path, ArchiveKind.TAR_GZ) == as_tarfile(path, tmp_path) == {"a": b"1"}


@pytest.mark.parametrize(
    "style",
    ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix"],
)
@pytest.mark.parametrize("packing", ["", "z", "J"])
def test_files_with_holes(tmp_path: Path, style: str, packing: str) -> None:
    shell(
        f"""mkdir s && cd s && echo '{{}}' > config.json
        truncate -s 3M hole && truncate -s 3M many
        printf abc > at-start && truncate -s 1M at-start
        for n in $(seq 0 2 60); do
            printf "part $n" | dd of=many bs=1 seek=$((n * 40000)) conv=notrunc status=none
        done
        mkdir deep && truncate -s 2M deep/end && printf end >> deep/end
        tar -S --format={style} -c{packing}f ../a.tar .""",
        tmp_path,
    )
    found = contents(tmp_path / "a.tar", ArchiveKind.TAR)
    assert found == read(tmp_path / "s") == as_tarfile(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize(
    "runs",
    [
        "0,9",
        "5,1,0,1",
        "0,2,1,1",
        "-3,1",
        "0,-1",
        "x",
        f"{1 << 70},1",
        "0,1," * 5000 + "9,9",
    ],
)
def test_a_map_of_holes_that_cannot_be(tmp_path: Path, runs: str) -> None:
    info = member("x", pax_headers={"GNU.sparse.map": runs, "GNU.sparse.size": "8"})
    path = tar(tmp_path / "a", [(info, b"1"), (member("y"), b"2")])
    assert failure(path, ArchiveKind.TAR).kind is DAMAGED


def test_holes_need_room(tmp_path: Path) -> None:
    info = member("x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 60)})
    error = failure(tar(tmp_path / "a", [(info, b"1")]), ArchiveKind.TAR)
    assert error.kind is FailureKind.NO_SPACE


def test_links_to_folders_become_copies(tmp_path: Path) -> None:
    shell(
        """mkdir -p d/step_100/deep d/more d/empty && cd d
        echo 1 > step_100/a && echo 2 > step_100/deep/b && ln -s a step_100/same
        ln -s step_100 latest && ln -s ../latest/deep more/deep && ln -s latest newest
        ln -s ../step_100/deep/../a more/a && ln -s empty none
        tar czf ../a.tar.gz . && tar cf ../b.tar none newest more latest step_100""",
        tmp_path,
    )
    for name in ("a.tar.gz", "b.tar"):
        found = contents(tmp_path / name, ArchiveKind.TAR)
        assert found == read(tmp_path / "d")
        assert len(found) == 11


def test_a_file_behind_a_linked_folder_is_in_both(tmp_path: Path) -> None:
    members = [
        (member("step", tarfile.DIRTYPE), b""),
        (member("latest", tarfile.SYMTYPE, linkname="step"), b""),
        (member("latest/x"), b"1"),
        (member("latest/sub/y"), b"2"),
    ]
    path = tar(tmp_path / "a", members)
    found = contents(path, ArchiveKind.TAR)
    assert found == as_tarfile(path, tmp_path)
    assert set(found) == {"step/x", "step/sub/y", "latest/x", "latest/sub/y"}


@pytest.mark.parametrize("target", [".", "..", "../../a", "../../a/b"])
def test_a_folder_that_is_in_itself_is_refused(tmp_path: Path, target: str) -> None:
    members = [(member("a/b/x"), b"1"), (member("a/b/l", tarfile.SYMTYPE, linkname=target), b"")]
    error = failure(tar(tmp_path / "a", members), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "is a link to a folder that the link itself is in" in error.message


def test_folders_that_are_in_each_other_are_refused(tmp_path: Path) -> None:
    members = [
        (member("a/x"), b"1"),
        (member("b/x"), b"1"),
        (member("a/l", tarfile.SYMTYPE, linkname="../b"), b""),
        (member("b/l", tarfile.SYMTYPE, linkname="../a"), b""),
    ]
    assert failure(tar(tmp_path / "a", members), ArchiveKind.TAR).kind is REFUSED


def test_links_to_nothing_are_left_out(tmp_path: Path) -> None:
    targets = {"gone": "nothing", "a": "b", "b": "c", "c": "a", "l": "l", "deep/x": "../a/y"}
    targets |= {"up/d": "d/./..", "up/e": "../up/e/../../real"}
    links = [(member(path, tarfile.SYMTYPE, linkname=to), b"") for path, to in targets.items()]
    path = tar(tmp_path / "a", [*links, (member("real"), b"1")])
    assert contents(path, ArchiveKind.TAR) == as_tarfile(path, tmp_path) == {"real": b"1"}
    assert failure(tar(tmp_path / "a", links), ArchiveKind.TAR).kind is REFUSED


def test_a_file_behind_links_in_a_circle_is_refused(tmp_path: Path) -> None:
    links = [(member(path, tarfile.SYMTYPE, linkname=to), b"") for path, to in ("ab", "ba")]
    error = failure(tar(tmp_path / "a", [*links, (member("a/x"), b"1")]), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "in circles" in error.message


@pytest.mark.parametrize(
    "links",
    [
        {"l": "a/../../x"},
        {"a/l": "../../x"},
        {"a/to": "../b/c", "l": "a/to/../../../x"},
        {"a/to": "../b", "b": "c", "a/to/l": "../../x"},
    ],
)
def test_links_that_leave_by_others_are_refused(tmp_path: Path, links: dict[str, str]) -> None:
    members = [(member(path, tarfile.SYMTYPE, linkname=to), b"") for path, to in links.items()]
    files = [(member("b/c/f"), b"1")] if "b" not in links else [(member("c/f"), b"1")]
    error = failure(tar(tmp_path / "a", [*files, *members]), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "leaves the archive" in error.message


def test_the_last_of_one_name_counts(tmp_path: Path) -> None:
    members = [
        (member("f"), b"first"),
        (member("early", tarfile.LNKTYPE, linkname="f"), b""),
        (member("link", tarfile.SYMTYPE, linkname="f"), b""),
        (member("./f"), b"last!"),
        (member("late", tarfile.LNKTYPE, linkname="f"), b""),
        # A file takes a link's place, and a link a file's.
        (member("was-link", tarfile.SYMTYPE, linkname="f"), b""),
        (member("was-link"), b"file"),
        (member("was-file"), b"file"),
        (member("was-file", tarfile.SYMTYPE, linkname="f"), b""),
        (member("f", tarfile.LNKTYPE, linkname="f"), b""),
    ]
    path = tar(tmp_path / "a", members)
    # What was replaced needs no room, when it is gone.
    assert contents(path, ArchiveKind.TAR, free=5 * 5 + 4) == {
        "f": b"last!",
        "early": b"first",
        "link": b"last!",
        "late": b"last!",
        "was-link": b"file",
        "was-file": b"last!",
    }


@pytest.mark.parametrize("kind", ArchiveKind)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_appended_twice(tmp_path: Path, kind: ArchiveKind) -> None:
    names = [("a", b"1"), ("b/c", b"2"), ("./a", b"33"), ("b//c", b"44"), ("a", b"")]
    if kind is ArchiveKind.ZIP:
        path = zipped(tmp_path / "a", names)
    else:
        path = tar(tmp_path / "a", [(member(name), content) for name, content in names], kind)
    assert contents(path, kind) == {"a": b"", "b/c": b"44"}


def test_links_of_a_hard_link(tmp_path: Path) -> None:
    shell(
        """mkdir -p h/v && cd h && echo x > v/base && ln -s base v/sym && ln v/sym v/hard
        for n in $(seq 40); do ln v/base c$n; done
        tar --sort=name -czf ../a.tgz . v/base v/base""",
        tmp_path,
    )
    found = contents(tmp_path / "a.tgz", ArchiveKind.TAR_GZ)
    assert found == read(tmp_path / "h")
    assert len(found) == 43


@pytest.mark.parametrize("kind", ArchiveKind)
def test_names_that_are_made_relative(tmp_path: Path, kind: ArchiveKind) -> None:
    names = {"/etc/a": b"1", "//b": b"2", "c/./d": b"3", "././e": b"4", "f//g": b"5"}
    path = make(tmp_path / "a", kind, names)
    found = {"etc/a": b"1", "b": b"2", "c/d": b"3", "e": b"4", "f/g": b"5"}
    assert contents(path, kind) == found
    if kind in TARS:
        assert as_tarfile(path, tmp_path) == found


def test_a_name_that_goes_up_and_stays_inside(tmp_path: Path) -> None:
    path = tar(tmp_path / "a", [(member("a/"), b""), (member("a/../b"), b"1")])
    assert contents(path, ArchiveKind.TAR)["b"] == b"1"
    zip_path = zipped(tmp_path / "z", [("a/../b", b"1")])
    assert failure(zip_path, ArchiveKind.ZIP).kind is REFUSED


def test_a_closed_folder_after_its_files(tmp_path: Path) -> None:
    members = [
        (member("d/f", mode=0), b"1"),
        (member("d", tarfile.DIRTYPE, mode=0), b""),
        (member("D/f"), b"2"),
    ]
    assert contents(tar(tmp_path / "a", members), ArchiveKind.TAR) == {"d/f": b"1", "D/f": b"2"}


def test_what_git_packs(tmp_path: Path) -> None:
    shell(
        """mkdir g && cd g && git init -q . && echo hi > a.txt && mkdir d && echo 1 > d/b
        ln -s d e && git add . && git -c user.email=a@b -c user.name=a commit -qm x
        git archive --format=tar.gz -o ../a.tgz HEAD
        git archive --format=zip -o ../a.zip HEAD""",
        tmp_path,
    )
    expected = {"a.txt": b"hi\n", "d/b": b"1\n", "e/b": b"1\n"}
    assert contents(tmp_path / "a.tgz", ArchiveKind.TAR_GZ) == expected
    assert contents(tmp_path / "a.zip", ArchiveKind.ZIP) == expected


@pytest.mark.timeout(60)  # unpacks once for each byte that is damaged
@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_of_zips(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {**FILES, "empty": b""}.items():
            archive.writestr(name, content)
    assert contents(path, ArchiveKind.ZIP) == FILES | {"empty": b""}
    whole = path.read_bytes()
    for at in range(50, whole.index(b"PK\x01\x02"), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert outcome(path) in (DAMAGED, REFUSED, FILES | {"empty": b""})


def outcome(path: Path) -> FailureKind | dict[str, bytes]:
    try:
        return contents(path, ArchiveKind.ZIP)
    except DownloadError as error:
        return error.kind


def test_compressions_that_zipfile_does_not_know(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", [("f", b"1")])
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(sign) + at] = 93
    path.write_bytes(data)
    error = failure(path, ArchiveKind.ZIP)
    assert error.kind is REFUSED
    assert "otherwise than by deflate, bzip2 or LZMA" in error.message


def test_a_member_before_the_beginning(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", [("f", b"1")])
    data = bytearray(path.read_bytes())
    # The directory is said to lie far behind where it is.
    data[-6:-2] = struct.pack("<I", 1 << 20)
    path.write_bytes(data)
    assert failure(path, ArchiveKind.ZIP).kind is DAMAGED


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", [("f", b"1"), ("g", b"1")])
    # A name ends at a zero byte.
    path.write_bytes(path.read_bytes().replace(b"g", b"\0"))
    assert failure(path, ArchiveKind.ZIP).kind is DAMAGED


def symbolic(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = 0o120777 << 16, 3
    return info


def test_links_of_a_zip(tmp_path: Path) -> None:
    members: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        *(("d/a", b"1"), (symbolic("l"), b"d/a"), (symbolic("d/up"), b"../x")),
        *(("x", b"2"), (symbolic("e"), b"d")),
    ]
    path = zipped(tmp_path / "a", members)
    assert contents(path, ArchiveKind.ZIP) == {
        "d/a": b"1",
        "d/up": b"2",
        "l": b"1",
        "x": b"2",
        "e/a": b"1",
        "e/up": b"2",
    }
    for target in (b"/etc/passwd", b"../x", b"x" * 5000, b""):
        error = failure(zipped(tmp_path / "a", [(symbolic("l"), target)]), ArchiveKind.ZIP)
        assert error.kind is REFUSED


def test_zips_of_streams_and_of_large_files(tmp_path: Path) -> None:
    class Stream(io.RawIOBase):
        """What cannot go back, so that sizes follow the contents."""

        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, piece: bytes) -> int:  # type: ignore[override]
            self.data += bytes(piece)
            return len(piece)

    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = Stream()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in FILES.items():
                with archive.open(name, "w", force_zip64=True) as file:
                    file.write(content)
        (tmp_path / "a").write_bytes(stream.data)
        assert contents(tmp_path / "a", ArchiveKind.ZIP) == FILES


# Bombs


def test_a_dictionary_that_takes_too_much_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 128 << 20}]
    path = make(tmp_path / "a", ArchiveKind.TAR, FILES)
    whole = path.read_bytes()
    path.write_bytes(lzma.compress(whole, filters=filters))
    error = failure(path, ArchiveKind.TAR_XZ)
    assert error.kind is REFUSED
    assert "dictionary of more than 64 MiB" in error.message
    # The strongest usual setting.
    path.write_bytes(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME))
    assert contents(path, ArchiveKind.TAR_XZ) == FILES


def test_a_dictionary_of_a_zip_that_takes_too_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("f", b"1" * 1000)
    data = bytearray(path.read_bytes())
    settings = data.index(b"f", 30) + 1 + 4
    data[settings + 1 : settings + 5] = struct.pack("<I", 3 << 30)
    path.write_bytes(data)
    error = failure(path, ArchiveKind.ZIP)
    assert error.kind is REFUSED
    assert "dictionary" in error.message


@pytest.mark.parametrize("kind", [ArchiveKind.TAR_XZ, ArchiveKind.ZIP])
def test_only_some_unpack_lzma_at_once(tmp_path: Path, kind: ArchiveKind) -> None:
    path = make(tmp_path / "a", ArchiveKind.TAR_XZ, FILES)
    if kind is ArchiveKind.ZIP:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)

    class Cancelled(Files):
        def check(self) -> None:
            raise CancelledError

    with ExitStack() as taken:
        while packed.LZMA_PLACES.acquire(blocking=False):
            taken.callback(packed.LZMA_PLACES.release)
        with pytest.raises(CancelledError):
            unpack(path, kind, Cancelled(), free=ROOM)
    # Whatever comes of them, they leave their places.
    for _ in range(5):
        assert contents(path, kind) == FILES
    whole = path.read_bytes()
    for length in range(200, len(whole) - 1, len(whole) // 5):
        path.write_bytes(whole[:length])
        assert failure(path, kind).kind is DAMAGED
    path.write_bytes(whole)
    assert contents(path, kind) == FILES


@pytest.mark.timeout(60)  # packs and unpacks 200 MiB
@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_bomb_in_a_zip_takes_no_memory(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("f", "w") as file:
        for _ in range(200):
            file.write(bytes(1 << 20))

    class Nowhere(Files):
        def write(self, *_: object) -> None:
            """Leave it unread."""

    tracemalloc.start()
    try:
        unpack(path, ArchiveKind.ZIP, Nowhere(), free=1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_folders_in_folders_by_links_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_MEMBERS", 500)
    members = [(member("f0/x"), b"")]
    for n in range(1, 30):
        for name in "ab":
            link = member(f"f{n}/{name}", tarfile.SYMTYPE, linkname=f"../f{n - 1}")
            members.append((link, b""))
    error = failure(tar(tmp_path / "a", members), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "too many" in error.message


def test_a_long_chain_of_folders_is_refused(tmp_path: Path) -> None:
    links = [
        (member(f"f{n}/l", tarfile.SYMTYPE, linkname=f"../f{n - 1}"), b"") for n in range(1, 1500)
    ]
    members = [(member("f0/x"), b""), *links]
    assert failure(tar(tmp_path / "a", members), ArchiveKind.TAR).kind is REFUSED


def test_links_that_take_long_to_follow_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_STEPS", 10_000)
    members = [(member("l0", tarfile.SYMTYPE, linkname="./" * 900 + "x"), b"")]
    for n in range(1, 30):
        link = member(f"l{n}", tarfile.SYMTYPE, linkname="./" * 900 + f"l{n - 1}")
        members.append((link, b""))
    error = failure(tar(tmp_path / "a", members), ArchiveKind.TAR)
    assert error.kind is REFUSED
    assert "too long together" in error.message


def test_maps_of_holes_without_an_end(tmp_path: Path) -> None:
    """A map of GNU's newest style is read in blocks, for as long as it says."""
    settings = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    info = member("x", pax_headers=settings)
    for content in (b"1" * (4 << 20), b"99999999\n" + b"0\n" * (2 << 20)):
        path = tar(tmp_path / "a", [(info, content)])
        began = time.monotonic()
        assert failure(path, ArchiveKind.TAR).kind is DAMAGED
        assert time.monotonic() - began < 30


def test_headers_of_all_members_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.jobs.archive.tar.MAX_HEADERS_BYTES", 20 * 1024)
    many = b"".join(header(tarfile.REGTYPE, 0, f"f{n}") for n in range(50))
    (tmp_path / "a").write_bytes(many + bytes(1024))
    assert failure(tmp_path / "a", ArchiveKind.TAR).kind is DAMAGED


def test_packed_bytes_come_out_in_pieces() -> None:
    for kind, packer in zip(TARS[1:], ("gzip", "bzip2", "xz"), strict=True):
        data = io.BytesIO(PACKERS[packer](bytes(5 << 20)))
        with packed.opened(data, kind, Files().check) as raw:
            pieces = list(iter(partial(raw.read, 1000), b""))
        assert sum(map(len, pieces)) == 5 << 20
        assert max(map(len, pieces)) == 1000
