"""Views: what the volume of one model shows. The only module that touches them.

    <root>/volumes/<key>/models/           there while an entry requests the key: kubelet mounts it
    <root>/volumes/<key>/models/<key>/...  the view: hard links to the files of models/<key>
    <root>/volumes/.new/<key>/...          a view that is being built, or files to mend a view with
    <root>/volumes/.old/<key>/...          a view that was taken out, to be deleted

A view appears whole, by one rename after its copy was published, and goes by one rename before its
copy goes. Running pods have a view itself mounted, so a view is mended in its place, file by file.
A view is derived of its copy alone: `settle` makes it anew after a crash at any point.

Methods raise DownloadError (NoHardLinks) if a file cannot have a hard link, and OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent.disk.files import delete_tree, make_directory, sync_directory
from agent.disk.no_follow import holding, put
from agent.disk.root import KEY
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import folders

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from agent.structs.manifest import Manifest

_MODELS = "models"
# The folder of a tree itself.
_TOP = "."
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
# A folder is where a file should be, or the other way round.
_OTHER_SHAPE = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EEXIST}


class Views:
    """The views below one folder `volumes`. Different threads may work on different keys at once.

    Without `makes`, no folders of volumes are made, but the views in those that exist are kept up:
    volumes and pods of an earlier setting may still lead there.
    """

    def __init__(self, volumes: Path, *, makes: bool) -> None:
        self._volumes = volumes
        self._new, self._old = volumes / ".new", volumes / ".old"
        self.makes = makes

    def path(self, key: str) -> Path:
        """Where the view of a model is, or will be."""
        return self._volumes / key / _MODELS / key

    # The folders of volumes

    def folders(self) -> set[str]:
        """The keys that have a folder of their volume."""
        names = (entry.name for entry in _entries(self._volumes))
        return {name for name in names if KEY.fullmatch(name)}

    def make_folder(self, key: str) -> None:
        """Make the folder of a key's volume, where such folders are made."""
        if not self.is_needed(key):
            return
        folder = self._volumes / key
        # `.old` is made in time: a full disk has no room for it when copies have to go.
        for path in (self._volumes, self._new, self._old, folder, folder / _MODELS):
            make_directory(path)

    def delete_folder(self, key: str) -> None:
        """Delete the folder of a key's volume, with a view that is left there."""
        self.drop(key)
        for folder in (self._volumes / key / _MODELS, self._volumes / key):
            with suppress(FileNotFoundError):
                folder.rmdir()

    def is_needed(self, key: str) -> bool:
        """Whether a copy of this key has a view."""
        return self.makes or (self._volumes / key).is_dir()

    # The views

    def shows(self, tree: Path, manifest: Manifest) -> bool:
        """Whether the view of a copy is as it should be: each file is that of the copy.

        True also if the copy needs no view. `tree` is the folder of the copy.
        """
        return not self.is_needed(manifest.key) or not self._differences(tree, manifest)

    def make(self, tree: Path, manifest: Manifest) -> None:
        """Make the view of a published copy, or mend it; nothing is done where nothing differs."""
        if not self.is_needed(manifest.key):
            return
        differing = self._differences(tree, manifest)
        if not differing:
            return
        self.make_folder(manifest.key)
        if _TOP in differing or not self._mend(tree, manifest, differing):
            self.drop(manifest.key)
            self._build(tree, manifest)

    def drop(self, key: str) -> None:
        """Delete the view of a key: before its copy leaves models/, and while it has none."""
        if not _is_there(self.path(key)):
            return
        old = self._old / key
        delete_tree(old)
        make_directory(self._old)
        self.path(key).rename(old)
        delete_tree(old)

    def settle(self, copies: Collection[str]) -> Iterator[tuple[str, OSError]]:
        """Delete what interrupted steps left, and the views of all other keys than these.

        Called while nothing else works here. Yields each key where that fails, and why.
        """
        for left in (*_entries(self._new), *_entries(self._old)):
            try:
                delete_tree(left)
            except OSError as error:
                yield left.name, error
        for key in sorted(self.folders().difference(copies)):
            try:
                self.drop(key)
            except OSError as error:
                yield key, error

    def _build(self, tree: Path, manifest: Manifest) -> None:
        new = self._empty(manifest.key)
        paths = [file.path for file in manifest.files]
        above = sorted(folders(paths))
        for folder in above:
            make_directory(new / folder)
        for folder, names in _by_folder(paths).items():
            self._link(tree, folder, names, new / folder)
        for folder in (*reversed(above), _TOP):
            sync_directory(new / folder)
        new.rename(self.path(manifest.key))

    def _mend(self, tree: Path, manifest: Manifest, differing: Collection[str]) -> bool:
        """Replace the differing files of a view. False if the view has other folders than its copy.

        A pod that reads a file sees the former one or the new one.
        """
        view, new = self.path(manifest.key), self._empty(manifest.key)
        paths = {file.path for file in manifest.files}
        try:
            for path in differing:
                if path not in paths:
                    delete_tree(view / path)
                    continue
                folder, name = _split(path)
                self._link(tree, folder, [name], new)
                put(new / name, view, path, replace=True)
        except OSError as error:
            if error.errno in _OTHER_SHAPE:
                return False
            raise
        delete_tree(new)
        return True

    def _empty(self, key: str) -> Path:
        """An empty folder that no pod sees."""
        new = self._new / key
        delete_tree(new)
        make_directory(self._new)
        make_directory(new)
        return new

    def _link(self, tree: Path, folder: str, names: Collection[str], target: Path) -> None:
        """Link the files of these names in a folder of the copy into the target folder."""
        # The copy's own folder may be an administrator's symbolic link; none below it is followed.
        with holding(tree.resolve(), folder) as source, holding(target, _TOP) as into:
            for name in names:
                with _refusing(tree, folder, name):
                    os.link(name, name, src_dir_fd=source, dst_dir_fd=into, follow_symlinks=False)

    def _differences(self, tree: Path, manifest: Manifest) -> list[str]:
        """The paths at which a view is not as its copy, and those that it has beside; "." for all.

        The numbers of the inodes come with the names: no file is looked at by itself.
        """
        view = self.path(manifest.key)
        try:
            top = view.lstat()
        except FileNotFoundError:
            return [_TOP]
        if not stat.S_ISDIR(top.st_mode) or top.st_dev != tree.stat().st_dev:
            return [_TOP]
        by_folder = _by_folder(file.path for file in manifest.files)
        above = {_TOP, *folders(file.path for file in manifest.files)}
        found: list[str] = []
        for folder in sorted(above):
            names = set(by_folder.get(folder, ()))
            shown, theirs = _inodes(view / folder), _inodes(tree / folder)
            beside = {name for name in shown.keys() - names if _join(folder, name) not in above}
            other = {name for name in names if shown.get(name) != theirs.get(name, 0)}
            # Some file systems list other numbers than those of the files.
            other = {name for name in other if not _is_same(view / folder, tree / folder, name)}
            found += [_join(folder, name) for name in sorted(beside | other)]
        return found


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    """The names of the files in each folder."""
    found: dict[str, list[str]] = {}
    for path in paths:
        folder, name = _split(path)
        found.setdefault(folder, []).append(name)
    return found


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder or _TOP, name


