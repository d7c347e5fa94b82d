"""What peers may have of one model: its published copy, and what its download has written. Pure.

Both may exist at once, while a copy is repaired or replaced. Each has its own grants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.peers.changes import Changes
from agent.structs.exchange import SharedFile, grant_digest
from agent.structs.manifest import Grant
from agent.structs.pieces import all_pieces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from agent.structs.manifest import Access, Manifest

WHOLE, NOTHING = "*", "0"
# One answer names files up to about so many characters: the rest comes with the next one.
MAX_ANSWER = 4 << 20


def accepted(access: Access | None) -> frozenset[str]:
    """The digests of the grants that may have a copy: see agent.structs.grants.Granted."""
    grants = access.grants if access else (Grant(),)
    found = {grant_digest(grant) for grant in grants}
    if any(not grant.namespace for grant in grants):
        found.add(grant_digest(Grant()))
    return frozenset(found)


@dataclass(frozen=True)
class SharedCopy:
    """A published copy: its intact files by digest, and the digests of its grants.

    `damaged` are the digests of its other files.
    """

    files: Mapping[str, SharedFile]
    grants: frozenset[str]
    damaged: frozenset[str] = frozenset()

    @classmethod
    def of(cls, manifest: Manifest, paths: Collection[str]) -> SharedCopy:
        """The copy with this manifest, of which the files at these paths are intact."""
        known = [
            SharedFile(file.path, file.size, file.sha256) for file in manifest.files if file.sha256
        ]
        files = {file.digest: file for file in known if file.path in paths}
        damaged = frozenset(file.digest for file in known if file.digest not in files)
        return cls(files, accepted(manifest.access), damaged)


@dataclass
class SharedDownload:
    """A download under way: its files by digest, in a folder, and the pieces that are written."""

    files: Mapping[str, SharedFile]
    grant: str
    folder: str
    pieces: dict[str, int] = field(default_factory=dict)
    # The pieces that are asked for at the origin.
    asked: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, grant: str, files: Iterable[SharedFile], folder: str) -> SharedDownload:
        """A download that has written nothing yet.

        Of files with the same content none is served: `wrote` would not tell which one it means.
        """
        found: dict[str, SharedFile | None] = {}
        for file in files:
            found[file.digest] = None if file.digest in found else file
        return cls({digest: file for digest, file in found.items() if file}, grant, folder)


class SharedModel:
    """The copy and the download of one model. The caller holds a lock."""

    def __init__(self) -> None:
        self.copy: SharedCopy | None = None
        self.download: SharedDownload | None = None
        self._changes = Changes()

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a copy nor a download."""
        return self.copy is None and self.download is None

    @property
    def size(self) -> int:
        """How many files it names."""
        return sum(len(part.files) for part in (self.copy, self.download) if part)

    def replace(self, copy: SharedCopy | None) -> None:
        """Replace what is known of the published copy."""
        former, self.copy = self.copy, copy
        old, new = (part.files if part else {} for part in (former, copy))
        if former and copy and former.grants == copy.grants:
            self._changes.note(old.keys() ^ new.keys())
        else:
            self._changes.note({**old, **new})

    def begin(self, download: SharedDownload) -> None:
        """Begin a download, instead of a former one."""
        self.end()
        self.download = download

    def end(self) -> None:
        """Forget the download."""
        if self.download is not None:
            self._changes.note({**self.download.asked, **self.download.pieces})
            self.download = None

    def wrote(self, digest: str, pieces: int) -> bool:
        """Add pieces of a file of the download. False if nothing has changed."""
        download = self.download
        file = download.files.get(digest) if download else None
        if download is None or file is None:
            return False
        had = download.pieces.get(digest, 0)
        has = (had | pieces) & all_pieces(file.size)
        # An empty file has no pieces, and is there with the first word of it.
        if has == had and digest in download.pieces:
            return False
        download.pieces[digest] = has
        self._changes.note([digest])
        return True

    def asks(self, digest: str, pieces: int) -> bool:
        """Replace the pieces of a file that are asked for at the origin. False if none changed."""
        download = self.download
        if download is None or digest not in download.files:
            return False
        if download.asked.get(digest, 0) == pieces:
            return False
        download.asked[digest] = pieces
        self._changes.note([digest])
        return True

    def lost(self, digest: str) -> bool:
        """Forget all pieces of a file of the download. False if nothing has changed."""
        if self.download is None or not self.download.pieces.get(digest):
            return False
        self.download.pieces[digest] = 0
        self._changes.note([digest])
        return True

    def copy_for(self, grant: str) -> SharedCopy | None:
        """The published copy, if a grant allows it."""
        return self.copy if self.copy and grant in self.copy.grants else None

    def download_for(self, grant: str) -> SharedDownload | None:
        """The download, if it is one for this grant."""
        return self.download if self.download and grant == self.download.grant else None

    def news(self, grant: str, after: int) -> tuple[int, dict[str, str]] | None:
        """The revision now, and the pieces of the files that have changed after another one.

        None if nothing has changed. Values are as on the wire: WHOLE, or a set of pieces in
        hexadecimal digits, and after a comma those that are asked for at the origin, if there are
        any. With a revision that is not known, all files that have pieces.
        """
        changes = self._changes
        is_new = not changes.knows(after)
        told: dict[str, str] = {}
        revision, room = changes.last, MAX_ANSWER
        for digest, changed in changes.since(after):
            if room < 0:
                return revision, told
            value = self._value(digest, grant)
            if value is not None and (value != NOTHING or not is_new):
                told[digest] = value
                room -= len(digest) + len(value)
            revision = changed
        return (changes.last, told) if told or is_new else None

    def _value(self, digest: str, grant: str) -> str | None:
        """The pieces of a file; None: the requester must not know of the file."""
        copy, download = self.copy_for(grant), self.download_for(grant)
        if copy and digest in copy.files:
            return WHOLE
        if download and digest in download.files:
            pieces = download.pieces.get(digest, 0)
            asked = download.asked.get(digest, 0) & ~pieces
            if pieces == all_pieces(download.files[digest].size):
                return WHOLE
            return f"{pieces:x},{asked:x}" if asked else f"{pieces:x}"
        return NOTHING if copy and digest in copy.damaged else None
