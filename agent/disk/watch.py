"""Watches whether the disk is there and can be written."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from agent.disk.identity import MovedError
from agent.disk.on_disk import MISSING
from agent.disk.root import StoreError
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.disk.inventory import Inventory
    from agent.disk.store import Store

# The interval between scans of the disk: usually, and while the disk has failed.
RESCAN_SECONDS = 60.0
PROBE_SECONDS = 10.0
# After how many scans in a row the agent restarts on a disk that is mounted over the former one.
COVERED_LOOKS = 2

_AWAY = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN}
FULL = {errno.ENOSPC, errno.EDQUOT}


def disk_failure(error: OSError, root: Path) -> DownloadError | None:
    """The failure of the whole disk that an error stands for; None if it is no such error."""
    place = error.filename or root
    if isinstance(error, MovedError):
        return DownloadError(FailureKind.OTHER_DISK, _moved(error, root))
    if error.errno == errno.EROFS:
        return DownloadError(
            FailureKind.READ_ONLY,
            f"{place}: {error.strerror}: the disk of {root} can only be read; see the node's "
            "kernel log for why, mend the disk and mount it writable, and the agent goes on",
        )
    if error.errno in _AWAY:
        return DownloadError(
            FailureKind.UNAVAILABLE,
            f"{place}: {error.strerror}: the disk of {root} does not answer as it should; see the "
            "node's kernel log, mend it or mount it again, and the agent goes on. Where another "
            "disk takes its place, restart the agent",
        )
    return None


def _moved(error: MovedError, root: Path) -> str:
    if error.is_covered:
        return (
            f"another disk was mounted over {root}: the agent begins anew on it, as new pods see "
            f"it. The models of the former disk are hidden below it: to have them back, unmount "
            f"{root} and restart the agent; to free their space, delete them there"
        )
    return (
        f"{error.filename} is another folder than the one that the agent began on: another disk is "
        "in its place, or its own was taken away. Nothing is touched in either. Put the former "
        "back, and the agent goes on; or restart the agent, and it begins on this one"
    )


def open_store(store: Store) -> None:
    """Open the store and recover it.

    If the disk is read-only or does not answer, a DiskWatch will do that later. Raises StoreError
    for any other cause.
    """
    try:
        store.open()
        store.recover()
    except StoreError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or disk_failure(cause, store.root) is None:
            raise
        log.warning("The disk cannot be used yet", reason=str(error))


def probe(store: Store) -> None:
    """Raise OSError if the disk does not answer, or can only be read."""
    try:
        store.probe()
    except OSError as error:
        # A full disk is handled by eviction.
        if error.errno not in FULL:
            raise


class DiskWatch:
    """Scans the disk. While it cannot be scanned, the inventory stays as it was.

    A store that could not be opened yet is opened as soon as possible.
    """

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        # The failure of the whole disk; None if it works.
        self.failure: DownloadError | None = None
        # How many scans in a row found a disk mounted over the former one.
        self._covered = 0

    @property
    def begins_anew(self) -> bool:
        """Whether the agent should restart on a disk that was mounted over the former one.

        Pods that start now mount the new disk. By then the failure was reported, and the mount has
        lasted for a while.
        """
        return self._covered >= COVERED_LOOKS

    def has_moved(self) -> bool:
        """Whether another disk took the place of the former one since the last scan."""
        if self.failure is not None or not self._store.is_open:
            return False
        try:
            self._store.check_place()
        except MovedError:
            return True
        except OSError:
            # The next scan will report it.
            return False
        return False

    def look(self, active: Collection[str]) -> float:
        """Scan the disk now. Returns the seconds until the next scan.

        Raises OSError if the cause is not the whole disk.
        """
        failure, covered = None, 0
        try:
            self._probe()
            self._inventory.rescan(active)
        except StoreError as error:
            # For example, another agent has locked the root.
            failure = DownloadError(FailureKind.UNAVAILABLE, str(error))
        except OSError as error:
            if isinstance(error, MovedError) and error.is_covered:
                covered = self._covered + 1
            failure = self._failure(error)
            if failure.kind is FailureKind.READ_ONLY:
                # It can still be read.
                failure = self._read_only(failure, active)
        self._tell(failure)
        self.failure, self._covered = failure, covered
        return RESCAN_SECONDS if failure is None else PROBE_SECONDS

    def _probe(self) -> None:
        if not self._store.is_open:
            self._open()
        probe(self._store)

    def _open(self) -> None:
        try:
            self._store.open()
            self._store.recover()
        except StoreError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def _read_only(self, failure: DownloadError, active: Collection[str]) -> DownloadError:
        try:
            self._inventory.rescan(active)
        except OSError as error:
            # If the store was never opened, its folders may not have been made yet.
            missing = error.errno in MISSING and not self._store.is_open
            return failure if missing else self._failure(error)
        return failure

    def _failure(self, error: OSError) -> DownloadError:
        if error.errno in MISSING:
            # The folders of the root are missing.
            error = OSError(errno.ENODEV, error.strerror, error.filename)
        failure = disk_failure(error, self._store.root)
        if failure is None:
            raise error
        return failure

    def _tell(self, failure: DownloadError | None) -> None:
        before = self.failure and self.failure.kind
        if failure is None and before is not None:
            log.info("The disk is as it should be again", root=str(self._store.root))
        elif failure is not None and failure.kind is not before:
            log.error("Disk is not ready", reason=failure.kind.value, detail=failure.message)