def _join(folder: str, name: str) -> str:
    return name if folder == _TOP else f"{folder}/{name}"


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _is_there(path: Path) -> bool:
    """Whether anything is at a path. Not os.path.lexists, which takes an I/O error for a no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _inodes(folder: Path) -> dict[str, int]:
    """The number of the inode of each name in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _is_same(folder: Path, other: Path, name: str) -> bool:
    """Whether a name in two folders is one regular file."""
    try:
        one, two = (folder / name).lstat(), (other / name).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(one.st_mode) and os.path.samestat(one, two)


@contextmanager
def _refusing(tree: Path, folder: str, name: str) -> Iterator[None]:
    """Raise DownloadError where a file cannot have a hard link."""
    try:
        yield
    except OSError as error:
        place = tree / folder / name
        if error.errno not in _NO_LINKS:
            raise OSError(error.errno, error.strerror, str(place)) from None
        raise DownloadError(FailureKind.NO_LINKS, _no_links(error, place)) from None


def _no_links(error: OSError, place: Path) -> str:
    return (
        f"{place} cannot have a hard link in volumes/ ({error.strerror}), so the volume of this "
        "model cannot show it alone: use a file system with hard links for the whole root, and let "
        "root own the files (chown), or the agent have the capability FOWNER; or set "
        "LOCALMODEL_VOLUMES=root for agents and hooks, where each volume shows all models of a node"
    )
