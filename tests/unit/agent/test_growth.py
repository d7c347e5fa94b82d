"""Nothing that the agent does in a step grows faster than what there is."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from agent.capacity.download_queue import decide_downloads
from agent.capacity.holdings import Group, Holding
from agent.capacity.ledger import Ledger
from agent.capacity.places import Places
from agent.cluster.node_api import parse_node
from agent.cluster.pod_mounts import PodMounts, PodUse, WaitingMount, users
from agent.control.rows import Row
from agent.control.status import StatusBuilder
from agent.control.step_plan import plan_step
from agent.control.waiting_pods import WaitingPods
from agent.disk.on_disk import Found, OnDisk
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import grant_for
from agent.structs.manifest import Access, CacheName
from agent.structs.sizes import Space
from crds.eviction import EvictionPolicy, EvictionSettings, Retention
from crds.node import LocalModel, LocalModelNodeGroupRef
from tests.unit.agent import inside
from tests.unit.agent.crowded import NoPods
from tests.unit.agent.growth import MANY, assert_grows_no_faster_than_its_input, calls
from tests.unit.agent.helpers import local_model, manifest_of
from tests.unit.agent.rows import table, wanted
from tests.unit.agent.world import PodLog, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agent.cluster.node_api import NodeObject
    from crds.node import LocalModelNode

TAKES = 4096
GONE = DownloadError(FailureKind.NOT_FOUND, "it is not there")


def entries(n: int) -> list[LocalModel]:
    return [
        local_model(f"m{i}", f"mem://origin/{i}", model_size=str(TAKES), priority=-i % 3)
        for i in range(n)
    ]


def group(limit: int, name: str = "gpus") -> LocalModelNodeGroupRef:
    settings = EvictionSettings(policy=EvictionPolicy.LRU)
    return LocalModelNodeGroupRef(name=name, storage_limit=str(limit), eviction=settings)


def lay(world: World, models: Sequence[LocalModel], access: Access | None = None) -> None:
    """Published copies, without the many writes of a publication."""
    for model in models:
        manifest = manifest_of(model.source_model_uri, {"w": b"x"})
        caches = (CacheName(name=model.model_name, node_group=model.node_group),)
        manifest = structs.replace(manifest, caches=caches, access=access)
        folder, meta = world.store.path(manifest.key), world.root / ".localmodel" / manifest.key
        folder.mkdir()
        (folder / "w").write_bytes(b"x")
        meta.mkdir(exist_ok=True)
        (meta / "manifest.json").write_bytes(manifest.encode())


def downloaded(world: World, models: list[LocalModel]) -> list[LocalModel]:
    lay(world, models)
    return models


def pending(_: World, models: list[LocalModel]) -> list[LocalModel]:
    return models


def suspended(_: World, models: list[LocalModel]) -> list[LocalModel]:
    return [model.model_copy(update={"suspend": True}) for model in models]


def failed(world: World, models: list[LocalModel]) -> list[LocalModel]:
    world.want(*models)
    world.loop.wait(world.seconds)
    state = inside.state(world.loop)
    for request in state.requests.values():
        state.retries.failed(request, request, GONE)
    return models


def without_room(world: World, models: list[LocalModel]) -> list[LocalModel]:
    """Half of them are pinned and fill the group."""
    half = len(models) // 2
    lay(world, models[:half])
    world.groups = (group(half * TAKES),)
    pinned = {"retention": Retention.PINNED}
    return [
        *(model.model_copy(update=pinned) for model in models[:half]),
        *(model.model_copy(update={"referenced": True}) for model in models[half:]),
    ]


def behind_others(world: World, models: list[LocalModel]) -> list[LocalModel]:
    """Half of them are here and could go for each of the others, whose retries are not due."""
    failed(world, models)
    lay(world, models[: len(models) // 2])
    world.groups = (group(len(models) // 2 * TAKES),)
    return models


def over_the_limit(world: World, models: list[LocalModel]) -> list[LocalModel]:
    lay(world, models)
    world.groups = (group(len(models) // 2 * TAKES),)
    return models


def mounted(world: World, models: list[LocalModel]) -> list[LocalModel]:
    lay(world, models)
    world.loop.observe_pods(
        tuple(
            PodMounts(
                "team", model.model_name, frozenset({f"{model.model_name}-gpus"}), frozenset()
            )
            for model in models
        )
    )
    return models


def of_many_namespaces(world: World, models: list[LocalModel]) -> list[LocalModel]:
    """One model, of which many caches have or ask for the copy."""
    shared = [
        local_model("m", models[0].source_model_uri, namespace=f"team-{i}")
        for i in range(len(models))
    ]
    asking = [entry.requester for entry in wanted(*shared).entries]
    grants = tuple(map(grant_for, asking[::2]))
    lay(world, shared[:1], Access(origin="mem://origin", listing="0", grants=grants))
    inside.checks(world.loop)._may_start = lambda namespace: not namespace  # type: ignore[method-assign]
    return shared


def in_many_groups(world: World, models: list[LocalModel]) -> list[LocalModel]:
    world.groups = tuple(group(1 << 30, model.model_name) for model in models)
    return [model.model_copy(update={"node_group": model.model_name}) for model in models]


def in_folders_of_others(world: World, models: list[LocalModel]) -> list[LocalModel]:
    for model in models:
        world.store.path(model.key).mkdir()
        (world.store.path(model.key) / "file").touch()
    return models


def no_longer_wanted(world: World, models: list[LocalModel]) -> list[LocalModel]:
    lay(world, models)
    return []


def shown(world: World, models: list[LocalModel]) -> list[LocalModel]:
    world.store.views.makes = True
    lay(world, models)
    world.store.recover()
    return models


def whose_volumes_are_left(world: World, models: list[LocalModel]) -> list[LocalModel]:
    shown(world, models)
    for model in models:
        world.store.remove(model.key)
    return []


@pytest.mark.parametrize(
    "situation",
    [
        downloaded,
        shown,
        whose_volumes_are_left,
        pending,
        suspended,
        failed,
        without_room,
        behind_others,
        over_the_limit,
        mounted,
        of_many_namespaces,
        in_many_groups,
        in_folders_of_others,
        no_longer_wanted,
    ],
)
@pytest.mark.timeout(60)  # steps of loops with hundreds of models
def test_a_step_of_the_loop(
    world: World, tmp_path: Path, situation: Callable[[World, list[LocalModel]], list[LocalModel]]
) -> None:
    def prepare(n: int) -> Callable[[], object]:
        other = World(tmp_path / str(n), world.web, world.server, engine=world.engine)
        other.pods = NoPods(lambda: other.loop)
        # Nothing starts: a download has a thread, and its time.
        other.options = {"max_downloads": 0}
        other.restart()
        other.groups = (group(1 << 30),)
        other.loop.observe_pods(())
        other.want(*situation(other, entries(n)))
        # The first look at the disk, and notes that are written then.
        other.step()
        other.loop.observe(copy.deepcopy(other.api.node))
        return lambda: other.step(1)

    assert_grows_no_faster_than_its_input(prepare)


@pytest.mark.parametrize(
    ("situation", "most"), [(downloaded, 90), (mounted, 100), (pending, 190), (failed, 170)]
)
def test_a_step_in_which_nothing_has_changed_is_short(
    world: World, situation: Callable[[World, list[LocalModel]], list[LocalModel]], most: int
) -> None:
    """With 500 models, so many calls for each are well below 20 ms."""
    world.pods = NoPods(lambda: world.loop)
    world.options = {"max_downloads": 0}
    world.restart()
    world.groups = (group(1 << 30),)
    world.loop.observe_pods(())
    world.want(*situation(world, entries(MANY)))
    world.step()
    world.step(1)
    before = dict(inside.state(world.loop)._rows)
    assert calls(lambda: world.step(1)) <= most * MANY
    assert len(before) == MANY
    after = inside.state(world.loop)._rows
    assert all(after[key] is row for key, row in before.items())


def test_the_list_of_models_is_walked_once_for_each_version_of_the_object(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = 0

    class Walked(tuple[LocalModel, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[LocalModel]:
            nonlocal walks
            walks += 1
            return super().__iter__()

    def parse(found: NodeObject) -> LocalModelNode | None:
        node = parse_node(found)
        if node is None:
            return None
        spec = node.spec.model_copy(update={"local_models": Walked(node.spec.local_models)})
        return node.model_copy(update={"spec": spec})

    monkeypatch.setattr("agent.control.loop.parse_node", parse)
    models = [world.model(name) for name in "abc"]
    world.want(*models)
    world.settle()
    assert set(world.states().values()) == {"Downloaded"}
    for _ in range(3):
        world.step(60)
    assert walks == 1
    world.want(*models[1:])
    world.step()
    assert walks == 2
    world.step(60)
    # What goes is read anew before.
    assert world.tree("a") is None
    assert walks == 2 + world.api.reads


def test_starts_of_many_downloads_at_once(world: World, tmp_path: Path) -> None:
    def prepare(n: int) -> Callable[[], object]:
        other = World(tmp_path / str(n), world.web, world.server, engine=world.engine)
        other.groups = (group(1 << 30),)
        other.options = {"max_downloads": n}
        other.restart()
        reservations = inside.reservations(other.loop)
        start = reservations.start
        # Each is reserved, and none begins.
        reservations.start = lambda key: not start(key)  # type: ignore[method-assign]
        other.want(*entries(n))
        return other.step

    assert_grows_no_faster_than_its_input(prepare)


@pytest.mark.parametrize("kind", ["ready", "new", "later"])
def test_a_plan(kind: str) -> None:
    def prepare(n: int) -> Callable[[], object]:
        keys = tuple(f"{i:016x}" for i in range(n))

        def work() -> object:
            # With new rows, of which nothing is derived yet.
            return plan_step(
                table(
                    wanted=keys,
                    ready=keys if kind == "ready" else (),
                    retry_at=dict.fromkeys(keys, 200.0) if kind == "later" else {},
                    ledger=ledger(n, here=kind == "ready"),
                )
            )

        return work

    assert_grows_no_faster_than_its_input(prepare)


def ledger(n: int, *, here: bool) -> Ledger:
    model = Holding(groups=frozenset({"lru"}), size=10, tree=10 if here else 0, resting=here)
    groups = {"lru": Group(n * 20, high_percent=90, low_percent=80, evicts=True)}
    return Ledger({f"{i:016x}": model for i in range(n)}, groups, Space(n * 40, n * 40, 0))


def test_an_admission_where_nothing_fits() -> None:
    def prepare(n: int) -> Callable[[], object]:
        here = {f"a{i}": Holding(frozenset({"lru"}), 10, 10, resting=True) for i in range(n)}
        waiting = {f"b{i}": Holding(frozenset({"lru"}), 10 * n + 1) for i in range(n)}
        back = {f"c{i}": replace(waiting["b0"], evicted=True) for i in range(n)}
        groups = {"lru": Group(n * 10, high_percent=90, low_percent=80, evicts=True)}
        full = Ledger({**here, **waiting, **back}, groups)
        return lambda: decide_downloads(
            full,
            [*waiting, *back],
            due=waiting.keys() | back.keys(),
            places=Places(2),
            may_evict=True,
            making_room=None,
            relieving=(),
        )

    assert_grows_no_faster_than_its_input(prepare)


def test_the_sums_of_a_ledger() -> None:
    def prepare(n: int) -> Callable[[], object]:
        made = ledger(n, here=True)
        return lambda: [made.shortage(key, 20) for key in made.holdings]

    assert_grows_no_faster_than_its_input(prepare)


@pytest.mark.parametrize("found", [Found.PUBLISHED, Found.NOTHING])
def test_a_status(world: World, found: Found) -> None:
    def prepare(n: int) -> Callable[[], object]:
        models = entries(n)
        manifest = manifest_of(models[0].source_model_uri, {"w": b"x"})
        asked = wanted(*models)
        copy_ = OnDisk(found, manifest if found is Found.PUBLISHED else None)
        rows = {key: Row(key, wish, copy_) for key, wish in asked.wishes.items()}
        for i in range(n):
            gone, owners = f"{i:016x}", (CacheName(name=f"gone{i}"),)
            rows[gone] = Row(gone, copy=OnDisk(Found.STAGED), owners=owners)
        made = table(foreign=tuple(map(str, range(n))))
        made = replace(made, wanted=asked, rows=rows)
        return lambda: StatusBuilder().build(made, {}, (), (), world.now())

    assert_grows_no_faster_than_its_input(prepare)


@pytest.mark.parametrize("node_group", ["gpus", ""])
def test_the_pods_that_use_models(node_group: str) -> None:
    def prepare(n: int) -> Callable[[], object]:
        pods = [
            PodMounts(
                *("t", f"p{i}", frozenset({f"m{i}-gpus"}), frozenset()),
                waiting=frozenset({WaitingMount(f"m{i}-gpus", "")}),
            )
            for i in range(n)
        ]
        caches = {f"{i:016x}": [CacheName(name=f"m{i}", node_group=node_group)] for i in range(n)}
        assert len(users(pods, caches)) == n
        return lambda: users(pods, caches)

    assert_grows_no_faster_than_its_input(prepare)


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_waiting_pods_are_told(is_shared: bool) -> None:
    def prepare(n: int) -> Callable[[], object]:
        uri = "mem://origin/shared" if is_shared else "mem://origin/{}"
        listed = [
            local_model(f"m{i}", uri.format(i), namespace=f"team-{i}", priority=0) for i in range(n)
        ]
        asked = wanted(*listed)
        pods = {
            key: tuple(
                PodUse(name.namespace, "p", name.namespace, waits=True) for name in wish.caches
            )
            for key, wish in asked.wishes.items()
        }
        rows = {key: Row(key, wish, pods=pods[key]) for key, wish in asked.wishes.items()}
        made = replace(table(), wanted=asked, rows=rows)
        told = PodLog()
        waiting = WaitingPods(told)
        waiting.observe(made, {}, ())
        assert len(told.events) == n
        return lambda: waiting.observe(made, {}, ())

    assert_grows_no_faster_than_its_input(prepare)
