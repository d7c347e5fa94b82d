"""The scenario of an agent on one disk: its content, the entries, and the expected final state.

To add a case, add its model to `make`: no other place lists the models.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.disk.store import Store
from agent.engine.engine import Engine
from agent.engine.limits import Limits
from agent.jobs.download import Download
from agent.sources import all_sources
from agent.structs.records import Usage
from agent.structs.remote import RemoteFile
from agent.structs.requests import Request
from tests.faults import origin
from tests.faults.disk import Disk, Model, Tree, write_tree
from tests.faults.forks import fork
from tests.unit.agent.helpers import hash_of, publish, stage
from tests.unit.agent.servers import etag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agent.sources import Sources
    from tests.faults.disk import Loss

# Seconds of real time.
PATIENCE = 30.0
# Enough for ranges, and few threads to start in each life.
CONNECTIONS = 4

FOREIGN: dict[str, Tree] = {
    "theirs": {"notes.txt": b"not ours", "deep/data": bytes(5000)},
    # A file with the name of a model.
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
    "idle.bin": origin.content("idle", 40_000),
    "newcomer.bin": origin.content("newcomer", 45_000),
}
FOLDERS = {
    "folder": {
        "config.json": b"{}",
        "deep/nested/weights.bin": origin.content("weights", 150_000),
        "deep/tokens.txt": origin.content("tokens", 3000),
        "empty": b"",
    },
    # Models of which some files go bad: one is mounted by pods, the other is not.
    "mounted": {
        "config.json": b"{}",
        "deep/a.bin": origin.content("mounted a", 20_000),
        "deep/b.bin": origin.content("mounted b", 30_000),
    },
    "spoiled": {
        "good.bin": origin.content("spoiled good", 50_000),
        "deep/bad.bin": origin.content("spoiled bad", 20_000),
    },
    # Its folder is a foreign directory, which lacks the last file.
    "filled": {
        "config.json": b"[]",
        "deep/weights.bin": origin.content("filled", 120_000),
        "tokens.txt": origin.content("more tokens", 4000),
    },
}
# The content of the foreign directory of `filled`.
FILLED = {path: FOLDERS["filled"][path] for path in ("config.json", "deep/weights.bin")}
BAD = {"mounted": ("deep/a.bin", "deep/b.bin"), "spoiled": ("deep/bad.bin",)}
# A group with room for the mounted model and one more.
SMALL = "small"
SMALL_BYTES = 120_000
LAST_USED = datetime(2026, 7, 1, tzinfo=UTC)


def keys_of(models: Iterable[Model]) -> set[str]:
    """The keys of these models."""
    return {model.key for model in models}


@dataclass
class Scenario:
    """A disk before the agent starts (a template to copy), and the entries of the node.

    `blocked` and `evicted` models have entries but cannot be published: a foreign directory is in
    the place of the former, and the latter make room for a `referenced` one. Pods mount the
    `mounted` models all the time, and have used those in `used` before.
    """

    url: str
    template: Path
    sources: Sources
    wanted: tuple[Model, ...]
    blocked: tuple[Model, ...]
    others: tuple[Model, ...]
    kept: tuple[Model, ...]
    evicted: tuple[Model, ...]
    referenced: tuple[Model, ...]
    mounted: tuple[Model, ...]
    used: tuple[Model, ...]
    foreign: dict[str, Tree]
    before: dict[str, Tree]

    def disk(self, root: Path) -> Disk:
        """The expected disk at a root."""
        return Disk(
            root,
            (*self.wanted, *self.evicted, *self.others),
            self.foreign,
            keys_of((*self.kept, *self.mounted)),
            frozenset(keys_of(self.wanted)),
            self.before,
            frozenset(keys_of(self.mounted)),
            frozenset(keys_of(self.evicted)),
            frozenset(keys_of(self.blocked)),
        )

    def not_at_end(self, root: Path) -> tuple[list[Loss], list[str]]:
        """The problems of a disk in its final state: models or records missing or left over."""
        lost, problems = self.disk(root).not_at_end(self.wanted)
        for model in (*self.used, *self.evicted):
            usage = Store(root).inspect(model.key).usage
            if usage is None or usage.last_used_time != LAST_USED:
                problems.append(f"when {model.name} was used is forgotten: {usage}")
        return lost, problems

    def lay_out(self, root: Path) -> None:
        """Copy the template to a new disk."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.template, root)


