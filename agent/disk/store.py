"""The models on the disk: the only module that touches their file system.

    <root>/models/<key>/...                 published: complete and verified
    <root>/.localmodel/<key>/manifest.json  models/<key> belongs to the agent: its files; an adopted
                                            folder may have other files too
    <root>/.localmodel/<key>/files/...      staging: an unfinished download (see staging.py)
    <root>/.localmodel/<key>/staged.json    the manifest of files/, which are complete and verified
    <root>/.localmodel/<key>/old/...        moved out of models/, to be deleted
    <root>/.localmodel/<key>/held.json      who had access to the copy that left models/ for a while
    <root>/.localmodel/<key>/usage.json     when the copy was published, and when it was last used
    <root>/.localmodel/<key>/evicted.json   the copy was evicted, and is not back yet
    <root>/.localmodel/<key>/scrub.json     when models/<key> was last scrubbed, and its bad files
    <root>/.localmodel/<key>/failed.json    why the last attempts failed, and when the next are due
    <root>/.localmodel/lock                 locked by the one agent that works in this root
    <root>/volumes/<key>/...                the view of a published copy: see views.py

Everything is on one file system, so that each move between these places is one rename. `recover`
completes or undoes whatever a crash between two steps leaves. The manifest of a model that is not
published yet has a name of its own (staged.json): manifest.json alone says at every moment whether
a folder in models/ belongs to the agent, also while one copy replaces another.

Methods raise DownloadError for a failure of one model, and OSError for any other.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from agent.disk.files import (
    TEMPORARY_SUFFIX,
    delete_file,
    delete_tree,
    is_empty_directory,
    make_directory,
    sync_directory,
    tree_blocks,
    write_atomically,
)
from agent.disk.identity import DiskIdentity, identify
from agent.disk.modes import open_up
from agent.disk.on_disk import (
    Disk,
    Found,
    OnDisk,
    compare,
    look,
    measure,
    read_note,
    staged_bytes,
)
from agent.disk.published import Stamp, intact, stamp
from agent.disk.recovery import clear_leftovers
from agent.disk.repair import drop_others, fill, lay_out, proved, replace_files
from agent.disk.root import KEY, Root, StoreError
from agent.disk.staging import Staging, forget_progress
from agent.disk.views import Views
from agent.disk.writeback import sync_file_system
from agent.structs.adoption import closed, foreign
from agent.structs.failures import DownloadError, encodable
from agent.structs.log import log
from agent.structs.manifest import Manifest, folders
from agent.structs.records import FailedAttempts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from agent.disk.kubelet_disk import KubeletDisk
    from agent.structs.json_record import JsonRecord
    from agent.structs.records import Evicted, Scrub, Usage

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


class Store:
    """The models below one root. Different threads may work on different keys at once.

    With a `size` (bytes), the root counts as a disk of that size with nothing else on it.
    `folders` replace the folders of an agent's root. `makes_views`: each model has a view.
    `kubelet` knows the kubelet's thresholds; without it, no kubelet uses the disk.
    """

    def __init__(
        self,
        root: Path,
        size: int | None = None,
        *,
        folders: Root | None = None,
        makes_views: bool = False,
        kubelet: KubeletDisk | None = None,
    ) -> None:
        self.root = root
        self._size = size
        self._kubelet = kubelet
        self._folders = folders or Root(root, root / "models", root / ".localmodel")
        self.views = Views(self._folders.volumes, makes=makes_views)
        self._lock: int | None = None
        self._was_laid_out = False
        # The identity of its folders when the store was opened.
        self._place: DiskIdentity | None = None
        # Whether the lock is held, and `recover` was done.
        self.is_open = False
        # Scrub results that could not be written to the disk, by key. At most one for each copy.
        self._scrubs: dict[str, Scrub] = {}

    def open(self) -> None:
        """Make the folders of the root, and lock it. Raises StoreError.

        It may be called again after a failure. Then the folders are not made anew where they were
        there before: an empty directory may be the mount point of a disk that is not mounted.
        """
        root = self._folders
        try:
            if not self._was_laid_out:
                self._was_laid_out = root.is_laid_out
                root.lay_out()
            if self._lock is None:
                self._lock = root.lock()
            if self._place is None:
                self._place = identify((self.root, self._folders.models, self._folders.private))
        except OSError as error:
            raise StoreError(
                f"cannot use {error.filename or self.root} as the root: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Release the lock, so that another agent can use the root."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = self._place = None
            self.is_open = False

    @property
    def is_locked(self) -> bool:
        """Whether `open` has succeeded."""
        return self._lock is not None

    def check_place(self) -> None:
        """Raise MovedError if the paths lead to other folders than when the store was opened.

        Called before each change: what is known of one disk says nothing of another one in its
        place. Raises OSError too.
        """
        if self._place is not None:
            self._place.check()

    def path(self, key: str) -> Path:
        """The path of a published model."""
        return self._folders.model(key)

    def disk(self) -> Disk:
        """How full the disk is."""
        trees = (self._folders.models, self._folders.private)
        return measure(self.root, self._size, trees, self._kubelet)

    # Observation

    def scan(self) -> tuple[dict[str, OnDisk], tuple[str, ...]]:
        """All keys with files or notes, and the names in models/ that are not the agent's."""
        self.check_place()
        copies = {key: self.inspect(key) for key in self._keys()}
        ours = {key for key, copy in copies.items() if copy.is_published or copy.is_unreadable}
        foreign = sorted(
            entry.name
            for entry in self._folders.models.iterdir()
            if entry.name not in ours and _holds_anything(entry)
        )
        return {key: copy for key, copy in copies.items() if copy != OnDisk()}, tuple(foreign)

    def _keys(self) -> list[str]:
        """The keys that the private folder has anything of."""
        entries = self._folders.private.iterdir()
        return sorted(entry.name for entry in entries if KEY.fullmatch(entry.name))

    def inspect(self, key: str) -> OnDisk:
        """The state of one key on the disk."""
        tree = self.path(key)
        try:
            copy = look(tree, self._meta(key), self._scrubs.get(key))
            if copy.found is not Found.PUBLISHED or copy.manifest is None:
                return copy
            return copy if self.views.shows(tree, copy.manifest) else replace(copy, lacks_view=True)
        except OSError as error:
            place = error.filename or self._meta(key)
            return OnDisk(Found.UNREADABLE, problem=encodable(f"{place}: {error.strerror}"))

    def stamp(self, key: str) -> Stamp | None:
        """See agent.disk.published.stamp."""
        return stamp(self._meta(key), self._scrubs.get(key))

    def intact(self, key: str) -> tuple[Manifest, frozenset[str]] | None:
        """See agent.disk.published.intact."""
        return intact(self._meta(key), self._scrubs.get(key))

    def download_bytes(self, key: str) -> int:
        """Bytes of the disk that a key takes during its download. Raises OSError."""
        meta = self._meta(key)
        # Staging first, since files move from there to models/: none is missed.
        staged = staged_bytes(meta)
        ours = (meta / "staged.json").exists() or (meta / "manifest.json").exists()
        return staged + (tree_blocks(self.path(key)) if ours else 0)

    def is_foreign(self, key: str) -> bool:
        """Whether models/<key> exists and does not belong to the agent."""
        ours = (self._meta(key) / "manifest.json").exists()
        return not ours and not is_empty_directory(self.path(key))

    # Download

    def staging(self, key: str) -> Staging:
        """The staging of a key, with what an earlier attempt left in it. Raises OSError."""
        self.check_place()
        return Staging(self._meta(key))

    def staging_files(self, key: str) -> Path:
        """Where the staging of a key has its files."""
        return Staging(self._meta(key)).path_of_files

    def publish(self, manifest: Manifest) -> None:
        """Publish the staged files, which this manifest describes, by one rename to models/<key>.

        A former copy of the agent's is replaced, and so is an empty directory, which kubelet makes
        for a missing sub-path. Raises DownloadError (ForeignDirectory) if anything else is there.
        The view appears last: if that fails, the copy is published, and `finish_view` is left.
        """
        self.check_place()
        key = manifest.key
        files, paths = self._meta(key) / "files", [file.path for file in manifest.files]
        for path, problem in open_up(files, paths):
            raise PermissionError(errno.EPERM, problem, str(files / path))
        for directory in sorted({".", *folders(paths)}, reverse=True):
            sync_directory(files / directory)
        write_atomically(self._meta(key) / "staged.json", _to_bytes(manifest))
        self._finish(key)
        self.views.make(self.path(key), manifest)

    def _finish(self, key: str) -> None:
        """Publish files/, which is complete and has its staged.json."""
        meta = self._meta(key)
        if (meta / "manifest.json").exists():
            self._take_out(key)
        try:
            (meta / "files").rename(self.path(key))
        except OSError as error:
            if error.errno in _TAKEN:
                raise foreign(self.path(key)) from None
            raise
        self._complete(meta)

    def _complete(self, meta: Path) -> None:
        """The steps of a publication after its rename."""
        sync_directory(self._folders.models)
        sync_directory(meta)
        # The scrub result of a former copy does not apply to this one.
        self._forget_scrub(meta)
        (meta / "staged.json").rename(meta / "manifest.json")
        sync_directory(meta)
        delete_file(meta / "evicted.json")
        delete_file(meta / "held.json")
        forget_progress(meta)
        delete_tree(meta / "old")

    def is_moving(self, key: str) -> bool:
        """Whether a publication has done its rename, and not the steps after it."""
        meta = self._meta(key)
        others = meta / "files", meta / "manifest.json"
        return (meta / "staged.json").exists() and not any(path.exists() for path in others)

    def finish_interrupted(self, key: str) -> Manifest | None:
        """Complete a publication that was interrupted after its rename, as by an error of the disk.

        Returns the manifest of the model; None if there was no such publication.
        """
        meta = self._meta(key)
        staged = read_note(meta / "staged.json", Manifest)
        if staged is None or not self.is_moving(key):
            return None
        if compare(self.path(key), staged)[0]:
            return None
        self._complete(meta)
        return staged

    def finish_view(self, key: str) -> Manifest | None:
        """Make the view of a whole copy that lacks it.

        Returns the manifest of the model; None if there is no such copy.
        """
        if not self.views.is_needed(key):
            return None
        self.check_place()
        copy = self.inspect(key)
        if not copy.lacks_view or copy.manifest is None:
            return None
        self.views.make(self.path(key), copy.manifest)
        return copy.manifest

    def adopt(self, manifest: Manifest, lacking: Collection[str]) -> None:
        """Adopt models/<key>, a folder that another program filled.

        The `lacking` files are moved there from staging; the contents of all other files stay as
        they are. All files become readable to everybody. Raises DownloadError (ForeignDirectory) if
        the folder has changed since it was compared, or if its modes cannot be changed.
        """
        self.check_place()
        tree, meta = self.path(manifest.key), self._meta(manifest.key)
        fill(tree, meta / "files", lacking)
        if compare(tree, manifest)[0]:
            raise foreign(tree, "it changed while it was compared")
        for path, problem in self.open_up(manifest):
            raise foreign(tree, closed(path, problem, tree))
        # The program that filled the folder may not have synced it.
        sync_file_system(tree)
        self.discard(manifest.key)
        make_directory(meta)
        self._forget_scrub(meta)
        write_atomically(meta / "manifest.json", _to_bytes(manifest))
        delete_file(meta / "evicted.json")
        delete_file(meta / "held.json")
        self.views.make(tree, manifest)

    def open_up(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        """Make the files in models/<key> readable to everybody. See agent.disk.modes.open_up."""
        self.check_place()
        paths = [file.path for file in manifest.files]
        return open_up(self.path(manifest.key), paths, beside=self.views.path(manifest.key))

    def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest of a published model; only caches and digests may differ."""
        self.check_place()
        write_atomically(self._meta(manifest.key) / "manifest.json", _to_bytes(manifest))

    def note_usage(self, key: str, usage: Usage) -> None:
        """Write usage.json of a published model."""
        self.check_place()
        write_atomically(self._meta(key) / "usage.json", _to_bytes(usage))

    def note_scrub(self, key: str, scrub: Scrub) -> None:
        """Write scrub.json of a published model.

        If that raises OSError, the result is kept in memory.
        """
        self._scrubs[key] = scrub
        self.check_place()
        write_atomically(self._meta(key) / "scrub.json", _to_bytes(scrub))
        del self._scrubs[key]

    def note_failed(self, key: str, failed: FailedAttempts | None) -> None:
        """Write failed.json of a key, or delete it (None). Raises OSError."""
        self.check_place()
        meta = self._meta(key)
        if failed is None:
            delete_file(meta / "failed.json")
            self._tidy(key)
        else:
            make_directory(meta)
            write_atomically(meta / "failed.json", _to_bytes(failed))

    def failed(self) -> dict[str, FailedAttempts]:
        """The contents of all failed.json, by key. Raises OSError."""
        names = [
            entry.name for entry in self._folders.private.iterdir() if KEY.fullmatch(entry.name)
        ]
        found = {key: read_note(self._meta(key) / "failed.json", FailedAttempts) for key in names}
        return {key: note for key, note in found.items() if note is not None}

    def probe(self) -> None:
        """Write and delete a small file. Raises OSError."""
        self.check_place()
        path = self._folders.private / ("probe" + TEMPORARY_SUFFIX)
        path.write_bytes(b"probe")
        delete_file(path)

    # Repair

    def salvage(self, key: str, copy: OnDisk, stopped: Callable[[], bool]) -> None:
        """Move a damaged `copy` from models/ back to staging, and keep its good files.

        The next download then fetches only the bad files. No file is kept if the manifest cannot be
        read, or if models/<key> is a symbolic link. The notes of its use stay.
        """
        self.check_place()
        if copy.manifest is None or self.path(key).is_symlink():
            self._take_out(key)
            self.discard(key)
            return
        self._put_back(copy.manifest, proved(self.path(key), copy, stopped))

    def set_aside(self, manifest: Manifest) -> None:
        """Move a whole copy from models/ back to staging, and keep its files."""
        if self.path(manifest.key).is_symlink():
            self._take_out(manifest.key)
            self.discard(manifest.key)
            return
        self._put_back(manifest, {file.path for file in manifest.files})

    def _put_back(self, manifest: Manifest, good: Collection[str]) -> None:
        """Move a published copy to staging, with these files marked as complete."""
        key, meta = manifest.key, self._meta(manifest.key)
        self.discard(key)
        lay_out(meta, manifest, good)
        delete_tree(meta / "files")
        self.views.drop(key)
        self._hold_first(meta)
        with suppress(FileNotFoundError):
            self.path(key).rename(meta / "files")
        drop_others(meta / "files", manifest, good)
        self._forget(meta)

    def mend(self, manifest: Manifest, paths: Iterable[str]) -> None:
        """Replace bad files of a published model by verified files from staging.

        Each file by one rename: a pod that reads it sees the old file or the new one.
        """
        self.check_place()
        meta = self._meta(manifest.key)
        replace_files(self.path(manifest.key), meta / "files", paths)
        self._forget_scrub(meta)
        sync_directory(meta)
        forget_progress(meta)
        delete_tree(meta / "files")
        self.views.make(self.path(manifest.key), manifest)

    # Deletion

    def discard(self, key: str) -> None:
        """Delete the staging of a key, and keep its notes."""
        self.check_place()
        meta = self._meta(key)
        self.finish_interrupted(key)
        # Deleted first: staged.json says that files/ is complete.
        delete_file(meta / "staged.json")
        forget_progress(meta)
        delete_tree(meta / "files")
        if (meta / "old").exists() and not self.path(key).exists():
            # An error of the disk interrupted `_take_out` after its rename.
            self._forget(meta)
        delete_tree(meta / "old")
        self._tidy(key)

    def remove(self, key: str) -> None:
        """Delete the agent's copy of a model, whole or damaged, with its staging and its notes.

        A folder that does not belong to the agent is left alone.
        """
        self.check_place()
        if (self._meta(key) / "manifest.json").exists():
            self._take_out(key)
        for note in ("evicted.json", "usage.json", "held.json"):
            delete_file(self._meta(key) / note)
        self.discard(key)

    def drop(self, key: str) -> None:
        """Delete the agent's copy of a model with its staging, and keep its notes."""
        self.check_place()
        self._take_out(key)
        self.discard(key)

    def evict(self, key: str, note: Evicted) -> None:
        """Delete the agent's copy of a model, and write evicted.json.

        Raises OSError. Then the copy may have left models/ without a note, or with files that
        `remove` or `recover` will delete.
        """
        self.check_place()
        meta = self._meta(key)
        manifest = read_note(meta / "manifest.json", Manifest)
        self._take_out(key)
        try:
            write_atomically(meta / "evicted.json", _to_bytes(note))
        except OSError:
            # The disk may be full: there is room for the notes once the files are deleted.
            delete_tree(meta / "old")
            write_atomically(meta / "evicted.json", _to_bytes(note))
            self._hold(meta, manifest)
        self.discard(key)

    def _take_out(self, key: str) -> None:
        """Move models/<key> to old/, and delete its manifest."""
        meta = self._meta(key)
        self.views.drop(key)
        delete_tree(meta / "old")
        self._hold_first(meta)
        with suppress(FileNotFoundError):
            self.path(key).rename(meta / "old")
        self._forget(meta)

    def _hold_first(self, meta: Path) -> None:
        """Write held.json before a copy leaves models/, where a kill would lose it.

        A full disk has no room for it before the files are deleted. Beside a manifest it counts for
        nothing.
        """
        with suppress(OSError):
            self._hold(meta, read_note(meta / "manifest.json", Manifest))

    def _forget(self, meta: Path) -> None:
        """Delete the manifest and the scrub result of a copy that has left models/."""
        sync_directory(self._folders.models)
        sync_directory(meta)
        delete_file(meta / "manifest.json")
        self._forget_scrub(meta)
        sync_directory(meta)

    def _hold(self, meta: Path, manifest: Manifest | None) -> None:
        """Write held.json: who had access to a copy that leaves models/."""
        if manifest is not None and manifest.access is not None:
            write_atomically(meta / "held.json", _to_bytes(manifest.access))

    def _forget_scrub(self, meta: Path) -> None:
        self._scrubs.pop(meta.name, None)
        delete_file(meta / "scrub.json")

    def _tidy(self, key: str) -> None:
        with suppress(OSError):
            self._meta(key).rmdir()

    # After a crash

    def recover(self) -> None:
        """Complete or undo what a crash interrupted. Unfinished downloads stay in staging.

        Raises StoreError if the disk cannot be read.
        """
        try:
            entries = sorted(self._folders.private.iterdir())
        except OSError as error:
            raise StoreError(
                f"cannot read {error.filename or self._folders.private}: {error.strerror}; check "
                "the node's disk"
            ) from error
        for entry in entries:
            if not KEY.fullmatch(entry.name):
                continue
            try:
                self._recover(entry.name)
            except (OSError, DownloadError) as error:
                log.warning("Could not recover a model", key=entry.name, error=str(error))
        self._recover_views([entry.name for entry in entries if KEY.fullmatch(entry.name)])
        self.is_open = True

    def _recover_views(self, keys: Collection[str]) -> None:
        """Make the views of whole copies; delete those of keys that have no copy of the agent's.

        A copy that is damaged, or cannot be read now, keeps its view.
        """
        try:
            copies = [key for key in keys if (self._meta(key) / "manifest.json").exists()]
            for key, problem in self.views.settle(copies):
                log.warning("Could not delete a view", key=key, error=str(problem))
        except OSError as error:
            log.warning("Could not look at the views", error=str(error))
        for key in keys:
            try:
                self.finish_view(key)
            except (OSError, DownloadError) as error:
                log.warning("Could not make a view", key=key, error=str(error))

    def _recover(self, key: str) -> None:
        meta = self._meta(key)
        for leftover in meta.glob("*" + TEMPORARY_SUFFIX):
            delete_file(leftover)
        staged = read_note(meta / "staged.json", Manifest)
        if staged is not None and not compare(meta / "files", staged)[0]:
            self._finish(key)
            log.info("Published a model that was complete before the restart", key=key)
        self.finish_interrupted(key)
        clear_leftovers(meta, self.path(key))
        self._tidy(key)

    def _meta(self, key: str) -> Path:
        return self._folders.private / key


def _to_bytes(note: JsonRecord) -> bytes:
    # Lines, for the people who read it on a node.
    return msgspec.json.format(note.encode(), indent=1)


def _holds_anything(place: Path) -> bool:
    """Whether a name in models/ is more than an empty directory, as far as it can be read."""
    try:
        return not is_empty_directory(place)
    except OSError as error:
        # One bad folder must not hide the models beside it.
        log.warning("Folder cannot be read", place=str(place), problem=str(error))
        return True
