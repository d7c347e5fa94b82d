"""Servers of any user can read what is published, whoever put it there."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent.commands.assemble import own_credentials
from agent.disk.modes import open_up
from agent.disk.on_disk import Found
from agent.sources.file import FileSource
from agent.structs.failures import DownloadError, FailureKind
from tests.unit.agent.helpers import tree
from tests.unit.agent.memory import Memory
from tests.unit.agent.rights import (
    DAC_OVERRIDE,
    DAC_READ_SEARCH,
    FOWNER,
    SOMEBODY,
    needs_root,
    without,
)
from tests.unit.agent.test_adoption import EXTRA, FILES, Node, proved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.disk.store import Store


@pytest.fixture
def node(store: Store) -> Node:
    return Node(store)


@pytest.fixture
def strict() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def close(node: Node) -> None:
    """As newer safetensors and a careful umask leave a model."""
    for path in (node.folder, *node.folder.rglob("*")):
        path.chmod(0o750 if path.is_dir() else 0o600)


def owned(node: Node, user: int = SOMEBODY) -> None:
    for path in (node.folder, *node.folder.rglob("*")):
        os.chown(path, user, user)


def test_an_adopted_folder_is_opened_for_everybody(node: Node) -> None:
    node.lay(FILES | EXTRA)
    close(node)
    (node.folder / "sub" / "w.bin").chmod(0o710)
    before = node.identity()
    node.run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED
    assert mode(node.folder / "config.json") == 0o644
    assert mode(node.folder / "sub" / "w.bin") == 0o754
    assert {mode(node.folder / path) for path in (".", "sub", "sub/deep")} == {0o755}
    # What is not the model's is nobody's business, and no content was touched.
    assert {mode(node.folder / path) for path in EXTRA} == {0o600}
    assert mode(node.folder / ".cache") == 0o750
    after = node.identity()
    assert {path: entry[:3] for path, entry in after.items()} == {
        path: entry[:3] for path, entry in before.items()
    }


def test_a_folder_that_is_another_model_keeps_its_modes(node: Node) -> None:
    node.lay(FILES | {"config.json": b"[]"})
    close(node)
    node.refused(proved())
    assert mode(node.folder) == 0o750


def test_files_that_lack_are_put_into_folders_that_are_opened(node: Node) -> None:
    node.lay({"sub/w.bin": FILES["sub/w.bin"]})
    close(node)
    node.run(proved())
    assert tree(node.store, node.key) == FILES
    assert {mode(path) for path in node.folder.rglob("*") if path.is_file()} == {0o644}
    assert {mode(path) for path in node.folder.rglob("*") if path.is_dir()} == {0o755}


def test_a_file_with_another_name_elsewhere_is_not_opened(node: Node, tmp_path: Path) -> None:
    node.lay(FILES)
    close(node)
    os.link(node.folder / "sub" / "w.bin", tmp_path / "private")
    with pytest.raises(Exception, match="hard links") as caught:
        node.run(proved())
    assert "'sub/w.bin' has the mode 0600" in str(caught.value)
    assert "chmod -R a+rX" in str(caught.value)
    assert mode(tmp_path / "private") == 0o600
    assert node.store.is_foreign(node.key)
    # Whoever may do so has opened it.
    (tmp_path / "private").chmod(0o644)
    node.run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED


def test_a_file_with_two_names_in_the_folder_is_opened(node: Node) -> None:
    node.lay({path: data for path, data in FILES.items() if path != "config.json"})
    os.link(node.folder / "sub" / "w.bin", node.folder / "same.bin")
    close(node)
    node.run(proved({**FILES, "same.bin": FILES["sub/w.bin"]}))
    assert mode(node.folder / "same.bin") == 0o644


@needs_root
def test_a_user_without_the_right_to_change_it_names_the_file(node: Node) -> None:
    """As the agent of an overlay without FOWNER, or on NFS with root squash."""
    node.lay(FILES)
    close(node)
    owned(node)
    with without(FOWNER):
        said = node.refused(proved())
    assert "'.' has the mode 0750" in said
    assert "DAC_OVERRIDE and FOWNER" in said
    node.folder.chmod(0o755)
    for path in (node.folder / "sub", node.folder / "sub" / "deep"):
        path.chmod(0o755)
    with without(FOWNER):
        assert "'config.json' has the mode 0600" in node.refused(proved())
    # An agent with that right starts.
    Node(node.store).run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED


@needs_root
def test_a_folder_that_somebody_has_opened_is_looked_at_again(node: Node) -> None:
    node.lay(FILES)
    owned(node)
    node.folder.chmod(0o750)
    with without(FOWNER):
        node.refused(proved())
    node.folder.chmod(0o755)
    with without(FOWNER):
        node.run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED


@needs_root
@pytest.mark.parametrize("folder", [".", "sub"])
def test_a_folder_that_the_agent_cannot_enter_is_told_and_stops_nothing(
    node: Node, folder: str
) -> None:
    """As that of another user in the base, whose agent has no capability."""
    node.lay(FILES)
    owned(node)
    (node.folder / folder).chmod(0o700)
    source = proved()
    with without(DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER):
        assert node.store.scan()[1] == (node.key,)
        with pytest.raises(Exception, match="may not be read by the agent") as caught:
            node.run(source)
        assert str(node.folder) in str(caught.value)
        assert source.opened == []
    node.run(proved())
    assert node.store.inspect(node.key).found is Found.PUBLISHED


@needs_root
def test_a_file_that_the_agent_cannot_read_is_named(node: Node) -> None:
    node.lay(FILES)
    owned(node)
    (node.folder / "sub" / "w.bin").chmod(0o600)
    with without(DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER):
        said = node.refused(proved())
    assert "'sub/w.bin' may not be read by the agent" in said


@needs_root
def test_a_source_that_the_agent_cannot_read_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"w")
    (tmp_path / "model.safetensors").chmod(0o600)
    os.chown(tmp_path / "model.safetensors", SOMEBODY, SOMEBODY)
    source = FileSource([tmp_path])
    remote = source.resolve(f"file://{tmp_path}", own_credentials(), None)
    with without(DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER), pytest.raises(DownloadError) as caught:
        remote.read(remote.files[0], 0, None)
    assert caught.value.kind is FailureKind.DENIED
    assert f"{tmp_path}/model.safetensors may not be read" in caught.value.message
    assert "DAC_READ_SEARCH" in caught.value.message
    with without(DAC_OVERRIDE, FOWNER):
        remote.read(remote.files[0], 0, None).close()


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir(mode=0o700)
    (outside / "secret").touch(mode=0o600)
    folder.mkdir()
    (folder / "file").symlink_to(outside / "secret")
    (folder / "sub").symlink_to(outside)
    assert list(open_up(folder, ["file", "sub/secret", "missing"])) == []
    assert (mode(outside), mode(outside / "secret")) == (0o700, 0o600)


def test_only_what_is_closed_is_opened_in_each_folder(tmp_path: Path) -> None:
    paths = {"a": 0o644, "b": 0o600, "d/a": 0o640, "d/e/a": 0o444, "d/e/b": 0o604, "d-e": 0o755}
    for path, bits in paths.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        (tmp_path / path).chmod(bits)
    (tmp_path / "d").chmod(0o700)
    assert list(open_up(tmp_path, list(paths))) == []
    assert {path: mode(tmp_path / path) for path in paths} == {
        "a": 0o644,
        "b": 0o644,
        "d/a": 0o644,
        "d/e/a": 0o444,
        "d/e/b": 0o644,
        "d-e": 0o755,
    }
    assert mode(tmp_path / "d") == 0o755


def _plain() -> Memory:
    return Memory({**FILES, "deep/er/empty": b""})


def _archive() -> Memory:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, data in FILES.items():
            member = tarfile.TarInfo(f"deep/er/{path}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return Memory({"model.tar.gz": content.getvalue()})


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("source", [_plain, _archive])
def test_what_is_downloaded_is_open_whatever_the_umask(
    node: Node, source: Callable[[], Memory]
) -> None:
    # What a crash right after it was made has left.
    (node.store.root / ".localmodel" / node.key / "files" / "deep").mkdir(parents=True)
    node.run(source())
    found = (node.folder, *node.folder.rglob("*"))
    assert {mode(path) for path in found if path.is_file()} == {0o644}
    assert {mode(path) for path in found if path.is_dir()} == {0o755}
