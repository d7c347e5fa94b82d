from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.sources import all_sources, bodies
from agent.sources.file import FileSource
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from agent.structs.remote import RemoteFile, RemoteModel


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    root = tmp_path / "allowed"
    (root / "model" / "sub").mkdir(parents=True)
    (root / "model" / "a b.json").write_text("{}")
    (root / "model" / "empty").write_text("")
    (root / "model" / "sub" / "w.bin.gz").write_bytes(b"w" * 3_000_000)
    (tmp_path / "secret").write_text("token")
    return root


def contents(source: FileSource, uri: str) -> dict[str, bytes]:
    model = source.resolve(uri, own_credentials(), None)
    return {file.path: bytes_of(model, file) for file in model.files}


def bytes_of(model: RemoteModel, file: RemoteFile, start: int = 0) -> bytes:
    body = model.read(file, start, file.size)
    try:
        return b"".join(iter(lambda: body.read(1 << 20), b""))
    finally:
        body.close()


def fetch(uri: str, *directories: Path) -> dict[str, bytes]:
    return contents(FileSource(directories), uri)


def failure_of(uri: str, *directories: Path) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(uri, *directories)
    return caught.value


def test_folder(allowed: Path) -> None:
    files = fetch(f"file://{allowed}/model", allowed)
    assert files.keys() == {"a b.json", "empty", "sub/w.bin.gz"}
    assert files["sub/w.bin.gz"] == b"w" * 3_000_000


def test_single_file(allowed: Path) -> None:
    assert fetch(f"file://{allowed}/model/a%20b.json", allowed) == {"a b.json": b"{}"}


def test_link_inside_the_tree_is_copied_as_a_file(allowed: Path) -> None:
    (allowed / "model" / "link").symlink_to("a b.json")
    assert fetch(f"file://{allowed}/model", allowed)["link"] == b"{}"


