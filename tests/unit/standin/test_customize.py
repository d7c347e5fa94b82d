from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.kube.kinds import NODES, PODS
from deploy.local.standin.customize import ANSWER_SECONDS, AnswerCache, Customizer
from deploy.local.standin.errors import NotServedError, RelatedNotSyncedError, SyncError
from deploy.local.standin.rules import CustomizeAnswer
from deploy.local.standin.store import Store

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind
    from deploy.local.standin.discovery import Discovery
    from deploy.local.standin.informer import Informers
    from deploy.local.standin.webhook import HookClient


def test_customize_answers_hold_for_a_generation_and_twenty_minutes() -> None:
    now = [0.0]
    cache = AnswerCache(lambda: now[0])
    parent = {"metadata": {"uid": "u", "generation": 1}}
    assert cache.get(parent) is None
    cache.set(parent, [])
    assert cache.get(parent) == []
    assert cache.get({"metadata": {"uid": "u", "generation": 2}}) is None
    now[0] = ANSWER_SECONDS
    assert cache.get(parent) is None


PARENT: dict[str, Any] = {"metadata": {"name": "p", "uid": "u"}}


class FakeDiscovery:
    def resource(self, api_version: str, plural: str) -> Kind:
        for kind in (PODS, NODES):
            if (api_version, plural) == (kind.api_version, kind.plural):
                return kind
        raise NotServedError(plural)


class FakeInformer:
    def __init__(self) -> None:
        self.store = Store()
        self.synced = True
        self.handler: Any = None

    def subscribe(self, owner: object, handler: object) -> None:
        assert owner
        self.handler = handler

    def unsubscribe(self, owner: object) -> None:
        assert owner
        self.handler = None


class FakeInformers:
    def __init__(self) -> None:
        self.informer = FakeInformer()
        self.acquired: list[Kind] = []
        self.released = 0

    def acquire(self, resource: Kind) -> FakeInformer:
        self.acquired.append(resource)
        return self.informer

    def release(self, informer: FakeInformer) -> None:
        assert informer is self.informer
        self.released += 1


class FakeHook:
    def __init__(self, *rules: dict[str, Any]) -> None:
        self.answer = CustomizeAnswer.model_validate({"relatedResources": list(rules)})
        self.requests: list[dict[str, Any]] = []

    def call(self, request: dict[str, Any], _: type[CustomizeAnswer]) -> CustomizeAnswer:
        self.requests.append(request)
        return self.answer


class Setup:
    def __init__(self, *rules: dict[str, Any]) -> None:
        self.hook = FakeHook(*rules)
        self.informers = FakeInformers()
        self.queued: list[dict[str, Any]] = []
        self.customizer = Customizer(
            {"kind": "CompositeController"},
            cast("HookClient", self.hook),
            cast("Discovery", FakeDiscovery()),
            cast("Informers", self.informers),
            parents=lambda: [PARENT],
            enqueue=self.queued.append,
        )


def pod(name: str, version: int = 1, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "labels": labels, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


ALL = {"apiVersion": "v1", "resource": "pods"}
LABELLED = {**ALL, "labelSelector": {"matchLabels": {"k": "v"}}}


def test_related_objects_by_kind_and_key() -> None:
    setup = Setup(LABELLED)
    assert setup.customizer.related(PARENT) == {"Pod.v1": {}}
    for one in (pod("a", k="v"), pod("b")):
        setup.informers.informer.store.put(one)
    assert setup.customizer.related(PARENT) == {"Pod.v1": {"n/a": pod("a", k="v")}}
    assert setup.hook.requests == [
        {"controller": {"kind": "CompositeController"}, "parent": PARENT}
    ]


def test_a_change_requeues_parents_that_selected_the_object_before_or_after() -> None:
    setup = Setup(LABELLED)
    setup.customizer.related(PARENT)
    changed = setup.informers.informer.handler
    for old, new, times in (
        (None, pod("a", 1), 0),
        (pod("a", 1), pod("a", 2, k="v"), 1),
        (pod("a", 2, k="v"), pod("a", 3), 1),
        (pod("a", 3), pod("a", 4), 0),
        (pod("a", 4, k="v"), None, 1),
        (pod("a", 5, k="v"), pod("a", 5, k="v"), 0),  # a resync
    ):
        setup.queued.clear()
        changed(old, new)
        assert len(setup.queued) == times


def test_a_related_kind_that_is_not_served_fails_the_sync() -> None:
    with pytest.raises(NotServedError):
        Setup({"apiVersion": "v1", "resource": "ghosts"}).customizer.related(PARENT)


def test_a_related_kind_that_is_not_synced_yet() -> None:
    setup = Setup(ALL)
    setup.informers.informer.synced = False
    with pytest.raises(RelatedNotSyncedError):
        setup.customizer.related(PARENT)


def test_all_related_kinds_sync_at_the_same_time() -> None:
    setup = Setup(ALL, {"apiVersion": "v1", "resource": "nodes"})
    setup.informers.informer.synced = False
    with pytest.raises(RelatedNotSyncedError):
        setup.customizer.related(PARENT)
    assert setup.informers.acquired == [PODS, NODES]


def test_a_refused_rule_fails_the_sync() -> None:
    with pytest.raises(SyncError, match="cannot have both"):
        Setup({**LABELLED, "names": ["a"]}).customizer.related(PARENT)


def test_informers_are_given_back_once() -> None:
    setup = Setup(ALL, LABELLED)
    setup.customizer.related(PARENT)
    setup.customizer.stop()
    assert setup.informers.released == 1
    assert setup.informers.informer.handler is None
    with pytest.raises(SyncError, match="stopped"):
        setup.customizer.related(PARENT)
