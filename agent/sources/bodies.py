"""Bodies that are kept in memory: listings, tokens, and what servers say of errors.

An origin may send whatever it likes: so much is read, unpacked or not, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from localmodel.agent.sources.waits import too_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import requests

    from localmodel.agent.sources.waits import Wait

# A page of a listing: 1000 objects with the longest names, or a folder of 10,000 files.
MAX_BODY_BYTES = 4 << 20
# Of an answer that refuses, only a code is looked for.
MAX_REFUSAL_BYTES = 64 << 10
# What takes many times its bytes when it is parsed: elements, attributes, members, entries.
MAX_PARTS = 150_000

# Files of one model: what is known of each is in memory while it is downloaded.
MAX_FILES = 100_000

_T = TypeVar("_T")
_PIECE_BYTES = 64 << 10
_PARTS = (b"<", b'="', b"='", b",", b"[", b"{")


def keep(answer: requests.Response, where: str, wait: Wait) -> None:
    """Read the body of a streamed answer, so that `content`, `text` and `json` have it.

    Raises DownloadError (Unsupported) if it is larger than what it can be, and what requests and
    urllib3 raise. What a refusal has beyond some bytes is left out.
    """
    refused = answer.status_code >= 400
    most = MAX_REFUSAL_BYTES if refused else MAX_BODY_BYTES
    pieces, size = [], 0
    try:
        # Not by iter_content: urllib3 reads the sizes of chunks without a limit there.
        while piece := answer.raw.read(_PIECE_BYTES, decode_content=True):
            size += len(piece)
            wait.take(len(piece), where)
            pieces.append(piece)
            if size > most:
                break
        # What is broken off looks like the end of a body without a length.
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
    """The first bytes of a streamed answer, as they come. The rest is left to nobody.

    Raises DownloadError, and what requests and urllib3 raise.
    """
    with answer:
        start: bytes = answer.raw.read(size, decode_content=False)
        wait.check(where)
        return start


def drop(answer: requests.Response) -> None:
    """Leave the body of an answer unread. Its connection is kept only where there is none."""
    if answer.raw.length_remaining == 0:
        answer.raw.read(1)
    else:
        answer.raw.close()
    _have(answer, b"")


def _have(answer: requests.Response, content: bytes) -> None:
    # As requests itself leaves it behind.
    answer._content = content  # noqa: SLF001
    answer._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
    # All that is asked speaks UTF-8. Guessing takes long, and what is named may be any codec.
    answer.encoding = "utf-8"


def bounded(files: Iterable[_T], where: str) -> Iterator[_T]:
    """The files of a listing. Raises DownloadError (Unsupported) if it does not end."""
    for number, file in enumerate(files):
        if number >= MAX_FILES:
            raise too_large(where)
        yield file
