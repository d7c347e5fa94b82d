"""Checks of a node's disk: what it may hold at any time, and what it must hold in the end."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.disk.on_disk import Found
from agent.disk.store import Store
from crds.keys import model_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

Tree = dict[str, bytes]

# The records of an evicted model. Without `evicted.json`, an attempt asks the source first.
_EVICTED = {"usage.json", "held.json", "evicted.json"}
_ASKED = {"journal.json", "progress-1", "files"}


@dataclass(frozen=True)
class Model:
    """A model at its source: its URI, and the files that a complete copy has.

    `hash` is the hash in the cache's spec, if it has one.
    """

    name: str
    uri: str
    files: Mapping[str, bytes]
    hash: str | None = None

    @property
    def key(self) -> str:
        """The model's folder below models/."""
        return model_key(self.uri)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return size_of(self.files)


@dataclass(frozen=True)
class Loss:
    """A loss: published bytes that were wrong or missing, or a changed foreign directory."""

    size: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} ({self.size} bytes)"


@dataclass
class Disk:
    """One root, and its expected content.

    `wanted` are the keys that must stay once they are complete, `kept` those that are complete.
    `before` is the content that a folder may still have from before the agent started, such as a
    damaged copy. In `mended` folders, each file may be as before or repaired. `evicted` models, and
    `blocked` ones, whose downloads fail, may leave records in the end, but no bytes.
    """

    root: Path
    models: Iterable[Model]
    foreign: Mapping[str, Tree] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    wanted: frozenset[str] = frozenset()
    before: Mapping[str, Tree] = field(default_factory=dict)
    mended: frozenset[str] = frozenset()
    evicted: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._models = {model.key: model for model in self.models}

    def losses(self, keys: Collection[str] | None = None) -> list[Loss]:
        """The losses now, in the folders of these keys, or in all of them.

        May be called at any moment between two calls of the agent.
        """
        folder = self.root / "models"
        # A copy that another thread finds complete meanwhile is not among the names yet.
        kept = sorted(self.kept)
        names = set(_names(folder)) if folder.exists() else set()
        asked = names if keys is None else names.intersection(keys)
        looked = (self._look(folder / name, name) for name in sorted(asked - self.foreign.keys()))
        found = [loss for loss in looked if loss is not None]
        volumes = self._volumes()
        views = volumes if keys is None else volumes.intersection(keys)
        shown = (self._look_at_view(key) for key in sorted(views))
        found += [loss for loss in shown if loss is not None]
        for name, files in self.foreign.items():
            is_asked = keys is None or name in keys
            if is_asked and read_tree(folder / name) != files:
                found.append(Loss(size_of(files), f"foreign directory {name} was touched"))
        gone = [self._models[key] for key in kept if key not in names]
        found += [Loss(m.size, f"{m.name} is wanted, and was taken away") for m in gone]
        return found

    def _look(self, path: Path, name: str) -> Loss | None:
        model, which = self._models.get(name), _identity(path)
        now = read_tree(path)
        if model and now == model.files:
            self.kept |= {name} & self.wanted
            return None
        if self._may_be(now, name) or _identity(path) != which:
            # Also where the folder was removed while it was read.
            return None
        if model is None:
            return Loss(size_of(now or {}), f"models/{name} is nobody's")
        return Loss(
            model.size, f"{model.name} is published and is not the model: {_short(now or {})}"
        )

    def _look_at_view(self, key: str) -> Loss | None:
        """A view is whole or missing, as its copy is."""
        path, model = self._view(key), self._models.get(key)
        which = _identity(path)
        now = read_tree(path)
        if (model and now == model.files) or self._may_be(now, key) or _identity(path) != which:
            return None
        return Loss(
            size_of(now or {}), f"volumes/{key} shows what is no model: {_short(now or {})}"
        )

    def _may_be(self, now: Tree | None, key: str) -> bool:
        """Whether a folder that is not the whole model is missing, as before, or being repaired."""
        model = self._models.get(key)
        if now is None or now == self.before.get(key):
            return True
        is_mended = model is not None and key in self.mended
        return is_mended and _is_between(now, self.before[key], self._models[key].files)

    def _volumes(self) -> set[str]:
        """The keys whose volumes have a folder; none where agents make no views."""
        folder = self.root / "volumes"
        names = _names(folder) if folder.exists() else []
        return {name for name in names if not name.startswith(".")}

    def _view(self, key: str) -> Path:
        return self.root / "volumes" / key / "models" / key

    def not_at_end(self, wanted: Iterable[Model]) -> tuple[list[Loss], list[str]]:
        """The missing models and the leftovers of a disk that should be in its final state."""
        lost, problems = [], []
        store = Store(self.root)
        keys = {model.key for model in wanted}
        for model in wanted:
            if read_tree(store.path(model.key)) != model.files:
                lost.append(Loss(model.size, f"{model.name} is wanted, and is not there"))
            copy = store.inspect(model.key)
            if copy.found is not Found.PUBLISHED or copy.manifest is None:
                problems.append(f"{model.name} is {copy.found}: {copy.problem}")
        strangers = set(_names(self.root / "models")) - keys - self.foreign.keys()
        problems += [f"models/{name} is not wanted, and is there" for name in sorted(strangers)]
        shown = self._volumes()
        lost += [
            Loss(model.size, f"the volume of {model.name} does not show it")
            for model in (wanted if shown else ())
            if read_tree(self._view(model.key)) != model.files
        ]
        beside = sorted(shown - keys - self.evicted - self.blocked)
        problems += [f"volumes/{name} is not wanted, and is there" for name in beside]
        problems += [f"{path} is left of a view" for path in (self.root / "volumes").glob(".*/*")]
        private = self.root / ".localmodel"
        for name in sorted(_names(private)):
            left = set(_names(private / name)) if name != "lock" else {"manifest.json"}
            if name in self.evicted and self._is_without_bytes(private / name, left):
                continue
            if name in self.blocked and left <= {"failed.json"}:
                continue
            if name not in keys | {"lock"}:
                problems.append(f".localmodel/{name} is left over: {sorted(left)}")
            elif left - {"usage.json", "scrub.json"} != {"manifest.json"}:
                problems.append(f".localmodel/{name} has {sorted(left)}")
        return lost, problems

    @staticmethod
    def _is_without_bytes(meta: Path, left: set[str]) -> bool:
        """Whether only the records of an evicted or failed model are left."""
        return left <= _EVICTED | _ASKED and not read_tree(meta / "files")


def _is_between(now: Tree, before: Tree, after: Mapping[str, bytes]) -> bool:
    """Whether each file is as before, or as it should be."""
    return all(
        now.get(path) in {before.get(path), after.get(path)} for path in {*now, *before, *after}
    )


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _identity(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def size_of(files: Mapping[str, bytes]) -> int:
    """The bytes of all files."""
    return sum(map(len, files.values()))


def read_tree(folder: Path) -> Tree | None:
    """The files below a folder, also those that are not regular; None without the folder."""
    try:
        return dict(_files(folder, ""))
    except FileNotFoundError:
        return None


def _files(folder: Path, prefix: str) -> Iterable[tuple[str, bytes]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            kind = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                yield from _files(folder / entry.name, name + "/")
            elif stat.S_ISREG(kind):
                yield name, (folder / entry.name).read_bytes()
            else:
                yield name, b"(no regular file)"


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put files below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _short(files: Mapping[str, bytes]) -> str:
    return ", ".join(f"{name} {len(content)} bytes" for name, content in sorted(files.items()))
