"""The steps of the demo, and its checks."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from crds.keys import model_key
from deploy.kube import kinds
from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES, CLAIMS, LOCAL_MODEL_NODES, VOLUMES
from deploy.local import build
from deploy.local.cluster import Cluster
from deploy.local.console import Console
from deploy.local.demo import manifests, pods
from deploy.local.demo.files import digests
from deploy.local.demo.follow import follow
from deploy.local.demo.pods import PodStarts
from deploy.local.demo.pressure import Pressure
from deploy.local.demo.stage import WAIT_SECONDS, Stage
from deploy.local.errors import LocalError
from deploy.local.origin import S3Origin
from deploy.local.waiting import wait_until

SIMULATED = ("node-1", "node-2", "node-3")
# The last one runs pods.
WITH_REAL = (*SIMULATED[:2], pods.NODE)
FIRST = SIMULATED[0]
NEWCOMER = "node-4"
# With the admission policies.
OVERLAY = "standalone"
# 60 s by default: time to restore an object that was deleted by mistake.
GRACE_SECONDS = 5.0
# 15 s by default, because the hooks are called for each report.
PROGRESS_SECONDS = 0.3


class Demo:
    """The steps, in order. Each raises LocalError if a check fails."""

    def __init__(self, cluster: Cluster, console: Console, model: Path, *, missing: str) -> None:
        """missing: what real nodes need and do not have; empty if one can run."""
        self.cluster = cluster
        self.console = console
        self.model = model
        self.missing = missing
        self.nodes = SIMULATED if missing else WITH_REAL
        self.origin = S3Origin()
        self.key = ""
        self.stage = Stage(cluster, console)

    def run(self) -> None:
        """Run all steps."""
        self._start()
        starts = None if self.missing else PodStarts(self.stage, self.origin, self.model, self.key)
        self._request_the_model()
        if starts:
            starts.wait_cold()
        self._follow_the_copies()
        if starts:
            starts.start_cold()
        self._compare_with_the_origin()
        self._show_the_claim()
        if starts:
            starts.start_warm()
        self._let_a_node_join()
        Pressure(self.stage, self.origin).run()
        self._lose_the_origin()
        self._delete()

    def _start(self) -> None:
        with self.stage.chapter(
            "Start a cluster of three nodes, and an S3 server with a real model"
        ):
            self.cluster.up(
                len(self.nodes) if self.missing else len(self.nodes) - 1,
                real_nodes=0 if self.missing else 1,
                overlay=OVERLAY,
                pod_policies=True,
                grace_seconds=GRACE_SECONDS,
                progress_seconds=PROGRESS_SECONDS,
                agent_env=self.origin.agent_env(),
                agent_pods_env={"LOCALMODEL_BYTES_PER_SECOND": pods.BYTES_PER_SECOND},
                owner_pid=os.getpid(),
            )
            self.origin.start(self.cluster)
            uri = self.origin.upload(self.model, "all-minilm-l6-v2")
            self.key = model_key(uri)
            self._uri = uri
            self.console.line(
                f"  so that you need not wait, agents run with --grace-seconds {GRACE_SECONDS:.0f} "
                f"(default: 60)\n  and --progress-seconds {PROGRESS_SECONDS} (default: 15)"
            )
            self.console.line(self._nodes_in_words())
            self.stage.kubectl("get", "nodes", "-L", "pool")

    def _nodes_in_words(self) -> str:
        if self.missing:
            return (
                "  the nodes are simulated: no pod runs; to see one start cold and warm, on a real "
                f"node:\n  {self.missing}"
            )
        return (
            f"  {pods.NODE} is a real node: kubelet and containerd run its pods, the DaemonSet's "
            "agent among\n  them, whose downloads "
            f"--bytes-per-second {pods.BYTES_PER_SECOND} (default: no limit) slows down, so that "
            "you see a\n  pod wait; the other nodes are simulated"
        )

    def _request_the_model(self) -> None:
        with self.stage.chapter("Request the model on every node with the label pool=gpu"):
            self.stage.apply("namespace.yaml", manifests.NAMESPACE)
            self.stage.apply("group.yaml", manifests.NODE_GROUP)
            self.stage.apply("cache.yaml", manifests.cache(self._uri))

    def _follow_the_copies(self) -> None:
        with self.stage.chapter("Each node downloads the model, verifies it, and publishes it"):
            follow(
                self.cluster.api, self.nodes, self.key, self._cache_is_ready, seconds=WAIT_SECONDS
            )
            self.stage.kubectl("get", "lmc,lmng,lmn")
            self._check_copies(self.nodes)

    def _compare_with_the_origin(self) -> None:
        with self.stage.chapter("Compare each node's files with the origin's"):
            for node in self.nodes:
                self._check_files(node)

    def _show_the_claim(self) -> None:
        with self.stage.chapter(f"The claim in namespace {manifests.TEAM} is bound"):
            wait_until(self._claim_is_bound, "the claim to be bound", seconds=WAIT_SECONDS)
            self.stage.kubectl("get", "pvc,pv", "-n", manifests.TEAM)
            self.console.line(
                f"  a pod mounts claim minilm-gpu at sub-path models/{self.key}\n"
                "  (status.key of the cache), read-only\n"
                f"  on {FIRST} that is {self._copy(FIRST)}"
            )
            self.stage.holds("the claim is bound to its volume")

    def _let_a_node_join(self) -> None:
        with self.stage.chapter(f"{NEWCOMER} joins, and downloads the model"):
            self.cluster.node_up(NEWCOMER)
            everyone = (*self.nodes, NEWCOMER)

            def has_it() -> bool:
                return self._cache_is_ready() and self._available() == len(everyone)

            follow(self.cluster.api, everyone, self.key, has_it, seconds=WAIT_SECONDS)
            self._check_files(NEWCOMER)
            wait_until(
                lambda: self._warm_labels(everyone),
                "the nodes' labels of warm models",
                seconds=WAIT_SECONDS,
            )
            self.stage.holds("every node carries the label localmodel.serving.kserve.io/minilm")

    def _lose_the_origin(self) -> None:
        with self.stage.chapter(f"The origin is stopped, and the agent of {FIRST} is killed"):
            self.cluster.stop(self.origin.name)
            agent = f"agent-{FIRST}"
            before, starts = self._inode(FIRST), self._starts(FIRST)
            killed = self.cluster.kill(agent, signal.SIGKILL)
            self.cluster.wait_for_pid(agent, after=killed)
            wait_until(
                lambda: self._starts(FIRST) > starts, "the agent to restart", seconds=WAIT_SECONDS
            )
            if not self._cache_is_ready() or self._inode(FIRST) != before:
                raise LocalError("the model did not stay ready")
            self._check_files(FIRST)
            self.stage.kubectl("get", "lmc")
            self.stage.holds("the agent runs again, and the model is ready without the origin")

    def _delete(self) -> None:
        with self.stage.chapter("Delete the caches: disks, claims and volumes are freed"):
            self.stage.kubectl("delete", "lmc", "--all", f"--timeout={WAIT_SECONDS:.0f}s")
            wait_until(
                self._nothing_is_left, "disks, claims and volumes to be free", seconds=WAIT_SECONDS
            )
            self.stage.holds("no copy on any disk, no claim, no volume")
            self.stage.kubectl("get", "lmng,lmn")

    # The checks.

    def _cache(self) -> dict[str, Any]:
        try:
            return self.cluster.api.get(CACHES, "minilm")
        except ApiError as error:
            if error.status == 404:
                return {}
            raise

    def _cache_is_ready(self) -> bool:
        conditions = self._cache().get("status", {}).get("conditions", ())
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _available(self) -> int:
        return int(self._cache().get("status", {}).get("copies", {}).get("available", 0))

    def _check_copies(self, names: tuple[str, ...]) -> None:
        status = self._cache()["status"]
        for name in names:
            node = self.cluster.api.get(LOCAL_MODEL_NODES, name)
            (model,) = node["status"]["models"]
            if not (model["cached"] and model["hash"] == status["hash"]):
                raise LocalError(f"{name} does not report the same model: {model}")
        self.stage.holds(f"{len(names)} nodes report the same model: {status['hash'][:23]}…")

    def _copy(self, node: str) -> Path:
        return self.cluster.nodes_dir / node / "models" / self.key

    def _inode(self, node: str) -> int:
        return self._copy(node).stat().st_ino

    def _check_files(self, node: str) -> None:
        expected, found = digests(self.model), digests(self._copy(node))
        if expected != found:
            raise LocalError(f"the files of {node} are not the origin's", detail=str(found))
        self.stage.holds(f"{node}: {len(found)} files, each with the origin's SHA-256")

    def _claim_is_bound(self) -> bool:
        claims = self.cluster.api.list(CLAIMS, manifests.TEAM)
        return [claim.get("status", {}).get("phase") for claim in claims] == ["Bound"]

    def _warm_labels(self, names: tuple[str, ...]) -> bool:
        labels = (self.cluster.api.get(kinds.NODES, name)["metadata"]["labels"] for name in names)
        return all(one.get("localmodel.serving.kserve.io/minilm") == self.key for one in labels)

    def _starts(self, name: str) -> int:
        """How often a node's agent has logged, after reading its disk, that it started."""
        return self.cluster.layout.log(f"agent-{name}").read_text().count("Agent started")

    def _nothing_is_left(self) -> bool:
        nodes = self.cluster.nodes_dir
        disks = [any((nodes / name / "models").iterdir()) for name in (*self.nodes, NEWCOMER)]
        claims = self.cluster.api.list(CLAIMS)
        volumes = self.cluster.api.list(VOLUMES)
        caches = self.cluster.api.list(CACHES)
        return not (any(disks) or claims or volumes or caches)


