"""Whether the disk is there and can be written."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import structlog

from agent.failures import DownloadError, FailureKind
from agent.on_disk import MISSING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.inventory import Inventory
    from agent.store import Store

# How often the disk is looked at without a reason, and while it is not as it should be.
RESCAN_SECONDS = 60.0
PROBE_SECONDS = 10.0

_AWAY = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN}
_FULL = {errno.ENOSPC, errno.EDQUOT}

log = structlog.get_logger(__name__)


def disk_failure(error: OSError, root: Path) -> DownloadError | None:
    """The failure that an error means which is the whole disk's; None for any other."""
    place = error.filename or root
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


class DiskWatch:
    """Looks at the whole disk. What was known of it stays while it cannot be looked at."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self._store = store
        self._inventory = inventory
        # What is wrong with the disk; None: nothing.
        self.failure: DownloadError | None = None

    def look(self, active: Collection[str]) -> float:
        """Look now. Returns in how many seconds to look again. Raises OSError of other causes."""
        failure = None
        try:
            self._probe()
            self._inventory.rescan(active)
        except OSError as error:
            failure = self._failure(error)
            if failure.kind is FailureKind.READ_ONLY:
                # It can still be read.
                failure = self._read_only(failure, active)
        self._tell(failure)
        self.failure = failure
        return RESCAN_SECONDS if failure is None else PROBE_SECONDS

    def _probe(self) -> None:
        try:
            self._store.probe()
        except OSError as error:
            # Of a full disk, the ledger knows.
            if error.errno not in _FULL:
                raise

    def _read_only(self, failure: DownloadError, active: Collection[str]) -> DownloadError:
        try:
            self._inventory.rescan(active)
        except OSError as error:
            return self._failure(error)
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
