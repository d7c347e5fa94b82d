"""Markers of folders: objects that stand for a folder in stores that have none.

Consoles and tools make them: `dir/`, an empty `dir` beside `dir/file`, and Hadoop's empty
`dir_$folder$`. None of them is a file of a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.manifest import folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.structs.remote import RemoteFile

_HADOOP = "_$folder$"


def without_markers(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files of a listing that are no markers of folders."""
    empty = {file.path for file in files if not file.size and file.size is not None}
    if not empty:
        return tuple(files)
    markers = {path for path in empty if path.endswith(_HADOOP)}
    markers |= empty & folders(file.path for file in files)
    return tuple(file for file in files if file.path not in markers)
