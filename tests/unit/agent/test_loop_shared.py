"""A folder that caches of several origins share has the files of those whom it serves, or none."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.pod_mounts import PodMounts
from agent.control.node_events import display_names
from agent.control.removals import _tellable
from agent.sources import Sources
from agent.sources.s3 import S3Source
from agent.sources.transport import Transports
from agent.structs.credentials import Credentials
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.manifest import CacheName
from agent.structs.records import Evicted
from agent.structs.sizes import EvictionReason
from crds.keys import model_key
from tests.unit.agent.crowded import Pods
from tests.unit.agent.helpers import local_model, set_aws, tree
from tests.unit.agent.servers import Buckets, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.structs.requests import Requester
    from crds.node import LocalModel
    from tests.unit.agent.servers import Handler, Server
    from tests.unit.agent.world import World

pytestmark = pytest.mark.usefixtures("no_waiting")

URI = "s3://bucket/model"
KEY = model_key(URI)
TRUE = {"config": b"{}", "weights": b"true" * 50_000}
# As long as the true ones.
FALSE = {"config": b"[]", "weights": b"evil" * 50_000}
CLOSED = (403, "AccessDenied")


@dataclass
class Stores:
    """The store that all mean, and one of the tenant `thief`, who names it in its cache."""

    world: World
    true: Buckets
    own: Buckets
    servers: dict[str, Server]

    def entry(self, namespace: str, **fields: Any) -> LocalModel:
        parameters = {"endpoint_url": self.servers["own"].url} if namespace == "thief" else None
        storage = {"key": "s3", "parameters": parameters}
        return local_model("m", URI, namespace=namespace, storage=storage, **fields)

    def want(self, *namespaces: str, **fields: Any) -> None:
        self.world.want(*(self.entry(one, **fields) for one in namespaces))
        self.world.settle()

    def later(self, seconds: float = 400.0) -> None:
        self.world.step(seconds)
        self.world.settle()

    def told(self, namespace: str) -> dict[str, Any]:
        models = self.world.status()["models"]
        return next(one for one in models if one.get("namespace", "") == namespace)

    @property
    def tree(self) -> dict[str, bytes] | None:
        return tree(self.world.store, KEY)

    def mount(self, *names: str, namespace: str = "thief") -> None:
        """Pods of a namespace mount the model, or none does."""
        pods = [PodMounts(namespace, name, frozenset(), frozenset({KEY})) for name in names]
        self.world.loop.observe_pods(tuple(pods))
        self.world.step()


@pytest.fixture
def stores(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    set_aws(monkeypatch, "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL")

    def bucket(files: dict[str, bytes]) -> Buckets:
        return Buckets({"bucket": {f"model/{path}": data for path, data in files.items()}})

    true, own = bucket(TRUE), bucket(FALSE)
    with serving(true) as there, serving(own) as here:

        def credentials(requester: Requester) -> Credentials:
            named = dict(requester.credentials.parameters) if requester.credentials else {}
            settings = {
                "AWS_ENDPOINT_URL": named.get("endpoint_url", there.url),
                "AWS_ACCESS_KEY_ID": requester.namespace or "admin",
                "AWS_SECRET_ACCESS_KEY": "s3cret",
            }
            return Credentials.of(settings)

        world.credentials = credentials
        world.sources = Sources({"s3": S3Source(Transports(max_connections=2))})
        world.restart()
        yield Stores(world, true, own, {"true": there, "own": here})


@pytest.mark.parametrize("refuse", [CLOSED, (404, "NoSuchBucket"), (500, "InternalError")])
def test_no_tenant_fills_the_folder_of_a_cluster_cache_whose_source_fails(
    stores: Stores, refuse: tuple[int, str]
) -> None:
    stores.true.refuse = refuse
    stores.want("", "thief")
    for _ in range(3):
        stores.later()
    assert stores.tree is None
    assert stores.told("")["state"] == "Failed"
    thief = stores.told("thief")
    assert (thief["state"], thief["reason"]) == ("Pending", "AwaitingLocalModelCache")
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("")["cached"] is True
    assert stores.told("thief")["reason"] == "OtherVersion"


@pytest.mark.parametrize("refuse", [CLOSED, (500, "InternalError")])
def test_no_tenant_fills_the_folder_of_an_older_cache_whose_source_fails(
    stores: Stores, refuse: tuple[int, str]
) -> None:
    """Its claim may lead there already, and be bound."""
    stores.true.refuse = refuse
    entries = stores.entry("victim"), stores.entry("thief", precedence=1, retention="Pinned")
    stores.world.want(*entries)
    stores.world.settle()
    for _ in range(3):
        stores.later()
    assert stores.tree is None
    assert stores.told("victim")["state"] == "Failed"
    thief = stores.told("thief")
    assert (thief["state"], thief["reason"]) == ("Pending", "AwaitingOlderCache")
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("victim")["cached"] is True
    assert stores.told("thief")["reason"] == "OtherVersion"


@pytest.mark.parametrize("refuse", [CLOSED, (500, "InternalError"), None])
def test_a_tenants_copy_that_came_first_serves_no_cluster_cache(
    stores: Stores, refuse: tuple[int, str] | None
) -> None:
    stores.want("thief")
    assert stores.tree == FALSE
    stores.true.refuse = refuse
    stores.want("", "thief")
    assert stores.tree is None
    assert not stores.told("")["cached"]
    assert not stores.told("thief")["cached"]
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("")["cached"] is True
    assert not stores.told("thief")["cached"]


def test_a_tenants_copy_that_a_pod_mounts_stays_and_is_told_as_nobody_elses(
    stores: Stores,
) -> None:
    stores.want("thief")
    stores.mount("server")
    stores.want("", "thief")
    for _ in range(2):
        stores.later()
    assert stores.tree == FALSE
    admin = stores.told("")
    assert (admin["state"], admin["reason"], admin["cached"]) == ("Failed", "OtherVersion", False)
    assert "once no pod of the node mounts the copy" in admin["message"]
    stores.mount()
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("")["cached"] is True


def test_a_pod_that_the_watch_has_not_told_of_keeps_a_copy_too(stores: Stores) -> None:
    world = stores.world
    pods = world.pods = Pods(lambda: world.loop)
    world.restart()
    stores.mount()
    stores.want("thief")
    pods.now = (PodMounts("thief", "server", frozenset(), frozenset({KEY})),)
    stores.want("", "thief")
    stores.later()
    assert stores.tree == FALSE
    pods.now = ()
    stores.mount()
    stores.later()
    assert stores.tree == TRUE


def test_what_is_read_anew_before_a_copy_is_set_aside_is_reported_though_the_copy_stays(
    stores: Stores,
) -> None:
    world = stores.world
    stores.want("thief")
    pods = world.pods = Pods(lambda: world.loop)
    # No download runs, of which each step would see how far it is.
    world.options = {"max_downloads": 0}
    world.restart()
    stores.mount()
    pods.now = None
    stores.want("", "thief")
    assert stores.tree == FALSE
    assert world.api.node is not None
    node = copy.deepcopy(world.api.node)
    more = local_model("more", "s3://bucket/other").to_json()
    node["spec"]["localModels"].append(more)
    node["metadata"]["generation"] += 1
    world.api.store(node)
    world.step(10)
    assert stores.tree == FALSE
    assert world.status()["observedGeneration"] == node["metadata"]["generation"]
    assert "more" in world.states()


def test_the_same_copy_is_given_to_a_cluster_cache_and_never_leaves(stores: Stores) -> None:
    stores.want("team")
    inode = (stores.world.store.path(KEY) / "weights").stat().st_ino
    stores.want("", "team")
    assert stores.told("")["cached"] is True
    assert stores.told("team")["cached"] is True
    assert (stores.world.store.path(KEY) / "weights").stat().st_ino == inode


def test_what_was_set_aside_comes_back_without_a_byte(stores: Stores) -> None:
    stores.want("team")
    stores.true.refuse = CLOSED
    stores.want("", "team")
    assert stores.tree is None
    stores.true.refuse = None
    fetched: list[str] = []

    def note(_: Handler, key: str) -> bool:
        fetched.append(key)
        return True

    stores.true.before_get = note
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("")["cached"] is True
    # A byte of each, for the namespace.
    assert sorted(fetched) == [f"model/{path}" for path in TRUE]


def test_a_tenants_download_is_broken_off_for_a_cluster_cache(stores: Stores) -> None:
    gate = threading.Event()

    def slow(_: Handler, key: str) -> bool:
        if key == "model/weights":
            gate.wait(20)
        return True

    stores.own.before_get = slow
    stores.world.want(stores.entry("thief"))
    stores.world.settle_until(
        lambda: any(path.endswith("weights") for _, path, _ in stores.servers["own"].seen)
    )
    stores.true.refuse = CLOSED
    stores.world.want(stores.entry(""), stores.entry("thief"))
    stores.world.step()
    gate.set()
    stores.world.settle()
    stores.later()
    assert stores.tree is None
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("victim", ["", "team"])
def test_no_other_server_repairs_a_copy(stores: Stores, victim: str, *, mounted: bool) -> None:
    stores.want(victim, "thief")
    assert stores.tree == TRUE
    assert stores.told("thief")["reason"] == "OtherVersion"
    if mounted:
        stores.mount("server")
    # Its server lists the same versions, and has another content.
    stores.own.objects = stores.true.objects

    def lie(handler: Handler, key: str) -> bool:
        handler.reply(206, FALSE[key.removeprefix("model/")])
        return False

    stores.own.before_get = lie
    (stores.world.store.path(KEY) / "weights").write_bytes(b"short")
    stores.true.refuse = CLOSED
    for _ in range(4):
        stores.later()
    assert "evil" not in str(stores.tree)
    assert stores.told(victim)["cached"] is False
    assert stores.told("thief")["cached"] is False
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE
    assert stores.told(victim)["cached"] is True


def test_an_evicted_copy_comes_back_from_its_own_server_only(stores: Stores) -> None:
    stores.want("team", "thief")
    note = Evicted(
        time=datetime.now(UTC), size=1, reason=EvictionReason.MADE_ROOM, message="for another"
    )
    stores.world.store.evict(KEY, note)
    stores.world.restart()
    stores.true.refuse = CLOSED
    stores.world.want(*(stores.entry(one, referenced=True) for one in ("team", "thief")))
    stores.world.settle()
    for _ in range(3):
        stores.later()
    assert stores.tree is None
    thief = stores.told("thief")
    assert (thief["state"], thief["reason"]) == ("Failed", "OtherVersion")
    assert "make a cache with another sourceModelUri" in thief["message"]
    stores.true.refuse = None
    stores.later()
    assert stores.tree == TRUE
    # Whose it was is asked for no longer: the folder is free.
    stores.want()
    for _ in range(3):
        stores.later()
    stores.want("thief")
    assert stores.tree == FALSE


def test_who_names_no_server_of_its_own_comes_first(stores: Stores) -> None:
    stores.world.want(stores.entry("thief", priority=100), stores.entry("team"))
    stores.world.settle()
    assert stores.tree == TRUE
    assert stores.told("team")["cached"] is True


@pytest.mark.timeout(60)  # five rounds with a source that fails
def test_what_another_has_fetched_is_completed_only_by_who_may_read_it(stores: Stores) -> None:
    gate = threading.Event()

    def half(handler: Handler, key: str) -> bool:
        signed = handler.path + str(handler.headers.get("Authorization"))
        if "spy" in signed and key == "model/config":
            stores.true._error(handler, *CLOSED)
            return False
        if "team" in signed and key == "model/weights" and not gate.is_set():
            stores.true._error(handler, 500, "InternalError")
            return False
        return True

    stores.true.before_get = half
    stores.world.want(stores.entry("team"), stores.entry("spy"))
    stores.world.settle()
    assert stores.tree is None
    for _ in range(3):
        stores.later()
    assert stores.told("spy")["reason"] == "Denied"
    assert stores.tree is None
    gate.set()
    for _ in range(2):
        stores.later()
    assert stores.tree == TRUE
    assert stores.told("team")["cached"] is True
    assert stores.told("spy")["cached"] is False


def test_who_may_list_and_not_read_has_no_copy(stores: Stores) -> None:
    def no_spy(handler: Handler, key: str) -> bool:
        signed = handler.path + str(handler.headers.get("Authorization"))
        if "spy" in signed and key == "model/weights":
            stores.true._error(handler, *CLOSED)
            return False
        return True

    stores.true.before_get = no_spy
    stores.want("team", "spy")
    assert stores.told("team")["cached"] is True
    spy = stores.told("spy")
    assert (spy["state"], spy["reason"], spy["cached"]) == ("Failed", "Denied", False)


def test_a_folder_of_somebody_else_is_not_given_for_a_list_of_its_sizes(stores: Stores) -> None:
    folder = stores.world.store.path(KEY)
    folder.mkdir()
    for path, data in TRUE.items():
        (folder / path).write_bytes(data)
    stores.want("thief")
    assert stores.told("thief")["reason"] == "ForeignDirectory"
    assert stores.tree == TRUE
    stores.want("team")
    stores.later()
    assert stores.told("team")["cached"] is True


def refuse(stores: Stores, *namespaces: str, code: tuple[int, str] = CLOSED) -> None:
    """The true store gives no object to these namespaces, and lists all."""

    def answer(handler: Handler, _: str) -> bool:
        signed = handler.path + str(handler.headers.get("Authorization"))
        if any(f"{one}/2" in signed or f"{one}%2F" in signed for one in namespaces):
            stores.true._error(handler, *code)
            return False
        return True

    stores.true.before_get = answer


def test_what_a_source_takes_back_is_its_namespaces_no_more(stores: Stores) -> None:
    stores.want("team", "rival")
    assert stores.told("rival")["cached"] is True
    refuse(stores, "rival")
    stores.later(3000)
    assert stores.told("rival")["cached"] is True
    stores.later(600)
    rival = stores.told("rival")
    assert (rival["state"], rival["reason"], rival["cached"]) == ("Failed", "Denied", False)
    assert rival.keys().isdisjoint({"size", "hash", "diskBytes"})
    assert stores.told("team")["cached"] is True
    assert stores.tree == TRUE
    refuse(stores)
    stores.later()
    assert stores.told("rival")["cached"] is True


def test_what_is_taken_back_from_all_goes_when_no_pod_mounts_it(stores: Stores) -> None:
    stores.want("team")
    stores.mount("server", namespace="team")
    refuse(stores, "team")
    stores.later(3600)
    assert stores.told("team")["reason"] == "Denied"
    assert stores.tree == TRUE
    stores.mount()
    stores.later()
    assert stores.tree is None
    assert stores.told("team")["cached"] is False
    # After a restart too.
    stores.world.restart()
    stores.mount()
    stores.want("team")
    assert stores.tree is None
    fetched: list[str] = []

    def note(_: Handler, key: str) -> bool:
        fetched.append(key)
        return True

    stores.true.before_get = note
    stores.later()
    assert stores.tree == TRUE
    assert stores.told("team")["cached"] is True
    # A byte of each.
    assert sorted(fetched) == [f"model/{path}" for path in TRUE]


@pytest.mark.timeout(60)  # a source that throttles is asked again after real seconds
@pytest.mark.parametrize("code", [(500, "InternalError"), (404, "NoSuchKey"), (503, "SlowDown")])
def test_a_source_that_is_away_takes_nothing_back(stores: Stores, code: tuple[int, str]) -> None:
    stores.want("team")
    stores.true.refuse = code
    for _ in range(3):
        stores.later(3600)
    assert stores.told("team")["cached"] is True
    assert stores.tree == TRUE


def test_credentials_that_changed_are_asked_about_soon(stores: Stores) -> None:
    stores.want("team", "rival")
    stores.later(700)
    former = stores.world.credentials

    def rotated(requester: Requester) -> Credentials:
        found = former(requester)
        if requester.namespace != "rival":
            return found
        return Credentials.of(dict(found.items) | {"AWS_ACCESS_KEY_ID": "stranger"})

    stores.world.credentials = rotated
    refuse(stores, "stranger")
    stores.later(700)
    assert stores.told("rival")["reason"] == "Denied"
    assert stores.told("team")["cached"] is True


def test_a_list_of_namespaces_that_no_longer_has_it_takes_it_back(stores: Stores) -> None:
    stores.want("team", "rival")
    former = stores.world.credentials

    def unlisted(requester: Requester) -> Credentials:
        if requester.namespace == "rival":
            raise DownloadError(FailureKind.DENIED, "the key is not for the namespace rival")
        return former(requester)

    stores.world.credentials = unlisted
    stores.later(700)
    assert stores.told("rival")["reason"] == "Denied"
    assert stores.told("team")["cached"] is True


def test_events_and_failures_tell_nobody_of_anothers_copy(stores: Stores) -> None:
    stores.want("team", "thief")
    weights = stores.world.store.path(KEY) / "weights"
    weights.write_bytes(b"x" * 9_999)
    stores.true.refuse = CLOSED
    stores.later()
    note = stores.told("thief")
    assert "weights" not in str(note)
    assert "9999" not in str(note)
    for event in stores.world.events:
        if "thief/m" in event.message:
            assert event.reason == "DownloadFailed"
            assert "weights" not in event.message


def test_a_folder_of_somebody_else_is_described_to_the_administrator_alone(
    stores: Stores,
) -> None:
    folder = stores.world.store.path(KEY)
    folder.mkdir()
    (folder / "weights").write_bytes(b"private")
    stores.want("", "team")
    assert "'weights' has 7 bytes there" in stores.told("")["message"]
    stores.world.want(stores.entry("team"))
    stores.later()
    team = stores.told("team")
    assert team["reason"] == "ForeignDirectory"
    assert "weights" not in team["message"]
    assert not [e for e in stores.world.events if "team/m" in e.message and "weights" in e.message]


@pytest.mark.parametrize(
    ("newcomer", "text"), [("team", "team/b"), ("rival", "a model"), ("", "b")]
)
def test_an_eviction_names_no_other_namespaces_cache(newcomer: str, text: str) -> None:
    found = _tellable(
        [CacheName(name="b", namespace=newcomer)], [CacheName(name="a", namespace="team")]
    )
    assert display_names(found) == text
