"""A LocalModelNode that is made of a file, for a loop without Kubernetes."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING

from localmodel.agent.cluster.node_api import ApiUnavailableError
from localmodel.agent.commands.models_file import ModelsError, read_models
from localmodel.crds.base import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from localmodel.agent.cluster.node_api import NodeObject
    from localmodel.crds.node import LocalModel

LOOK_SECONDS = 2.0


class FileNode:
    """Access to the object that a file stands for: see agent.cluster.node_api.NodeApi.

    `told` gets each status that the loop reports, and the list that it is of; `wrong` what is the
    matter with the file, once. A wrong file leaves the object as it was.
    """

    def __init__(
        self,
        path: Path,
        *,
        told: Callable[[dict[str, Any], tuple[LocalModel, ...]], None],
        wrong: Callable[[str], None],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._path = path
        self._told = told
        self._wrong = wrong
        self._look_seconds = look_seconds
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
        """The object, of the file as it is now.

        Raises ApiUnavailableError for a wrong file: nothing is taken away on the word of an old
        one.
        """
        self._look()
        if self._problem:
            raise ApiUnavailableError(self._problem)
        return self._object()

    def write_status(self, version: str, status: dict[str, Any]) -> NodeObject | None:
        """Keep the status, and tell it."""
        with self._lock:
            if version != str(self._version):
                return None
            self._status = copy.deepcopy(status)
            self._version += 1
            stored, models = self._object(), self._models
            self._announce()
        self._told(status, models)
        return stored

    def watch(self, observe: Callable[[NodeObject | None], None], stopped: threading.Event) -> None:
        """Tell the object now, and after each change of the file."""
        with self._lock:
            self._observe = observe
            self._announce()
        # By the content: a mounted file and an editor's change in different ways.
        while not stopped.wait(self._look_seconds):
            self._look()

    def _look(self) -> None:
        try:
            models = read_models(self._path)
        except ModelsError as error:
            problem = str(error)
            if problem != self._problem:
                self._wrong(f"{problem}; the models stay as they were")
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
