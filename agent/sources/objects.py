"""Models in stores of objects: a URI's path is the folder of many, or the name of one.

Such stores have no folders, only names with slashes in them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.sources.bodies import bounded
from agent.sources.markers import without_markers
from agent.structs.failures import DownloadError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.structs.remote import RemoteFile


def files_of(
    path: str,
    listed: Callable[[str], Iterable[RemoteFile]],
    alone: Callable[[str, str], Iterable[RemoteFile]],
    *,
    where: str,
    right: str,
    what: str = "object",
) -> tuple[RemoteFile, ...]:
    """The objects below `path/`, else the one object with that very name; no markers of folders.

    `model` is `model/...` or `model`, never `model-v2/...`. `listed(prefix)` are the objects whose
    names begin with the prefix, `alone(name, prefix)` is the object of a name or nothing; paths of
    both are the names without the prefix. `where` names the model, `right` what permits a listing
    and `what` an object in messages. Raises DownloadError, NotFound where there is no object, and
    what `listed` and `alone` raise.
    """
    folder = path.rstrip("/")
    prefix = f"{folder}/" if folder else ""
    # A path that ends with a slash is no object's name.
    name = path if folder == path else ""
    parent = path[: path.rfind("/") + 1]
    try:
        # Each is converted as soon as it comes: the store's description takes many times the room.
        found = [file for file in bounded(listed(prefix), where) if not _is_folder(file)]
    except DownloadError as error:
        found = []
        if name and error.refuses:
            # A client that may read an object need not be allowed to list.
            with suppress(DownloadError):
                found = list(alone(name, parent))
        if not found:
            raise _not_listed(error, right) from None
    else:
        if name and not found:
            found = _named(alone, name, parent)
    files = without_markers(found)
    if not files:
        raise DownloadError(
            FailureKind.NOT_FOUND,
            f"{where} has no {what}: check sourceModelUri, and that the model is there",
        )
    return files


def _named(
    alone: Callable[[str, str], Iterable[RemoteFile]], name: str, parent: str
) -> list[RemoteFile]:
    try:
        return list(alone(name, parent))
    except DownloadError as error:
        if error.kind is FailureKind.NOT_FOUND:
            return []
        raise


def _is_folder(file: RemoteFile) -> bool:
    return file.location.endswith("/")


def _not_listed(error: DownloadError, right: str) -> DownloadError:
    """A refused listing, with the right that permits it."""
    if not error.refuses:
        return error
    message = f"{error.message}. A folder is listed with {right}; one file is read without it"
    return DownloadError(error.kind, message, retry_after=error.retry_after, hides=error.hides)
