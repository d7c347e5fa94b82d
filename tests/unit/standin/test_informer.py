from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.kube.errors import GoneError, NotFoundError, UnansweredError
from deploy.kube.kinds import Kind
from deploy.local.standin import informer as module
from deploy.local.standin.informer import Informer, Informers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.kube.client import KubeClient

THINGS = Kind("x.dev/v1", "things", "Thing", namespaced=False)


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class FakeApi:
    """Returns scripted lists and watches in turn; after the last, a watch blocks until closed."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.versions: list[str] = []
        self.closed = threading.Event()

    def _next(self) -> Any:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def snapshot(self, resource: Kind) -> tuple[tuple[dict[str, Any], ...], str]:
        assert resource == THINGS
        version, *items = self._next()
        return tuple(items), str(version)

    def watch(
        self, resource: Kind, version: str, *, seconds: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        assert resource == THINGS
        assert seconds
        self.versions.append(version)
        if not self.script:
            self.closed.wait(5)
            return
        yield from self._next()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def follow(api: FakeApi) -> list[tuple[str | None, str | None]]:
    """The calls of a handler during a script: old and new resourceVersion."""
    seen: list[tuple[str | None, str | None]] = []

    def version(obj: dict[str, Any] | None) -> str | None:
        return str(obj["metadata"]["resourceVersion"]) if obj else None

    informer = Informer(cast("KubeClient", api), THINGS)
    informer.subscribe("test", lambda old, new: seen.append((version(old), version(new))))
    informer.start()
    wait_for(lambda: not api.script)
    informer._changes.put(None)  # ends the dispatch when all the changes are through
    wait_for(informer._changes.empty)
    with informer._handling:
        informer.stop()
    api.closed.set()
    return seen


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(module, "MAX_BACKOFF", 0.001)


def test_watch_events_and_bookmarks() -> None:
    events = [
        ("ADDED", thing("b", 6)),
        ("MODIFIED", thing("a", 7)),
        ("BOOKMARK", thing("", 9)),
        ("DELETED", thing("b", 10)),
    ]
    api = FakeApi([5, thing("a", 1)], events, [])
    assert follow(api) == [(None, "1"), (None, "6"), ("1", "7"), ("10", None)]
    assert api.versions[:2] == ["5", "10"]


def test_a_broken_watch_goes_on_from_the_last_bookmark() -> None:
    api = FakeApi([5], [("BOOKMARK", thing("", 9))], UnansweredError("watching", "cut off"), [])
    follow(api)
    assert api.versions[:3] == ["5", "9", "9"]


def test_an_expired_version_means_a_new_list() -> None:
    expired = GoneError("watching things", "too old", 410, "Expired")
    first = [5, thing("same", 1), thing("changed", 2), thing("gone", 3)]
    second = [20, thing("same", 1), thing("changed", 11), thing("new", 12)]
    api = FakeApi(first, expired, second, [])
    assert follow(api)[3:] == [("3", None), ("2", "11"), (None, "12")]
    assert api.versions[:2] == ["5", "20"]


def test_a_kind_that_is_not_served_is_tried_again() -> None:
    gone = NotFoundError("listing things", "no such kind", 404)
    api = FakeApi(gone, gone, [5, thing("a", 1)], [])
    assert follow(api) == [(None, "1")]


def test_a_handler_that_fails_does_not_stop_the_others() -> None:
    api = FakeApi([5, thing("a", 1)], [])
    seen: list[object] = []
    informer = Informer(cast("KubeClient", api), THINGS)

    def fails(old: object, new: object) -> None:
        raise RuntimeError(str((old, new)))

    informer.subscribe("one", fails)
    informer.subscribe("two", lambda _, new: seen.append(new))
    informer.start()
    wait_for(lambda: bool(seen))
    informer.stop()
    api.closed.set()


def test_a_late_handler_sees_what_is_there() -> None:
    informer = Informer(cast("KubeClient", FakeApi()), THINGS)
    informer.store.put(thing("a", 1))
    seen: list[object] = []
    informer.subscribe("late", lambda old, new: seen.append((old, new)))
    assert seen == [(thing("a", 1), thing("a", 1))]


def test_informers_are_shared_until_the_last_user_goes() -> None:
    api = FakeApi([5], [])
    informers = Informers(cast("KubeClient", api))
    one, two = informers.acquire(THINGS), informers.acquire(THINGS)
    assert one is two
    informers.release(one)
    assert not two._stopped.is_set()
    informers.release(two)
    assert two._stopped.is_set()
    api.closed.set()
