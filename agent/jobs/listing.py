"""Checks and views of the listing of a source. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.jobs.archive.model import archive_of
from agent.structs.failures import DownloadError, FailureKind, public_uri
from agent.structs.manifest import check_path, folders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.structs.manifest import ManifestFile
    from agent.structs.remote import Body, RemoteFile, RemoteModel


class PartialListing:
    """Some files of a listing."""

    def __init__(self, files: tuple[RemoteFile, ...], whole: RemoteModel) -> None:
        self.files = files
        self.origin, self.version = whole.origin, whole.version
        self.read = whole.read


class InOneAnswer:
    """A listing whose files are read in one answer each, of any version.

    Servers behind one address may have different ETags for the same file: its ranges could never be
    pinned to one version.
    """

    def __init__(self, whole: RemoteModel) -> None:
        self._whole = whole
        self.files = tuple(replace(file, ranges=False) for file in whole.files)
        self.origin, self.version = whole.origin, whole.version

    def read(self, file: RemoteFile, start: int, end: int | None) -> Body:
        """The bytes of a file."""
        return self._whole.read(replace(file, version=None), start, end)


def is_archive(remote: RemoteModel) -> bool:
    """Whether the model is one archive, to be unpacked. Archives among other files are not."""
    return not isinstance(remote, PartialListing) and archive_of(remote.files) is not None


def total_size(files: Sequence[RemoteFile]) -> int | None:
    """The size of all files together; None if the size of one is unknown."""
    sizes = [file.size for file in files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def is_listed(file: RemoteFile, former: Mapping[str, ManifestFile]) -> bool:
    """Whether a file is among the former ones, with the same size and version."""
    before = former.get(file.path)
    return before is not None and (file.size, file.version) == (before.size, before.version)


def check_tree(files: Sequence[RemoteFile], uri: str) -> None:
    """Raise DownloadError (Unsupported) if these cannot be the files of one folder.

    An object store may have both `a` and `a/b`, or `../a`.
    """
    for file in files:
        try:
            check_path(file.path)
        except ValueError as error:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(uri)} cannot be stored: {error}; rename it at the source",
            ) from None
        if file.size is not None and file.size < 0:
            raise DownloadError(
                FailureKind.UNSUPPORTED,
                f"{public_uri(uri)} lists {file.path!r} with {file.size} bytes: mend the source's "
                "listing",
            )
    paths = {file.path for file in files}
    twice = sorted(paths & folders(paths))
    if twice or len(paths) != len(files):
        name = twice[0] if twice else "a path"
        raise DownloadError(
            FailureKind.UNSUPPORTED,
            f"{public_uri(uri)} cannot be stored: it has {name!r} twice, as a file and as a folder "
            "or as two files; rename one at the source",
        )
