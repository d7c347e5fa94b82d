"""Bytes that come out of a compression, in bounded memory whatever goes in."""

from __future__ import annotations

import bz2
import io
import lzma
import threading
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from localmodel.agent.structs.archive_kinds import ArchiveKind

if TYPE_CHECKING:
    from collections.abc import Callable

# What LZMA may take: its strongest usual setting, `xz -9`, has a dictionary of 64 MiB. Many at once
# would take the agent's memory.
MAX_LZMA_BYTES = 72 << 20
LZMA_PLACES = threading.BoundedSemaphore(2)
LOOK_SECONDS = 0.2

_PIECE = 64 << 10
_BUFFER = 1 << 20
# How a further part begins, of those that may have several one after the other.
_SIGNS = {
    ArchiveKind.TAR_GZ: b"\x1f\x8b",
    ArchiveKind.TAR_BZ2: b"BZh",
    ArchiveKind.TAR_XZ: b"\xfd7zXZ\0",
}


class TooLargeDictionaryError(Exception):
    """More memory is needed than MAX_LZMA_BYTES."""


class Decompressor(Protocol):
    """As those of bz2 and lzma."""

    @property
    def eof(self) -> bool:
        """Whether its end has come."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing comes without more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most so many bytes."""
        ...


class _Gzip:
    """zlib's decompressor, as those of bz2 and lzma are."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # It may hold more that it has read already.
        self.needs_input = not self._inner.unconsumed_tail and len(found) < max_length
        return found


class Unpacked(io.RawIOBase):
    """What comes out. `sign` is how a further part begins; what else follows the end is left.

    Raises EOFError, TooLargeDictionaryError, and what decompressors raise.
    """

    def __init__(
        self, read: Callable[[int], bytes], make: Callable[[], Decompressor], sign: bytes = b""
    ) -> None:
        super().__init__()
        self._read = read
        self._make = make
        self._sign = sign
        self._part = make()
        self._waiting = b""
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Some of the bytes that come out; 0 at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        found = self._some(len(view))
        view[: len(found)] = found
        return len(found)

    def _some(self, size: int) -> bytes:
        while not self._ended:
            if self._part.eof and not self._begins_again():
                break
            data = b""
            if self._part.needs_input:
                data, self._waiting = self._waiting or self._read(_PIECE), b""
                if not data:
                    raise EOFError
            try:
                found = self._part.decompress(data, size)
            except lzma.LZMAError as error:
                # The module has no other sign of it.
                if "emory" in str(error):
                    raise TooLargeDictionaryError from None
                raise
            except OSError:
                # What bz2 says of bytes that are none of its own.
                raise EOFError from None
            if found:
                return found
        return b""

    def _begins_again(self) -> bool:
        rest = self._part.unused_data or self._read(_PIECE)
        while self._sign and rest:
            # Zeros may lie between.
            rest = rest.lstrip(b"\0")
            more = self._read(_PIECE) if len(rest) < len(self._sign) else b""
            rest += more
            if len(rest) >= len(self._sign) or not more:
                break
        self._ended = not (self._sign and rest.startswith(self._sign))
        if not self._ended:
            self._part, self._waiting = self._make(), rest
        return not self._ended


class UnpackedLzma(Unpacked):
    """What comes out of LZMA. It waits for its place, which it has until it is closed.

    `check` is called meanwhile, and raises if nobody waits any more.
    """

    _has_place = False

    def __init__(
        self,
        read: Callable[[int], bytes],
        check: Callable[[], None],
        style: int = lzma.FORMAT_AUTO,
        sign: bytes = b"",
    ) -> None:
        while not LZMA_PLACES.acquire(timeout=LOOK_SECONDS):
            check()
        self._has_place = True
        super().__init__(read, lambda: _new_lzma(style), sign)

    def close(self) -> None:
        """Give the memory and the place back."""
        super().close()
        if self._has_place:
            self._has_place = False
            del self._part
            LZMA_PLACES.release()


def _new_lzma(style: int) -> Decompressor:
    return cast("Decompressor", lzma.LZMADecompressor(style, memlimit=MAX_LZMA_BYTES))


def opened(raw: BinaryIO, kind: ArchiveKind, check: Callable[[], None]) -> BinaryIO:
    """The bytes of a tar. `check` is as for UnpackedLzma."""
    sign = _SIGNS.get(kind, b"")
    unpacked: Unpacked
    if kind is ArchiveKind.TAR_XZ:
        unpacked = UnpackedLzma(raw.read, check, sign=sign)
    elif kind is ArchiveKind.TAR_BZ2:
        unpacked = Unpacked(raw.read, bz2.BZ2Decompressor, sign)
    elif kind is ArchiveKind.TAR_GZ:
        unpacked = Unpacked(raw.read, _Gzip, sign)
    else:
        return raw
    return cast("BinaryIO", io.BufferedReader(unpacked, _BUFFER))
