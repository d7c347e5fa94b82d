"""What a cluster with models lives through in a day, within a minute or a few.

Four nodes. Three serve models from two origins to pods, cold and warm; one model cannot be
downloaded, one is evicted, one damaged, one removed. On the fourth node two models take turns on a
disk that has room for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.kube.kinds import PODS
from deploy.local.process import Process
from deploy.local.product import agent_name
from tests.content import weights
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SERVING = ("node-1", "node-2", "node-3")
CROWDED = "node-4"
NODES = (*SERVING, CROWDED)
# Options of the agents: damage is found soon.
AGENT_ARGS = ("--scrub-interval-seconds", "3")
NAMESPACE = "team"
FULL = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
# Of the crowded node: one model, and less than 3% of the disk beside it.
CROWDED_MODEL = 4 * MIB
CROWDED_DISK = CROWDED_MODEL * 102 // 100
SECONDS = 90.0


def crowd(world: World) -> None:
    """Give the agent of the crowded node a small disk."""
    name = agent_name(CROWDED)
    layout = world.cluster.layout
    agent = Process.from_json((layout.processes / f"{name}.json").read_text())
    argv = list(agent.argv)
    argv[argv.index("--disk-size") + 1] = str(CROWDED_DISK)
    world.cluster.run(name, Process(tuple(argv), agent.cwd, agent.env, agent.order))


@dataclass
class Load:
    """The load on one world. slow: how many times longer than the shortest the load takes."""

    world: World
    folder: Path
    slow: float = 1.0

    def run(self) -> None:
        """All that happens, one after the other. Each wait is for an event."""
        world = self.world
        crowd(world)
        world.namespace(NAMESPACE, models="yes")
        for node in SERVING:
            world.node(node, "serving")
        world.node(CROWDED, "crowded")
        world.group("serving", storageLimit=str(40 * MIB), eviction=FULL)
        world.group("crowded", storageLimit=str(CROWDED_MODEL * 101 // 100), eviction=FULL)
        self._serve()
        file, inode = self._damage(SERVING[2], world.http.url("qwen.bin"))
        self._take_turns(3)
        world.until(
            lambda: file.exists() and file.stat().st_ino != inode,
            "the file to be repaired",
            SECONDS,
        )

    def _serve(self) -> None:
        world, slow = self.world, self.slow
        world.http.bytes_per_second = 4 * MIB / slow
        self._cache("broken", world.http.url("missing.bin"), 4)
        self._cache("llama", self._model("llama", 16), 16)
        self.pod("waits-for-broken", "broken", SERVING[1])
        self.pod("cold", "llama", SERVING[0])
        world.wait_ready("llama", 3, SECONDS * slow)
        for node in SERVING:
            self.pod(f"warm-{node}", "llama", node)
        self._cache("mistral", self._upload("mistral", 12), 12)
        world.wait_ready("mistral", 3, SECONDS * slow)
        # Nothing uses mistral: it gives way on all nodes.
        self._cache("qwen", self._model("qwen", 14), 14)
        world.wait_ready("qwen", 3, SECONDS * slow)
        for node in SERVING[1:]:
            self.pod(f"warm-again-{node}", "qwen", node)
        world.remove_caches("mistral")
        world.http.bytes_per_second = 0.0

    def _take_turns(self, rounds: int) -> None:
        """A pod for one model, then for the other, which has to give way each time."""
        world = self.world
        uris = [self._model(name, CROWDED_MODEL // MIB) for name in ("gemma", "phi")]
        for name, uri in zip(("gemma", "phi"), uris, strict=True):
            self._cache(name, uri, CROWDED_MODEL // MIB, group="crowded")
        for number in range(rounds):
            for name, uri in zip(("gemma", "phi"), uris, strict=True):
                pod = f"{name}-{number}"
                self.pod(pod, name, CROWDED, group="crowded")
                world.until(
                    lambda uri=uri: world.published(CROWDED, uri),  # type: ignore[misc]
                    f"{name} to come back",
                    SECONDS,
                )
                world.kubectl("delete", "pod", "-n", NAMESPACE, pod, "--force")

    def pod(self, name: str, cache: str, node: str, *, group: str = "serving") -> None:
        """A pod that mounts the claim of a cache; nothing runs it."""
        mount = {"name": "model", "mountPath": "/mnt/models"}
        claim = {"claimName": f"{cache}-{group}", "readOnly": True}
        spec = {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "server", "image": "server", "volumeMounts": [mount]}],
            "volumes": [{"name": "model", "persistentVolumeClaim": claim}],
        }
        self.world.make(an_object(PODS, name, NAMESPACE, spec=spec))

    def _cache(self, name: str, uri: str, mib: int, *, group: str = "serving") -> None:
        selector = {"matchLabels": {"models": "yes"}}
        self.world.cache(name, uri, group, modelSize=f"{mib}Mi", namespaceSelector=selector)

    def _model(self, name: str, mib: int) -> str:
        return self.world.http.put(f"{name}.bin", weights(mib * MIB))

    def _upload(self, name: str, mib: int) -> str:
        folder = self.folder / name
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{number}.safetensors").write_bytes(weights(mib * MIB // 2))
        return self.world.s3.upload(folder, name)

    def _damage(self, node: str, uri: str) -> tuple[Path, int]:
        """Change bytes of a published file. Returns the file, and its inode as long as it is."""
        (file,) = (path for path in self.world.copy(node, uri).rglob("*") if path.is_file())
        file.chmod(0o644)
        with file.open("r+b") as damaged:
            damaged.write(b"damage")
        return file, file.stat().st_ino