def test_allowed_directory_may_itself_be_reached_by_a_link(allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(allowed)
    assert fetch(f"file://{tmp_path}/link/model/empty", tmp_path / "link") == {"empty": b""}


@pytest.mark.parametrize(
    "path", ["secret", "allowed/../secret", "allowed-not/x", "allowed%2F..%2Fsecret"]
)
def test_outside_is_denied(allowed: Path, tmp_path: Path, path: str) -> None:
    error = failure_of(f"file://{tmp_path}/{path}", allowed)
    assert error.kind is FailureKind.DENIED
    assert "--allow-file-dir" in error.message


def test_nothing_is_allowed_by_default(allowed: Path) -> None:
    source = all_sources(file_directories=()).of("file:///x", "")
    with pytest.raises(DownloadError, match=r"may read \(none\)") as caught:
        source.resolve(f"file://{allowed}/model", own_credentials(), None)
    assert caught.value.kind is FailureKind.DENIED


def test_host_in_the_uri_is_denied(allowed: Path) -> None:
    assert failure_of(f"file://host{allowed}/model", allowed).kind is FailureKind.DENIED


def test_link_as_the_model_must_stay_inside(allowed: Path, tmp_path: Path) -> None:
    (allowed / "sly").symlink_to(tmp_path / "secret")
    assert failure_of(f"file://{allowed}/sly", allowed).kind is FailureKind.DENIED


@pytest.mark.parametrize("target", ["secret", "allowed"])
def test_link_that_leaves_the_tree_is_refused(allowed: Path, tmp_path: Path, target: str) -> None:
    (allowed / "model" / "sub" / "sly").symlink_to(tmp_path / target)
    error = failure_of(f"file://{allowed}/model", allowed)
    assert error.kind is FailureKind.DENIED
    assert "leaves" in error.message


def test_a_listing_ends(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_FILES", 2)
    error = failure_of(f"file://{allowed}/model", allowed)
    assert error.kind is FailureKind.UNSUPPORTED
    assert "fewer and larger ones" in error.message


@pytest.mark.parametrize("special", ["pipe", "directory-link"])
def test_what_is_no_file_is_refused(allowed: Path, special: str) -> None:
    if special == "pipe":
        os.mkfifo(allowed / "model" / "special")
    else:
        (allowed / "model" / "special").symlink_to("sub")
    error = failure_of(f"file://{allowed}/model", allowed)
    assert error.kind is FailureKind.UNSUPPORTED


def test_a_pipe_in_the_place_of_a_listed_file_blocks_nothing(allowed: Path) -> None:
    model = FileSource([allowed]).resolve(f"file://{allowed}/model", own_credentials(), None)
    file = next(file for file in model.files if file.size)
    Path(file.location).unlink()
    os.mkfifo(file.location)
    with pytest.raises(DownloadError) as caught:
        model.read(file, 0, file.size)
    assert caught.value.kind is FailureKind.CHANGED


def test_missing_and_empty_are_not_found(allowed: Path) -> None:
    (allowed / "void").mkdir()
    for name in ("void", "gone", "model/empty/x"):
        error = failure_of(f"file://{allowed}/{name}", allowed)
        assert error.kind is FailureKind.NOT_FOUND
        assert name in error.message


def test_file_that_changed_after_the_listing(allowed: Path) -> None:
    model = FileSource([allowed]).resolve(
        f"file://{allowed}/model/a%20b.json", own_credentials(), None
    )
    (allowed / "model" / "a b.json").write_text("{ }")
    with pytest.raises(DownloadError, match="changed") as caught:
        bytes_of(model, model.files[0])
    assert caught.value.kind is FailureKind.CHANGED


@pytest.mark.parametrize("size", [5, 3_000_000, 4_000_000])
def test_file_that_changes_while_it_is_read(allowed: Path, size: int) -> None:
    model = FileSource([allowed]).resolve(f"file://{allowed}/model/sub", own_credentials(), None)
    body = model.read(model.files[0], 1000, 3_000_000)
    assert body.read(10) == b"w" * 10
    path = allowed / "model" / "sub" / "w.bin.gz"
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DownloadError, match="changed") as caught:
        list(iter(lambda: body.read(1 << 20), b""))
    body.close()
    assert caught.value.kind is FailureKind.CHANGED


def test_aborted_body_raises(allowed: Path) -> None:
    model = FileSource([allowed]).resolve(f"file://{allowed}/model/sub", own_credentials(), None)
    body = model.read(model.files[0], 0, 10)
    body.abort()
    with pytest.raises(DownloadError, match="broken off"):
        body.read(5)
    body.close()


def test_folder_that_became_a_link_after_the_listing_is_not_followed(
    allowed: Path, tmp_path: Path
) -> None:
    model = FileSource([allowed]).resolve(f"file://{allowed}/model", own_credentials(), None)
    file = next(f for f in model.files if f.path.startswith("sub/"))
    (allowed / "model" / "sub").rename(tmp_path / "moved")
    (allowed / "model" / "sub").symlink_to(tmp_path / "moved")
    with pytest.raises(DownloadError, match="changed"):
        bytes_of(model, file)


def test_claim(allowed: Path) -> None:
    source = FileSource([], {"weights": allowed})
    assert contents(source, "pvc://weights/model/a%20b.json") == {"a b.json": b"{}"}
    assert contents(source, "pvc://weights").keys() == {
        "model/a b.json",
        "model/empty",
        "model/sub/w.bin.gz",
    }


@pytest.mark.parametrize("uri", ["pvc://other/model", "pvc:///model", "pvc://WEIGHTS/model"])
def test_claim_that_is_not_named_is_denied(allowed: Path, uri: str) -> None:
    source = FileSource([allowed], {"weights": allowed})
    with pytest.raises(DownloadError, match="--allow-pvc") as caught:
        source.resolve(uri, own_credentials(), None)
    assert caught.value.kind is FailureKind.DENIED


@pytest.mark.parametrize("path", ["../secret", "model/%2E%2E/../../secret", "sly", "sly2/secret"])
def test_claim_is_not_left(allowed: Path, tmp_path: Path, path: str) -> None:
    (allowed / "sly").symlink_to(tmp_path / "secret")
    (allowed / "sly2").symlink_to(tmp_path)
    source = FileSource([], {"weights": allowed})
    with pytest.raises(DownloadError, match="leaves its claim") as caught:
        source.resolve(f"pvc://weights/{path}", own_credentials(), None)
    assert caught.value.kind is FailureKind.DENIED


def test_claim_does_not_open_its_directory_to_files(allowed: Path) -> None:
    source = FileSource([], {"weights": allowed})
    with pytest.raises(DownloadError, match="--allow-file-dir"):
        source.resolve(f"file://{allowed}/model", own_credentials(), None)


@pytest.mark.parametrize("uri", ["file:///a%00b", "file://[/x"])
def test_what_is_no_path(allowed: Path, uri: str) -> None:
    with pytest.raises(DownloadError) as caught:
        FileSource([allowed]).resolve(uri, own_credentials(), None)
    assert caught.value.kind in {FailureKind.UNSUPPORTED, FailureKind.DENIED}


@pytest.mark.parametrize("uri", ["ftp://host/m", "unknown://r/m", "nonsense"])
def test_scheme_that_has_no_source_says_what_works(uri: str) -> None:
    with pytest.raises(DownloadError, match=r"file://.*http://, https://.*s3://") as caught:
        all_sources(file_directories=()).of(uri, "")
    assert caught.value.kind is FailureKind.UNSUPPORTED
