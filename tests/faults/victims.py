"""Checks what tenants must not affect of each other: files, claims, conditions, reads, processes.

The checks only observe the cluster.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crds.naming import claim_name
from deploy.kube.errors import ApiError, UnreachableError
from deploy.kube.kinds import CACHES, CLAIMS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, VOLUMES, Kind
from deploy.local.product import HOOKS, agent_name
from tests.faults.disk import read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deploy.kube.kinds import KubeObject
    from deploy.local.cluster import Cluster
    from tests.faults.disk import Model, Tree

EVENTS = Kind("events.k8s.io/v1", "events", "Event", namespaced=True)
CHECK_SECONDS = 0.3
ASK_SECONDS = 1.0
READ_SECONDS = 0.2
# The longest that a pod may wait for one of its files on a busy machine.
SLOWEST_READ_SECONDS = 5.0
MEBI = 1 << 20
# The limits in deploy/base: memory of agents and hooks, and the agent's /tmp.
MEMORY_BYTES = 512 * MEBI
TMP_BYTES = 64 * MEBI
# The beginning of an agent's message about an internal error.
_FAULT = "the agent failed with"
# Fields that reveal a copy: a status without a grant for the copy must not have them.
_OF_THE_COPY = {"size", "diskBytes", "hash", "lastUsedTime", "pods", "downloadedBytes"}


@dataclass(frozen=True)
class Victim:
    """A model, its cache (without namespace: the administrator's), and the claim that leads to it.

    `has_pod`: pods read the model all the time. `scratched`: the test damages its copies now and
    then, so the cache need not be Ready meanwhile.
    """

    model: Model
    namespace: str
    group: str
    claimed_by: str
    nodes: Sequence[str]
    has_pod: bool = False
    scratched: bool = False

    def __str__(self) -> str:
        return f"{self.namespace or 'admin'}/{self.model.name}"

    @property
    def claim(self) -> str:
        """The name of the victim's claim."""
        return claim_name(self.model.name, self.group)

    @property
    def secrets(self) -> tuple[str, str]:
        """Words that no other cache's status may have. (A store may list file names for all.)"""
        return (str(self.model.size), hash_of(self.model.files))


def hash_of(files: Mapping[str, bytes]) -> str:
    """The hash of a model, as in a status."""
    lines = (
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Watch:
    """Checks in threads from its creation to `end`. `problems` has each problem once."""

    def __init__(
        self, cluster: Cluster, victims: Sequence[Victim], nodes: Sequence[str], tmp: Path
    ) -> None:
        self._cluster, self._victims, self._nodes, self._tmp = cluster, victims, nodes, tmp
        self.problems: dict[str, float] = {}
        # By key and node: files as the test damaged them.
        self.damage: dict[tuple[str, str], Tree] = {}
        self.lost = 0
        self.slowest_read = 0.0
        self.reads = 0
        self.most_memory: dict[str, int] = {}
        self.most_tmp = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._bound = {str(victim): self._claim_of(victim) for victim in victims}
        self._pids = self._processes()
        self._threads = [
            threading.Thread(target=self._again, args=(check, seconds), daemon=True)
            for check, seconds in (
                (self._check_disks, CHECK_SECONDS),
                (self._check_objects, ASK_SECONDS),
                (self._check_processes, ASK_SECONDS),
                (self._read, READ_SECONDS),
            )
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop the checks."""
        self._done.set()
        for thread in self._threads:
            thread.join()

    def note(self, what: str, lost: int = 0) -> None:
        """Record a problem once."""
        with self._lock:
            if what not in self.problems:
                seconds = self.problems[what] = time.monotonic() - self._began
                self.lost += lost
                sys.stderr.write(f"tenants: at {seconds:.0f} s: {what}\n")

    def descriptions(self) -> list[str]:
        """All problems, each with the second of its first observation."""
        return [f"at {seconds:.0f} s: {what}" for what, seconds in self.problems.items()]

    def _again(self, look: Callable[[], None], seconds: float) -> None:
        while not self._done.wait(seconds):
            try:
                look()
            except ApiError as error:
                self.note(f"the API server: {error}")

    # The disks

    def _check_disks(self) -> None:
        for victim in self._victims:
            for node in victim.nodes:
                tree = read_tree(self._folder(victim.model, node))
                if tree is None and self.may_be_evicted(victim, node):
                    continue
                if tree != victim.model.files and not self._is_being_mended(victim, node, tree):
                    what = "is not there" if tree is None else f"has {_short(tree)}"
                    self.note(f"{node}: {victim} {what}", victim.model.size)

    def may_be_evicted(self, victim: Victim, node: str) -> bool:
        """Whether a copy may be evicted: an idle copy of a tenant, for a model that pods mount.

        Copies of the administrator have a higher priority, and mounted copies stay.
        """
        notes = self._cluster.nodes_dir / node / ".localmodel" / victim.model.key
        return bool(victim.namespace) and not victim.has_pod and (notes / "evicted.json").exists()

    def _is_being_mended(self, victim: Victim, node: str, tree: Tree | None) -> bool:
        """Whether each file is intact or as the test damaged it, or the folder was removed."""
        damage = self.damage.get((victim.model.key, node))
        if damage is None:
            return False
        files = victim.model.files
        return tree is None or (
            tree.keys() == files.keys()
            and all(data in (files[name], damage.get(name)) for name, data in tree.items())
        )

    def _folder(self, model: Model, node: str) -> Path:
        return self._cluster.nodes_dir / node / "models" / model.key

    def _read(self) -> None:
        """Read as a pod does: by a mount of the folder that existed at the pod's start."""
        for victim in self._victims:
            for node in victim.nodes if victim.has_pod else ():
                for name, data in victim.model.files.items():
                    began = time.monotonic()
                    try:
                        found = (self._folder(victim.model, node) / name).read_bytes()
                    except OSError as error:
                        found = str(error).encode()
                    self.slowest_read = max(self.slowest_read, time.monotonic() - began)
                    self.reads += 1
                    if found != data:
                        self.note(f"{node}: a pod of {victim} reads {len(found)} bytes of {name}")
        if self.slowest_read > SLOWEST_READ_SECONDS:
            self.note(f"a pod waited {self.slowest_read:.1f} s for a file")

    # The objects

    def _check_objects(self) -> None:
        for victim in self._victims:
            ready = self.condition(victim)
            if not victim.scratched and ready.get("status") != "True":
                text = f"{ready.get('status')} ({ready.get('reason')}: {ready.get('message')})"
                self.note(f"{victim} is Ready {text}")
            if (now := self._claim_of(victim)) != self._bound[str(victim)]:
                self.note(f"the claim of {victim} is {now}, and was {self._bound[str(victim)]}")
        owners = {victim.namespace for victim in self._victims if victim.namespace}
        for namespace in owners:
            self._look_for_secrets(namespace)
        for node in self._nodes:
            self._look_at_node(self._cluster.api.get(LOCAL_MODEL_NODES, node))

    def condition(self, victim: Victim, kind: str = "Ready") -> KubeObject:
        """A condition of a victim's cache; empty while the cache has none."""
        resource = NAMESPACE_CACHES if victim.namespace else CACHES
        found = self._cluster.api.get(resource, victim.model.name, victim.namespace)
        conditions = found.get("status", {}).get("conditions", ())
        return next((dict(one) for one in conditions if one["type"] == kind), {})

    def _claim_of(self, victim: Victim) -> tuple[str, ...]:
        """Phase, uid and volume of a claim, and the claim that the volume is bound to."""
        try:
            claim = self._cluster.api.get(CLAIMS, victim.claim, victim.claimed_by)
            name = claim["spec"].get("volumeName", "")
            volume = self._cluster.api.get(VOLUMES, name) if name else {}
        except UnreachableError:
            raise
        except ApiError as error:
            return (str(error),)
        reference = volume.get("spec", {}).get("claimRef", {})
        return (
            claim.get("status", {}).get("phase", ""),
            claim["metadata"]["uid"],
            name,
            volume.get("metadata", {}).get("uid", ""),
            volume.get("status", {}).get("phase", ""),
            reference.get("uid", ""),
        )

    def _look_for_secrets(self, namespace: str) -> None:
        api = self._cluster.api
        for cache in api.list(NAMESPACE_CACHES, namespace):
            where = f"the status of {namespace}/{cache['metadata']['name']}"
            self._look_for(cache.get("status"), where, namespace)
        for event in api.list(EVENTS, namespace):
            self._look_for(event.get("note"), f"an Event of {namespace}", namespace)

    def _look_for(self, found: Any, where: str, namespace: str) -> None:
        text = json.dumps(found)
        for victim in self._victims:
            if victim.namespace != namespace:
                for secret in victim.secrets:
                    if secret in text:
                        self.note(f"{where} tells {secret} of {victim}: {text}")

    def _look_at_node(self, node: KubeObject) -> None:
        name = node["metadata"]["name"]
        keys = {victim.model.key: victim for victim in self._victims}
        for model in node.get("status", {}).get("models", ()):
            if _FAULT in model.get("message", ""):
                self.note(f"{name}: an error of the agent: {model}")
            namespace = model.get("namespace", "")
            victim = keys.get(model["key"])
            if victim is None or not namespace or namespace == victim.namespace:
                continue
            if leaked := _OF_THE_COPY & model.keys():
                self.note(f"{name}: {namespace} observes {sorted(leaked)} of {victim}: {model}")
            self._look_for(model, f"{name}'s entry of {namespace}", namespace)

    # The processes

    def _processes(self) -> dict[str, int | None]:
        return {name: self._cluster.pid(name) for name in (HOOKS, *map(agent_name, self._nodes))}

    def _check_processes(self) -> None:
        now = self._processes()
        for name, pid in now.items():
            if pid != self._pids[name]:
                self.note(f"{name} ended, and began again")
            if pid is not None:
                self._look_at_memory(name, pid)
        self._pids = now
        self.most_tmp = max(self.most_tmp, size_below(self._tmp))
        if self.most_tmp > TMP_BYTES:
            self.note(f"the agents have {self.most_tmp >> 20} MiB in /tmp")

    def _look_at_memory(self, name: str, pid: int) -> None:
        # Workers share most of the hooks' memory.
        taken = sum(map(_share, [pid, *_children(pid)])) if name == HOOKS else _most(pid)
        self.most_memory[name] = max(taken, self.most_memory.get(name, 0))
        if self.most_memory[name] > MEMORY_BYTES:
            self.note(f"{name} takes more than {MEMORY_BYTES >> 20} MiB")


def _most(pid: int) -> int:
    """The peak memory of a process, in bytes; 0 for a process that has ended."""
    return _figure(Path(f"/proc/{pid}/status"), "VmHWM:")


def _share(pid: int) -> int:
    """A process' memory with its proportional share of shared pages, in bytes."""
    return _figure(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _figure(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def size_below(folder: Path) -> int:
    """The bytes of the files below a folder, some of which may be deleted meanwhile."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size
        except OSError:
            continue
    return found


def _short(tree: Mapping[str, bytes]) -> str:
    return ", ".join(f"{name} {len(data)} bytes" for name, data in sorted(tree.items()))
