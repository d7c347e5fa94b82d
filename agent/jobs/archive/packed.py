"""Decompression in bounded memory, whatever the input."""

from __future__ import annotations

import bz2
import io
import lzma
import threading
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from agent.structs.archive_kinds import ArchiveKind

if TYPE_CHECKING:
    from collections.abc import Callable

# The memory of one LZMA decompressor: the strongest usual setting, `xz -9`, has a dictionary of
# 64 MiB. The number of decompressors at once is limited too.
MAX_LZMA_BYTES = 72 << 20
LZMA_PLACES = threading.BoundedSemaphore(2)
LOOK_SECONDS = 0.2

_PIECE = 64 << 10
_BUFFER = 1 << 20
# The first bytes of each part, for formats that may have several parts one after the other.
_SIGNS = {
    ArchiveKind.TAR_GZ: b"\x1f\x8b",
    ArchiveKind.TAR_BZ2: b"BZh",
    ArchiveKind.TAR_XZ: b"\xfd7zXZ\0",
}


class TooLargeDictionaryError(Exception):
    """LZMA needs more memory than MAX_LZMA_BYTES."""


class Decompressor(Protocol):
    """The interface of the decompressors of bz2 and lzma."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed data was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether there is no more output without more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the compressed data."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes of output."""
        ...


class _Gzip:
    """zlib's decompressor with the interface of those of bz2 and lzma."""

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
        # zlib may have more output of the input that it has consumed.
        self.needs_input = not self._inner.unconsumed_tail and len(found) < max_length
        return found


class Unpacked(io.RawIOBase):
    """A stream of decompressed bytes. A further part begins with `sign`; other data is ignored.

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
        """True, as io.RawIOBase asks."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read some decompressed bytes. Returns their number, 0 at the end."""
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
                # The module reports this only in the text of the error.
                if "emory" in str(error):
                    raise TooLargeDictionaryError from None
                raise
            except OSError:
                # bz2 raises this for bytes that are not its format.
                raise EOFError from None
            if found:
                return found
        return b""

    def _begins_again(self) -> bool:
        # There may be zeros between two parts, as many as in several reads.
        rest = self._part.unused_data.lstrip(b"\0")
        while len(rest) < len(self._sign) and (more := self._read(_PIECE)):
            rest = (rest + more).lstrip(b"\0")
        self._ended = not (self._sign and rest.startswith(self._sign))
        if not self._ended:
            self._part, self._waiting = self._make(), rest
        return not self._ended


class UnpackedLzma(Unpacked):
    """A stream of decompressed LZMA. It waits for one of LZMA_PLACES, and holds it until `close`.

    `check` is called while it waits, and raises if the stream is not wanted any more.
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
        """Release the memory and the place."""
        super().close()
        if self._has_place:
            self._has_place = False
            del self._part
            LZMA_PLACES.release()


def _new_lzma(style: int) -> Decompressor:
    return cast("Decompressor", lzma.LZMADecompressor(style, memlimit=MAX_LZMA_BYTES))


def opened(raw: BinaryIO, kind: ArchiveKind, check: Callable[[], None]) -> BinaryIO:
    """A stream of the bytes of a tar. `check` is as for UnpackedLzma."""
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
