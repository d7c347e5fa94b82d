"""The whole job of an agent on one disk: what is there, what is wanted, what must come of it.

To add a case, add its model to `make`: nothing else knows which models there are.
"""

from __future__ import annotations

import queue
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent import logs
from agent.disk_watch import RESCAN_SECONDS
from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.failures import FailureKind
from agent.loop import Loop
from agent.on_disk import Found
from agent.options import Options
from agent.sources import all_sources
from agent.sources.base import RemoteFile
from agent.store import Store, StoreError
from agent.work import Means
from crds.states import ModelState
from tests.faults import origin
from tests.faults.calls import Calls, watched
from tests.faults.disk import Disk, Model, Tree, write_tree
from tests.unit.agent.helpers import hash_of, local_model, node_object, publish, stage
from tests.unit.agent.servers import etag
from tests.unit.agent.world import FakeApi

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from agent.sources import Sources
    from tests.faults.calls import Call

GRACE = 60.0
# Seconds of the agent's clock: longer than any back-off of a few failures.
HORIZON = 1800.0
# Seconds of ours.
PATIENCE = 15.0
BUSY_SECONDS = 0.2
BLOCKED = FailureKind.FOREIGN_DIRECTORY
# Enough for ranges, and few threads to start in each life.
CONNECTIONS = 4

FOREIGN: dict[str, Tree] = {
    "theirs": {"notes.txt": b"not ours", "deep/data": bytes(5000)},
    # Named as a model of ours would be.
    "0123456789abcdef": {"model.bin": b"somebody else's"},
}
ONE = origin.content("one", (1 << 20) + (300 << 10))
WEB = {
    "one.bin": ONE,
    "damaged.bin": origin.content("damaged", 90_000),
    "changed.bin": origin.content("changed", 60_000),
    "blocked.bin": origin.content("blocked", 5000),
    "kept.bin": origin.content("kept", 70_001),
    "unwanted.bin": origin.content("unwanted", 50_000),
    "dropped.bin": origin.content("dropped", 200_000),
}
FOLDER = {
    "config.json": b"{}",
    "deep/nested/weights.bin": origin.content("weights", 150_000),
    "deep/tokens.txt": origin.content("tokens", 3000),
    "empty": b"",
}
# Of a folder that somebody else has filled, but for its last file.
FILLED = {
    "config.json": b"[]",
    "deep/weights.bin": origin.content("filled", 120_000),
    "tokens.txt": origin.content("more tokens", 4000),
}
FOLDERS = {"folder": FOLDER, "filled": FILLED}


@dataclass
class Scenario:
    """One disk before the agent comes, and what is wanted of it. The template is copied.

    `blocked` are wanted too, and cannot be had: somebody else's directory is in their place.
    """

    url: str
    template: Path
    sources: Sources
    wanted: tuple[Model, ...]
    blocked: tuple[Model, ...]
    others: tuple[Model, ...]
    kept: tuple[Model, ...]
    foreign: dict[str, Tree]
    before: dict[str, Tree]

    def disk(self, root: Path) -> Disk:
        """The disk at a root."""
        return Disk(
            root,
            (*self.wanted, *self.others),
            self.foreign,
            {model.key for model in self.kept},
            frozenset(model.key for model in self.wanted),
            self.before,
        )

    def lay_out(self, root: Path) -> None:
        """A new disk."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.template, root)


def make(url: str, template: Path) -> Scenario:
    """The scenario, laid out in the template."""
    web = {name: Model(name, f"{url}/{name}", {name: data}) for name, data in WEB.items()}
    folder, filled = (
        Model(name, f"s3://{origin.BUCKET}/{name}", files) for name, files in FOLDERS.items()
    )
    one, damaged, kept = web["one.bin"], web["damaged.bin"], web["kept.bin"]
    unwanted, dropped = web["unwanted.bin"], web["dropped.bin"]
    blocked = web["blocked.bin"]
    changed = replace(web["changed.bin"], hash=hash_of(web["changed.bin"].files))
    sources = all_sources()
    # Made before the forks, and used once without a connection: boto3 takes its time.
    client = sources.of(folder.uri)._client(origin.settings(url))  # type: ignore[attr-defined]
    client.s3.generate_presigned_url("get_object", {"Bucket": origin.BUCKET, "Key": "any"})

    store = Store(template)
    store.open()
    for model in (damaged, kept, unwanted):
        publish(store, model.uri, model.files)
    broken = {"damaged.bin": WEB["damaged.bin"][:-1]}
    (store.path(damaged.key) / "damaged.bin").write_bytes(broken["damaged.bin"])
    former = {"changed.bin": b"as it was", "gone/file": b"1"}
    publish(store, changed.uri, former)
    _begin(store, one)
    stage(store, dropped.uri, dropped.files)
    # A removal that was interrupted when the files had been taken out.
    write_tree(template / ".localmodel" / "fedcba9876543210" / "old", {"half": b"x"})
    (template / ".localmodel" / kept.key / "manifest.json.tmp").write_bytes(b"{")
    store.close()
    foreign = FOREIGN | {blocked.key: {"blocked.bin": b"of somebody else"}}
    part = {path: data for path, data in FILLED.items() if path != "tokens.txt"}
    for name, files in (foreign | {filled.key: part}).items():
        write_tree(template / "models" / name, files)
    return Scenario(
        url,
        template,
        sources,
        wanted=(one, folder, filled, damaged, changed, kept),
        blocked=(blocked,),
        others=(unwanted, dropped),
        kept=(kept, filled),
        foreign=foreign,
        before={damaged.key: broken, changed.key: former, filled.key: part},
    )


def _begin(store: Store, model: Model) -> None:
    """The first half of a model's one file, as a download leaves it that was killed."""
    ((path, data),) = model.files.items()
    half = len(data) // 2
    staging = store.staging(model.key)
    staging.begin(model.uri, None, [RemoteFile(path, path, len(data), etag(data))])
    file = staging.staged[path]
    file.open()
    file.write(data[:half], 0)
    file.mark(0, half)
    staging.close()


