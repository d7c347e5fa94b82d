"""The whole agent on a real disk against a simple model of what it may and must do.

Wishes, sizes, limits, pods, broken sources, errors of the disk, damage, restarts and jumps of the
clock come at random.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from agent.cluster.pod_mounts import PodMounts
from agent.commands.assemble import own_credentials
from agent.engine.engine import Engine
from agent.sources import Sources
from agent.structs.failures import DownloadError, FailureKind
from crds.eviction import EvictionPolicy, EvictionSettings
from crds.keys import model_key
from crds.node import LocalModelNodeGroupRef
from crds.states import ModelState
from tests.faults.calls import Call, Calls, Fault, raising, watched
from tests.faults.disk import read_tree, write_tree
from tests.unit.agent.crowded import NoPods
from tests.unit.agent.helpers import hidden, local_model
from tests.unit.agent.memory import Memory
from tests.unit.agent.servers import WebFiles
from tests.unit.agent.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.structs.credentials import Credentials

NAMES = ("a", "b", "c", "d", "e")
# Large beside what is noted of a model.
UNIT = 128 << 10
DISK = 30 * UNIT
HIGH, LOW = 90, 80
GROUP = "gpus"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
# More rounds than any back-off or chain of downloads and evictions needs.
ROUNDS = 12
IDLE_SECONDS = 400.0

ENGINE = Engine()

names = st.sampled_from(NAMES)
subsets = st.frozensets(names)


def uri_of(name: str) -> str:
    return f"mem://{name}"


def keys_of(chosen: frozenset[str] | set[str]) -> set[str]:
    return {model_key(uri_of(name)) for name in chosen}


class Shelf:
    """A source of all models, of which some are broken; it counts the files that are fetched."""

    def __init__(self, models: dict[str, dict[str, bytes]]) -> None:
        self.models = models
        self.broken: frozenset[str] = frozenset()
        self.fetched: Counter[str] = Counter()

    def resolve(self, uri: str, _credentials: Credentials, version: str | None) -> Memory:
        name = uri.removeprefix("mem://")
        if name in self.broken:
            raise DownloadError(FailureKind.UNREACHABLE, f"{uri} is broken")

        def count(_path: str, _start: int, _end: int | None) -> None:
            self.fetched[name] += 1

        return Memory(self.models[name], on_open=count).resolve(uri, own_credentials(), version)


class AgentMachine(RuleBasedStateMachine):
    """The loop with its store is real; only the API server and the sources are in memory."""

    @initialize(
        units=st.lists(st.integers(1, 8), min_size=len(NAMES), max_size=len(NAMES)),
        declared=st.lists(st.integers(1, 8), min_size=len(NAMES), max_size=len(NAMES)),
        priorities=st.lists(st.integers(0, 2), min_size=len(NAMES), max_size=len(NAMES)),
        limit=st.integers(6, 24),
    )
    def begin(
        self, units: list[int], declared: list[int], priorities: list[int], limit: int
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.sizes = {name: count * UNIT for name, count in zip(NAMES, units, strict=True)}
        self.declared = {name: count * UNIT for name, count in zip(NAMES, declared, strict=True)}
        self.priorities = dict(zip(NAMES, priorities, strict=True))
        self.shelf = Shelf(
            {
                name: {"w": name.encode() * (size - UNIT // 2), "deep/x": bytes(UNIT // 2)}
                for name, size in self.sizes.items()
            }
        )
        server: Any = Nowhere()
        sources = Sources({"mem": self.shelf})
        self.world = World(self.folder, WebFiles({}), server, sources=sources, engine=ENGINE)
        self.world.store._size = DISK
        self.world.store.views.makes = True
        self.world.pods = NoPods(lambda: self.world.loop)
        self.theirs = {"notes.txt": b"not ours"}
        write_tree(self.folder / "models" / "theirs", self.theirs)
        self.limit = limit * UNIT
        self.wanted: frozenset[str] = frozenset(NAMES)
        self.mounted: frozenset[str] | None = frozenset()
        self.referenced: frozenset[str] = frozenset()
        self.pinned: frozenset[str] = frozenset()
        self.fault: tuple[int, int] | None = None
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.loop.stop()
            self.world.loop.step()
            self.world.store.close()
            shutil.rmtree(self.folder)

    # What happens

    @rule(
        wanted=st.just(frozenset(NAMES)) | subsets,
        mounted=st.just(frozenset()) | st.none() | subsets,
        referenced=subsets,
        pinned=st.just(frozenset()) | subsets,
    )
    def wish(
        self,
        wanted: frozenset[str],
        mounted: frozenset[str] | None,
        referenced: frozenset[str],
        pinned: frozenset[str],
    ) -> None:
        self.wanted, self.mounted = wanted, mounted
        self.referenced, self.pinned = referenced, pinned
        self.act()

    @rule(units=st.integers(4, 24))
    def set_limit(self, units: int) -> None:
        self.limit = units * UNIT
        self.act()

    @rule(units=st.sampled_from([0, 10, 20, 26]))
    def fill_disk(self, units: int) -> None:
        self.theirs["fill"] = bytes(units * UNIT)
        write_tree(self.folder / "models" / "theirs", self.theirs)
        self.act(61)

    @rule(broken=subsets)
    def break_sources(self, broken: frozenset[str]) -> None:
        self.shelf.broken = broken
        self.act()

    @rule(number=st.integers(1, 80), code=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def break_disk(self, number: int, code: int) -> None:
        """One call of what comes next fails."""
        self.fault = (number, code)

    @rule(name=names)
    def damage(self, name: str) -> None:
        path = self.path(name) / "w"
        if path.exists():
            os.truncate(path, 100)
            self.act(61)

    @rule(
        seconds=st.sampled_from([1.0, 30.0, 3600.0]),
        clock=st.sampled_from([0.0, -1e8, -3600.0, 3600.0, 1e8]),
    )
    def wait(self, seconds: float, clock: float) -> None:
        self.world.clock_set += clock
        self.act(seconds)

    @rule()
    def restart(self) -> None:
        before = self.uses()
        self.world.loop.stop()
        self.world.step()
        self.world.store.close()
        self.start()
        now = self.uses()
        for name in set(NAMES) - (self.mounted or set()):
            key = model_key(uri_of(name))
            assert now.get(key, before.get(key)) == before.get(key, now.get(key)), name

    # How it goes on

    def start(self) -> None:
        self.world.begin()
        self.act()

    def uses(self) -> dict[str, Any]:
        """When each model that is here was used, as it is noted."""
        copies, _ = self.world.store.scan()
        return {
            key: copy.usage.last_used_time
            for key, copy in copies.items()
            if copy.is_published and copy.usage
        }

    def act(self, seconds: float = 0.0) -> None:
        """All is told to the agent, and it does what is to be done at this moment."""
        settings_ = EvictionSettings(policy=EvictionPolicy.LRU, high_percent=HIGH, low_percent=LOW)
        self.world.groups = (
            LocalModelNodeGroupRef(name=GROUP, storage_limit=str(self.limit), eviction=settings_),
        )
        self.world.want(
            *(
                local_model(
                    name,
                    uri_of(name),
                    model_size=str(self.declared[name]),
                    retention="Pinned" if name in self.pinned else "Evictable",
                    referenced=name in self.referenced,
                    priority=self.priorities[name],
                )
                # As the hooks write it: the most important first.
                for name in sorted(self.wanted, key=lambda name: (-self.priorities[name], name))
            )
        )
        keys = frozenset(model_key(uri_of(name)) for name in self.mounted or ())
        pods = (PodMounts("team", "server", frozenset(), keys),) if keys else ()
        self.world.loop.observe_pods(None if self.mounted is None else pods)
        held = self.held()
        self.settle_now(seconds)
        for name, inodes in held.items():
            assert self.inodes(name) == inodes, f"{name} was taken away"
        self.look()

    def settle_now(self, seconds: float) -> None:
        self.world.seconds += seconds
        if self.fault is None:
            self.world.settle()
            return
        (number, code), self.fault = self.fault, None

        def meets(call: Call) -> bool:
            return call.creates or code == errno.EIO

        act = raising(lambda call: OSError(code, os.strerror(code), call.path))
        with watched(Calls(self.folder, Fault(act, meets), number)), suppress(OSError):
            # A step that fails is tried again, as the loop does it.
            self.world.settle()

    def path(self, name: str) -> Path:
        return self.world.store.path(model_key(uri_of(name)))

    def view_path(self, name: str) -> Path:
        return self.world.store.views.path(model_key(uri_of(name)))

    def view(self, name: str) -> dict[str, bytes] | None:
        return read_tree(self.view_path(name))

    def is_shown(self, name: str) -> bool:
        """Whether the volume of a model has the very files of its copy."""
        view, path = self.view_path(name), self.path(name)
        files = self.shelf.models[name]
        return self.view(name) == files and all((view / f).samefile(path / f) for f in files)

    def inodes(self, name: str) -> list[int]:
        """The folders that pods may have mounted."""
        return [path.stat().st_ino for path in (self.path(name), self.view_path(name))]

    def is_whole(self, name: str) -> bool:
        return read_tree(self.path(name)) == self.shelf.models[name]

    def here(self) -> set[str]:
        return {name for name in NAMES if self.path(name).exists()}

    def total(self, names: Iterable[str]) -> int:
        """The bytes of these models."""
        return sum(self.sizes[name] for name in names)

    def priority(self, name: str) -> int:
        """That of a model which nothing wants any more is lower than all others."""
        return self.priorities[name] if name in self.wanted else -1

    def held(self) -> dict[str, list[int]]:
        """What may not go now: what pods mount, and what is pinned; all while pods are unknown."""
        kept = set(NAMES) if self.mounted is None else self.mounted | (self.pinned & self.wanted)
        return {n: self.inodes(n) for n in kept if self.is_whole(n) and self.view(n) is not None}

    def look(self) -> None:
        """At any time: what is published is whole, or as we damaged it; others are untouched."""
        for name in self.here():
            now = read_tree(self.path(name)) or {}
            damaged = {**self.shelf.models[name], "w": name.encode() * 100}
            assert now in (self.shelf.models[name], damaged), name
            assert self.view(name) in (None, self.shelf.models[name], damaged), name
        for name in set(NAMES) - self.here():
            assert self.view(name) is None, name
        for name, state in self.world.states().items():
            if state == ModelState.DOWNLOADED and self.is_whole(name):
                assert self.is_shown(name), name
        assert read_tree(self.folder / "models" / "theirs") == self.theirs

    # Where it ends

    @rule()
    def settle(self) -> None:
        """With all as it is, it comes to rest, and to what the limits allow."""
        for _ in range(ROUNDS):
            self.act(IDLE_SECONDS)
        here, fetched = self.here(), self.shelf.fetched.copy()
        for _ in range(5):
            self.act(IDLE_SECONDS)
        assert self.here() == here
        assert self.shelf.fetched == fetched
        if self.mounted is not None:
            self.check_rest(here, self.mounted)

    def check_rest(self, here: set[str], mounted: frozenset[str]) -> None:
        assert here <= self.wanted | mounted
        states = self.world.states()
        assert states.keys() == self.wanted | here
        for name in self.wanted:
            assert (states[name] == ModelState.DOWNLOADED) is (
                name in here and self.is_whole(name) and self.is_shown(name)
            ), f"{name} is told as {states[name]}"
            if name not in here | self.shelf.broken:
                assert states[name] in {ModelState.EVICTED, ModelState.PENDING}
        disk = self.world.store.disk()
        taken = self.total(here & self.wanted)
        for name in here - mounted - self.referenced - self.pinned:
            # It may go, but not to make up for less important models that stay.
            lower = {one for one in here if self.priority(one) < self.priorities[name]}
            assert taken - self.total(lower & self.wanted) <= self.limit, name
            assert disk.used - self.total(lower) <= DISK * HIGH // 100, name
        # What fits is there.
        room = DISK * LOW // 100 - disk.used + self.total(here)
        wanted = self.total(self.wanted | here)
        declared = sum(max(self.sizes[n], self.declared[n]) for n in self.wanted)
        if declared <= self.limit * LOW // 100 and max(declared, wanted) + UNIT <= room:
            assert here >= self.wanted - self.shelf.broken
        # Each wanted model has the folder of its volume, and none goes under a pod.
        folders, wanted_keys = self.world.store.views.folders(), keys_of(self.wanted)
        assert wanted_keys <= folders <= wanted_keys | keys_of(here | mounted)
        assert hidden(self.world.store) == []
        # Nothing is left of what is not wanted.
        left = {path.name for path in (self.folder / ".localmodel").iterdir()} - {"lock"}
        assert left <= {model_key(uri_of(name)) for name in self.wanted | here}


class Nowhere:
    """A server that nobody asks."""

    url = "mem:/"


TestAgentMachine = AgentMachine.TestCase
TestAgentMachine.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
