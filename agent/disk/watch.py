"""Whether the disk is there and can be written."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import structlog

from localmodel.agent.disk.identity import MovedError
from localmodel.agent.disk.on_disk import MISSING
from localmodel.agent.disk.root import StoreError
from localmodel.agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from localmodel.agent.disk.inventory import Inventory
    from localmodel.agent.disk.store import Store

# How often the disk is looked at without a reason, and while it is not as it should be.
RESCAN_SECONDS = 60.0
PROBE_SECONDS = 10.0
# After how many looks the agent begins anew on a disk that covers the former one.
COVERED_LOOKS = 2

_AWAY = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN}
_FULL = {errno.ENOSPC, errno.EDQUOT}

log = structlog.get_logger(__name__)


def disk_failure(error: OSError, root: Path) -> DownloadError | None:
    """The failure that an error means which is the whole disk's; None for any other."""
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
    """Be the only agent on the disk, and bring to an end what was interrupted.

    Where the disk can only be read, or does not answer, that is left to a DiskWatch. Raises
    StoreError for any other cause.
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
    """Raises OSError if the disk is away, or can only be read."""
    try:
        store.probe()
    except OSError as error:
        # Of a full disk, the ledger knows.
        if error.errno not in _FULL:
            raise


class DiskWatch:
    """Looks at the whole disk. What was known of it stays while it cannot be looked at.

    A store that could not be opened is opened as soon as that can be.
    """

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        # What is wrong with the disk; None: nothing.
        self.failure: DownloadError | None = None
        # How many looks in a row have found another disk over the former one.
        self._covered = 0

    @property
    def begins_anew(self) -> bool:
        """Whether to begin anew on a disk that was mounted over the former one.

        Pods that start see that one. It has been told by then, and it is no mount of a moment.
        """
        return self._covered >= COVERED_LOOKS

    def has_moved(self) -> bool:
        """Whether the disk became another one since the last look."""
        if self.failure is not None or not self._store.is_open:
            return False
        try:
            self._store.check_place()
        except MovedError:
            return True
        except OSError:
            # The next look will tell.
            return False
        return False

    def look(self, active: Collection[str]) -> float:
        """Look now. Returns in how many seconds to look again. Raises OSError of other causes."""
        failure, covered = None, 0
        try:
            self._probe()
            self._inventory.rescan(active)
        except StoreError as error:
            # Another agent, for example.
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
            # Where nothing was ever laid out, nothing is missing.
            missing = error.errno in MISSING and not self._store.is_open
            return failure if missing else self._failure(error)
        return failure

    def _failure(self, error: OSError) -> DownloadError:
        if error.errno in MISSING:
            # The root itself is not what it was.
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