def make(url: str, template: Path) -> Scenario:
    """Make the scenario, and its disk in the folder `template`."""
    web = {name: Model(name, f"{url}/{name}", {name: data}) for name, data in WEB.items()}
    folders = {
        name: Model(name, f"s3://{origin.BUCKET}/{name}", files) for name, files in FOLDERS.items()
    }
    one, damaged, kept = web["one.bin"], web["damaged.bin"], web["kept.bin"]
    unwanted, dropped = web["unwanted.bin"], web["dropped.bin"]
    blocked, idle, newcomer = web["blocked.bin"], web["idle.bin"], web["newcomer.bin"]
    mounted, spoiled, filled = (folders[name] for name in ("mounted", "spoiled", "filled"))
    changed = replace(web["changed.bin"], hash=hash_of(web["changed.bin"].files))
    sources = all_sources()
    # boto3's client is slow to make, so it is made before the forks.
    client = sources.of(spoiled.uri, "")._client(origin.settings(url))  # type: ignore[attr-defined]
    client.s3.generate_presigned_url("get_object", {"Bucket": origin.BUCKET, "Key": "any"})

    store = Store(template)
    store.open()
    for model in (damaged, kept, unwanted, idle):
        publish(store, model.uri, model.files)
    before = _spoil(store, (mounted, spoiled), sources, url)
    for model in (mounted, spoiled, idle):
        store.note_usage(model.key, Usage(published_time=LAST_USED, last_used_time=LAST_USED))
    before[damaged.key] = {"damaged.bin": WEB["damaged.bin"][:-1]}
    write_tree(store.path(damaged.key), before[damaged.key])
    before[changed.key] = {"changed.bin": b"as it was", "gone/file": b"1"}
    publish(store, changed.uri, before[changed.key])
    _begin(store, one)
    stage(store, dropped.uri, dropped.files)
    # A removal that was interrupted after the rename of the files.
    write_tree(template / ".localmodel" / "fedcba9876543210" / "old", {"half": b"x"})
    (template / ".localmodel" / kept.key / "manifest.json.tmp").write_bytes(b"{")
    store.close()
    foreign = FOREIGN | {blocked.key: {"blocked.bin": b"of somebody else"}}
    before[filled.key] = FILLED
    for name, files in (foreign | {filled.key: FILLED}).items():
        write_tree(template / "models" / name, files)
    return Scenario(
        url,
        template,
        sources,
        wanted=(one, folders["folder"], filled, damaged, changed, kept, mounted, spoiled, newcomer),
        blocked=(blocked,),
        others=(unwanted, dropped),
        kept=(kept, filled),
        evicted=(idle,),
        referenced=(newcomer,),
        mounted=(mounted,),
        used=(spoiled,),
        foreign=foreign,
        before=before,
    )


def _spoil(store: Store, models: Iterable[Model], sources: Sources, url: str) -> dict[str, Tree]:
    """Download these models as an agent does, and corrupt a byte of some files.

    Returns the damaged trees. The download runs in a child process, as it starts threads.
    """

    def work(send: Callable[[object], None]) -> None:
        for model in models:
            Download(
                Request(model.key, model.uri, ()),
                sources=sources,
                store=store,
                engine=Engine(Limits(CONNECTIONS)),
                credentials=lambda: origin.settings(url),
                cancelled=threading.Event(),
                report=lambda _: None,
            ).run()
        send({})

    if not fork(work).receive_all(PATIENCE):
        raise RuntimeError("the scenario cannot be laid out: see above")
    found: dict[str, Tree] = {}
    for model in models:
        bad = {
            path: bytes([model.files[path][0] ^ 1]) + model.files[path][1:]
            for path in BAD[model.name]
        }
        write_tree(store.path(model.key), bad)
        found[model.key] = {**model.files, **bad}
    return found


def _begin(store: Store, model: Model) -> None:
    """Stage the first half of a model's only file, as a killed download leaves it."""
    ((path, data),) = model.files.items()
    half = len(data) // 2
    staging = store.staging(model.key)
    staging.begin(model.uri, None, [RemoteFile(path, path, len(data), etag(data))])
    file = staging.staged[path]
    file.open()
    file.write(data[:half], 0)
    file.mark(0, half)
    staging.close()