def main(arguments: list[str]) -> int:
    """Run the demo in a folder of its own. Returns 0 only if every check passed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local demo", description=__doc__)
    parser.add_argument(
        "--simulated", action="store_true", help="use no real node, also where one can run"
    )
    options = parser.parse_args(arguments)
    console = Console(sys.stdout)
    folder = Path(tempfile.mkdtemp(prefix="localmodel-demo-"))
    cluster = Cluster(folder / "cluster", console)
    missing = (
        "run the demo without --simulated" if options.simulated else pods.missing(cluster.root)
    )
    try:
        build.ensure(build.DEMO, console)
        started = time.monotonic()
        _run(cluster, console, missing)
        console.line(f"\nEvery check held, in {time.monotonic() - started:.0f} s; nothing is left.")
    except LocalError as error:
        print(error.text(), file=sys.stderr)
        print(f"the logs are in {folder / 'cluster' / 'logs'}", file=sys.stderr)
        return 1
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)
    return 0


def _run(cluster: Cluster, console: Console, missing: str) -> None:
    demo = Demo(cluster, console, build.ensure_model(console), missing=missing)
    try:
        demo.run()
    finally:
        console.line("\n▶ Stop everything")
        cluster.down()
    console.line()
    for title, seconds in demo.stage.times:
        console.line(f"  {seconds:6.1f} s  {title}")
