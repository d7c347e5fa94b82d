"""A LocalModelNode that is made from a file, for a loop without Kubernetes."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING

from agent.cluster.node_api import ApiUnavailableError
from agent.commands.models_file import ModelsError, read_models
from crds.base import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from agent.cluster.node_api import NodeObject
    from crds.node import LocalModel

POLL_SECONDS = 2.0


class FileNode:
    """A NodeApi (agent.cluster.node_api) whose LocalModelNode is made from a models file.

    `on_status` gets each status that the loop writes, with the models that the status is for.
    `on_problem` gets the message about an invalid file, once. An invalid file leaves the object
    as it was.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_status: Callable[[dict[str, Any], tuple[LocalModel, ...]], None],
        on_problem: Callable[[str], None],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._path = path
        self._on_status = on_status
        self._on_problem = on_problem
        self._poll_seconds = poll_seconds
        self._lock = threading.RLock()
        self._observe: Callable[[NodeObject | None], None] | None = None
        self._problem = ""
        self._version = 0
        self._generation = 0
        self._models: tuple[LocalModel, ...] = ()
        self._status: dict[str, Any] = {}

    def load(self) -> None:
        """Read the file for the first time. Raises ModelsError."""
        self._set(read_models(self._path))

    def read(self) -> NodeObject:
        """The object, made from the file as it is now.

        Raises ApiUnavailableError for an invalid file: no model is removed because of an earlier
        content of the file.
        """
        self._poll()
        if self._problem:
            raise ApiUnavailableError(self._problem)
        return self._object()

    def write_status(self, version: str, status: dict[str, Any]) -> NodeObject | None:
        """Store the status of the object, and report it."""
        with self._lock:
            if version != str(self._version):
                return None
            self._status = copy.deepcopy(status)
            self._version += 1
            stored, models = self._object(), self._models
            self._announce()
        self._on_status(status, models)
        return stored

    def watch(self, observe: Callable[[NodeObject | None], None], stopped: threading.Event) -> None:
        """Call `observe` with the object now, and after each change of the file."""
        with self._lock:
            self._observe = observe
            self._announce()
        # The content is compared: mounts and editors change a file's inode and times differently.
        while not stopped.wait(self._poll_seconds):
            self._poll()

    def _poll(self) -> None:
        try:
            models = read_models(self._path)
        except ModelsError as error:
            problem = str(error)
            if problem != self._problem:
                self._on_problem(f"{problem}; the models stay as they were")
            self._problem = problem
            return
        self._problem = ""
        with self._lock:
            if models != self._models:
                self._set(models)
                self._announce()

    def _set(self, models: tuple[LocalModel, ...]) -> None:
        self._models = models
        self._generation += 1
        self._version += 1

    def _announce(self) -> None:
        if self._observe is not None:
            self._observe(self._object())

    def _object(self) -> NodeObject:
        with self._lock:
            return {
                "apiVersion": API_VERSION,
                "kind": "LocalModelNode",
                "metadata": {
                    "name": "localhost",
                    "uid": "file",
                    "generation": self._generation,
                    "resourceVersion": str(self._version),
                },
                "spec": {"localModels": [model.to_json() for model in self._models]},
                "status": copy.deepcopy(self._status),
            }
