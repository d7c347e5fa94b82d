"""Sizes on the disk, in bytes, and reasons of evictions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EvictionReason(StrEnum):
    """Why a copy was evicted. The value is the reason in LocalModelNode.status."""

    LIMIT_EXCEEDED = "LimitExceeded"
    DISK_PRESSURE = "DiskPressure"
    MADE_ROOM = "MadeRoom"
    REQUESTED = "Requested"


@dataclass(frozen=True)
class Space:
    """The disk: its size, the bytes that can be used at all, and those that are not models'.

    `kubelet` are the bytes that may be taken of it before the kubelet's thresholds are near, and
    `kubelet_acts` the bytes at which they are reached; None if the disk is not the kubelet's.
    """

    capacity: int
    writable: int
    others: int
    kubelet: int | None = None
    kubelet_acts: int | None = None

    @property
    def limit(self) -> int:
        """The bytes that may be taken at most."""
        return self.writable if self.kubelet is None else min(self.writable, self.kubelet)

    @property
    def is_kubelets(self) -> bool:
        """Whether the kubelet's thresholds set the limit."""
        return self.kubelet is not None and self.kubelet <= self.writable

    @property
    def exhausted(self) -> int:
        """The bytes past which other programs suffer: nothing is left, or the kubelet acts."""
        return self.writable if self.kubelet_acts is None else min(self.writable, self.kubelet_acts)


_BLOCK_BYTES = 4096


def in_blocks(size: int) -> int:
    """The disk space of a file, rounded up to 4 KiB blocks."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
