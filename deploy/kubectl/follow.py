"""Keeps a snapshot up to date: after one list of each kind, only changes are read."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from deploy.kube import meta
from deploy.kube.errors import ApiError, ForbiddenError, GoneError, NotFoundError
from deploy.kube.kinds import NODES, Kind, KubeObject
from deploy.kubectl.snapshot import (
    KINDS,
    Snapshot,
    list_kind,
    node_of_row,
    read_versions,
    snapshot_of,
)

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient

# The API server ends a watch after this time; a connection that broke unnoticed, too.
_WATCH_SECONDS = 60
# Before the next try after an error.
_PAUSE_SECONDS = 2.0
# Before the next try of a kind that the user may not read, or that does not exist.
_REFUSED_SECONDS = 30.0

# Of an object: its namespace and name.
_Key = tuple[str, str]


class Follower:
    """Watches all kinds, one thread for each. Call `close`, or use it as a context manager.

    It holds each object once, as the snapshot does.
    """

    def __init__(self, client: KubeClient, namespace: str = "") -> None:
        """Read everything once. Raises as `read`."""
        self._client = client
        self._namespace = namespace
        snapshot, versions = read_versions(client, namespace)
        self._ahead = snapshot.at - datetime.now(tz=UTC)
        self._objects: dict[str, dict[_Key, KubeObject]] = {
            kind.name: {_key(one): one for one in _of(snapshot, kind)} for kind in KINDS
        }
        self._forbidden = dict(snapshot.forbidden)
        self._absent = set(snapshot.absent)
        # By the name of the kind; empty while all watches run.
        self._broken: dict[str, str] = {}
        self._count = 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        for kind in KINDS:
            threading.Thread(
                target=self._follow, args=(kind, versions.get(kind.name)), daemon=True
            ).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Begin no further call. The threads end with their watches, or with the process."""
        self._stopped.set()

    @property
    def trouble(self) -> str:
        """Why a part of the snapshot may be out of date; empty if nothing is."""
        with self._changed:
            return next(iter(self._broken.values()), "")

    def snapshot(self) -> Snapshot:
        """The objects as they are now."""
        with self._changed:
            found = {kind: tuple(objects.values()) for kind, objects in self._objects.items()}
            return snapshot_of(
                found,
                at=datetime.now(tz=UTC) + self._ahead,
                forbidden=dict(self._forbidden),
                absent=self._absent,
            )

    def wait(self, seen: int, seconds: float) -> int:
        """Wait until the number of changes differs from `seen`, and return this number."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, seconds)
            return self._count

    def _follow(self, kind: Kind, version: str | None) -> None:
        while not self._stopped.is_set():
            pause = 0.0
            try:
                if version is None:
                    version = self._list(kind)
                version = self._watch(kind, version)
            except GoneError:
                version = None
            except (ForbiddenError, NotFoundError) as error:
                pause = _REFUSED_SECONDS
                if version is None or isinstance(error, NotFoundError):
                    self._refuse(kind, error)
                else:
                    # The user may list the kind, and not watch it.
                    self._break(kind, str(error))
                version = None
            except ApiError as error:
                version, pause = None, _PAUSE_SECONDS
                self._break(kind, str(error))
            except Exception as error:  # noqa: BLE001 - a thread that ends says nothing any more
                version, pause = None, _PAUSE_SECONDS
                self._break(kind, f"following {kind.plural}: {error!r}; please report this error")
            if pause:
                self._stopped.wait(pause)

    def _list(self, kind: Kind) -> str:
        objects, version = list_kind(self._client, kind, self._namespace)
        with self._changed:
            self._objects[kind.name] = {_key(one): one for one in objects}
            self._forbidden.pop(kind.name, None)
            self._absent.discard(kind.name)
            self._mended(kind)
        return version

    def _watch(self, kind: Kind, version: str) -> str | None:
        """Follow the changes after a version. Returns the last version, when the watch ends."""
        changes = self._client.watch(
            kind,
            version,
            self._namespace if kind.namespaced else "",
            seconds=_WATCH_SECONDS,
            table=kind == NODES,
        )
        for what, obj in changes:
            if self._stopped.is_set():
                break
            version = meta.resource_version(obj)
            if what == "BOOKMARK":
                continue
            found = node_of_row(obj["rows"][0]) if kind == NODES else obj
            with self._changed:
                if what == "DELETED":
                    self._objects[kind.name].pop(_key(found), None)
                else:
                    self._objects[kind.name][_key(found)] = found
                self._mended(kind)
        return version or None

    def _mended(self, kind: Kind) -> None:
        self._broken.pop(kind.name, None)
        self._count += 1
        self._changed.notify_all()

    def _break(self, kind: Kind, why: str) -> None:
        with self._changed:
            self._broken[kind.name] = why
            self._count += 1
            self._changed.notify_all()

    def _refuse(self, kind: Kind, error: ApiError) -> None:
        with self._changed:
            self._objects[kind.name] = {}
            if isinstance(error, ForbiddenError):
                self._forbidden[kind.name] = error.message
            else:
                self._absent.add(kind.name)
            self._mended(kind)


def _of(snapshot: Snapshot, kind: Kind) -> tuple[KubeObject, ...]:
    found = {
        "LocalModelCache": snapshot.caches,
        "LocalModelNamespaceCache": snapshot.namespace_caches,
        "LocalModelNodeGroup": snapshot.groups,
        "LocalModelNode": snapshot.local_model_nodes,
        "LocalModelPlacement": snapshot.placements,
        "Node": snapshot.nodes,
    }
    return found[kind.name]


def _key(obj: KubeObject) -> _Key:
    return (meta.namespace(obj), meta.name(obj))
