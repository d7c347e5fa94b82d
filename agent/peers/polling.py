"""Learns what one peer has of a model, as long as a download of it runs."""

from __future__ import annotations

import random
import re
import threading
import time
from typing import TYPE_CHECKING, Annotated

import msgspec

from agent.structs.failures import DownloadError, FailureKind
from agent.structs.log import log
from agent.structs.pieces import all_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.peers.client import PeerClient
    from agent.structs.exchange import SharedFile

# A peer answers without news after the first, and this agent waits so much longer.
WAIT_SECONDS, SLACK_SECONDS = 20, 10.0
# After an answer without the model, and after other failures: the time doubles with each. Nodes
# begin at about the same time, so that the first answers soon change.
ABSENT_SECONDS, MAX_ABSENT_SECONDS = 0.25, 1.0
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 30.0
# After so many failures, the log says so: a firewall may be in the way.
TOLD_FAILURES = 4
# The least time of a request that is answered: peers gather news for 0.4 seconds.
MIN_SECONDS = 0.2
# More than a peer sends at once (see shared_model): the rest comes with the next answers.
MAX_BYTES = 5 << 20
_SETS = re.compile("[0-9a-f]+(,[0-9a-f]+)?")


class _Told(msgspec.Struct):
    """An answer: what is new of each file since a revision, by digest.

    It is decoded in one pass, and needs a few times the memory of its text at most.
    """

    revision: Annotated[int, msgspec.Meta(ge=0)]
    files: dict[Annotated[str, msgspec.Meta(min_length=64, max_length=64)], str]


_TOLD = msgspec.json.Decoder(_Told)


class Polling:
    """One peer's pieces of one model. `files` are those of the download, by digest.

    `pieces` and `asked` are replaced, never changed. They and `takes_part` are those of
    agent.structs.exchange.Lane.
    """

    def __init__(
        self,
        client: PeerClient,
        key: str,
        grant: str,
        files: Mapping[str, SharedFile],
        news: Callable[[], None],
    ) -> None:
        self.pieces: Mapping[str, int] = {}
        self.asked: Mapping[str, int] = {}
        self.takes_part: bool | None = None
        self._client = client
        self._path = f"/v2/{key}/pieces"
        self._grant = grant
        self._files = files
        self._news = news
        self._ended = threading.Event()
        self._revision = 0
        self._failures = 0

    def start(self) -> None:
        """Ask in a thread of its own, until `end`."""
        name = f"peer-{self._client.peer.node}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def end(self) -> None:
        """Ask no more. It does not wait for the thread."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._ask()):
            pass

    def _ask(self) -> float:
        """Ask once. Returns how many seconds to wait before the next time."""
        began = time.monotonic()
        try:
            content = self._client.content(
                f"{self._path}?after={self._revision}&wait={WAIT_SECONDS}",
                self._grant,
                most=MAX_BYTES,
                seconds=WAIT_SECONDS + SLACK_SECONDS,
                is_over=self._ended.is_set,
            )
            told = _TOLD.decode(content)
            if told.revision >= 1 << 64:
                raise ValueError("no revision")  # noqa: TRY301
            sets = self._sets(told.files)
        except DownloadError as error:
            return self._failed(error)
        except (ValueError, RecursionError, msgspec.DecodeError):
            return self._failed(None)
        self._failures, self._revision = 0, told.revision
        self._learn(sets)
        return max(0.0, began + MIN_SECONDS - time.monotonic())

    def _sets(self, told: Mapping[str, str]) -> dict[str, tuple[int, int]]:
        """The pieces of files, and those that are asked for. Raises ValueError."""
        return {
            digest: _decode_sets(told[digest], self._files[digest].size)
            for digest in told.keys() & self._files.keys()
        }

    def _learn(self, sets: Mapping[str, tuple[int, int]]) -> None:
        is_new = not self.takes_part
        changes = {
            digest: pieces
            for digest, (pieces, _) in sets.items()
            if pieces != self.pieces.get(digest, 0)
        }
        asked = {**self.asked, **{digest: told for digest, (_, told) in sets.items()}}
        self.asked = {digest: told for digest, told in asked.items() if told}
        if changes:
            self.pieces = {**self.pieces, **changes}
        self.takes_part = True
        if (changes or is_new) and not self._ended.is_set():
            self._news()

    def _failed(self, error: DownloadError | None) -> float:
        # Its next answer tells all that it has then.
        self._revision, had = 0, self.pieces
        self.pieces, self.asked, self.takes_part = {}, {}, False
        if had and not self._ended.is_set():
            self._news()
        least, most = RETRY_SECONDS, MAX_RETRY_SECONDS
        is_absent = error is not None and error.kind is FailureKind.NOT_FOUND
        if is_absent:
            least, most = ABSENT_SECONDS, MAX_ABSENT_SECONDS
        delay = min(least * 2.0 ** min(self._failures, 10), most)
        self._failures += 1
        if self._failures == TOLD_FAILURES and not is_absent:
            why = error.message if error is not None else "its answer makes no sense"
            log.warning("Peer does not say what it has", node=self._client.peer.node, reason=why)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311


def _decode_sets(told: str, size: int) -> tuple[int, int]:
    """The pieces of a file of this size, and those that are asked for. Raises ValueError."""
    everything = all_pieces(size)
    if told == "*":
        return everything, 0
    # Not all that `int` reads: a sign would turn one piece into others.
    most = everything.bit_length() // 4 + 1
    if len(told) > 2 * most + 1 or not _SETS.fullmatch(told):
        raise ValueError("no set of pieces")
    pieces, _, asked = told.partition(",")
    if max(len(pieces), len(asked)) > most:
        raise ValueError("a longer set than of all pieces")
    return int(pieces, 16) & everything, int(asked or "0", 16) & everything
