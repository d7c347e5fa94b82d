"""Bodies that are read into memory: listings, tokens and messages of errors.

An origin may send any number of bytes: at most a bounded number is read, unpacked or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent.sources.waits import too_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import requests

    from agent.sources.waits import Wait

# A page of a listing: 1000 objects with the longest names, or a folder of 10,000 files.
MAX_BODY_BYTES = 4 << 20
# Of an answer of 400 and above, only an error code is used.
MAX_REFUSAL_BYTES = 64 << 10
# Elements, attributes, members and entries take many times their bytes once they are parsed.
MAX_PARTS = 150_000

# Files of one model: the description of each is in memory while the model is downloaded.
MAX_FILES = 100_000

_T = TypeVar("_T")
_PIECE_BYTES = 64 << 10
_PARTS = (b"<", b'="', b"='", b",", b"[", b"{")


def read_body(answer: requests.Response, where: str, wait: Wait) -> None:
    """Read the body of a streamed answer, so that `content`, `text` and `json` have it.

    Raises DownloadError (Unsupported) for a body that is larger than any listing, and what requests
    and urllib3 raise. The body of an error is cut off instead.
    """
    refused = answer.status_code >= 400
    most = MAX_REFUSAL_BYTES if refused else MAX_BODY_BYTES
    pieces, size = [], 0
    try:
        # Not by iter_content: there, urllib3 reads the size line of a chunk without a limit.
        while piece := answer.raw.read(_PIECE_BYTES, decode_content=True):
            size += len(piece)
            wait.take(len(piece), where)
            pieces.append(piece)
            if size > most:
                break
        # An aborted connection looks like the end of a body without a length.
        wait.check(where)
    except Exception:
        answer.close()
        raise
    if size > most:
        answer.close()
        if not refused:
            raise too_large(where)
    content = b"".join(pieces)[:most]
    if sum(map(content.count, _PARTS)) > MAX_PARTS:
        raise too_large(where)
    _have(answer, content)


def begin(answer: requests.Response, where: str, wait: Wait, size: int) -> bytes:
    """The first bytes of a streamed answer, not decoded. The rest of the body is not read.

    Raises DownloadError, and what requests and urllib3 raise.
    """
    with answer:
        start: bytes = answer.raw.read(size, decode_content=False)
        wait.check(where)
        return start


def drop(answer: requests.Response) -> None:
    """Discard the body of an answer. The connection is kept only where the body is empty."""
    if answer.raw.length_remaining == 0:
        answer.raw.read(1)
    else:
        answer.raw.close()
    _have(answer, b"")


def _have(answer: requests.Response, content: bytes) -> None:
    # The state in which requests leaves an answer whose body it has read.
    answer._content = content  # noqa: SLF001
    answer._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
    # All APIs here answer in UTF-8. Guessing takes long, and a header may name any codec.
    answer.encoding = "utf-8"


def bounded(files: Iterable[_T], where: str) -> Iterator[_T]:
    """The files of a listing. Raises DownloadError (Unsupported) after MAX_FILES."""
    for number, file in enumerate(files):
        if number >= MAX_FILES:
            raise too_large(where)
        yield file