class _Quick(Loop):
    """The loop, whose clock jumps ahead while nothing is under way. It ends when all is done."""

    def begin(self, scenario: Scenario, clock: _Clock, horizon: float) -> None:
        self._clock, self._horizon = clock, clock.seconds + horizon
        self._wanted = {model.key for model in scenario.wanted}
        self._blocked = {model.key for model in scenario.blocked}
        self._deadline = time.monotonic() + PATIENCE
        self._seen_at: float | None = None
        self.done = False

    def wait(self, until: float) -> None:
        clock = self._clock
        if self._tasks or any(self._reading._digesting._running.values()):
            with suppress(queue.Empty):
                self._take(self._events.get(timeout=BUSY_SECONDS))
        elif self._is_done() and self._seen_at is None:
            # It must stay so when the disk is looked at again.
            self._seen_at = clock.seconds
            clock.seconds += RESCAN_SECONDS
        elif self._is_done():
            self.done = True
            self.stop()
        else:
            self._seen_at = None
            clock.seconds = max(clock.seconds, until)
        if clock.seconds > self._horizon or time.monotonic() > self._deadline:
            self.stop()
        super().wait(clock.seconds)

    def _is_done(self) -> bool:
        status = (self._api.node or {}).get("status", {})  # type: ignore[attr-defined]
        told = {model["key"]: model for model in status.get("models", ())}
        here = {
            key for key, copy in self._inventory.copies.items() if copy.found is not Found.NOTHING
        }
        return (
            here == self._wanted
            and told.keys() == self._wanted | self._blocked
            and all(told[key]["state"] == ModelState.DOWNLOADED for key in self._wanted)
            and all(told[key].get("hash") for key in self._wanted)
            and all(told[key].get("reason") == BLOCKED for key in self._blocked)
        )


class _Api(FakeApi):
    """Its one version is told before the loop runs: a second time could come too late."""

    def watch(self, _observe: object, stopped: threading.Event) -> None:
        stopped.wait()


@dataclass
class _Clock:
    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 8, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


def run_agent(
    scenario: Scenario,
    calls: Calls,
    tell: Callable[[object], None],
    *,
    horizon: float = HORIZON,
) -> None:
    """An agent's life on a root, from its start until all is done, or nothing comes any more.

    Tells the losses that it sees after each call that changes something in models/, the call that
    is struck, and at last how many calls the fault could have met.
    """
    logs.configure("json")
    root, published = Path(calls.root), f"{calls.root}/models/"
    disk = scenario.disk(root)

    def look() -> None:
        for loss in disk.losses():
            tell({"lost": loss.size, "what": loss.what})

    def before(call: Call) -> None:
        look()
        tell({"struck": str(call).replace(str(root), "")})

    def after(call: Call) -> None:
        if call.path.startswith(published) or call.target.startswith(published):
            look()

    calls.before, calls.after = before, after
    with watched(calls):
        ended = _live(scenario, root, horizon)
    tell({"met": calls.met, "ended": ended})


def _live(scenario: Scenario, root: Path, horizon: float) -> str:
    clock, api = _Clock(), _Api()
    entries = [
        local_model(model.name, model.uri, hash=model.hash)
        for model in (*scenario.wanted, *scenario.blocked)
    ]
    api.store(node_object(*entries))
    options = Options(
        grace=GRACE,
        max_downloads=2,
        monotonic=lambda: clock.seconds,
        now=clock.now,
        jitter=lambda: 0.0,
    )
    credentials = origin.settings(scenario.url)
    store = Store(root)
    try:
        store.open()
        store.recover()
        means = Means(scenario.sources, Engine(Limits(CONNECTIONS)), lambda _: credentials)
        loop = _Quick(api, store, means, options)
    except (StoreError, OSError) as error:
        # As the command does: it ends, and is started again.
        sys.stderr.write(f"cannot start: {error}\n")
        return "cannot start"
    loop.begin(scenario, clock, horizon)
    loop.observe(api.read())
    loop.run()
    return "done" if loop.done else "not done"
