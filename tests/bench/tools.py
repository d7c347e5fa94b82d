"""The commands with which tools download a row. A tool writes to one folder, by file name."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.local.layout import CHECKOUT
from tests.bench import running, steps
from tests.bench.install import PEERS_BIN, PEERS_PYTHON, PROGRAM
from tests.bench.origin import PREFIX
from tests.bench.rows import DISK, NOTHING, PULL
from tests.bench.table import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.origin import Origin, Tree
    from tests.bench.rows import Entry, Row

KEYS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# How long the latency is measured beside nothing.
_IDLE_SECONDS = 3.0


@dataclass(frozen=True)
class Task:
    """A row to download into a folder, and a scratch folder for the peer's other files."""

    row: Row
    tree: Tree
    origin: Origin
    folder: Path
    scratch: Path
    timeout: float

    @property
    def endpoint(self) -> str:
        return self.origin.endpoint(slow=self.row.slow)

    @property
    def urls(self) -> list[str]:
        return [self.origin.url(self.tree, name, slow=self.row.slow) for name in self.tree.files]

    @property
    def targets(self) -> list[str]:
        return [str(self.folder / name) for name in self.tree.files]

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of S3 clients."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint, "S3_ENDPOINT_URL": self.endpoint}


def curl(task: Task, _entry: Entry) -> list[str]:
    """curl: one file after the other over one connection."""
    pairs = [
        word
        for url, target in zip(task.urls, task.targets, strict=True)
        for word in ("-o", target, url)
    ]
    return ["curl", "-sSf", *pairs]


def aria2(task: Task, entry: Entry) -> list[str]:
    listed = task.scratch / "urls"
    listed.write_text("".join(f"{url}\n" for url in task.urls))
    files = str(min(len(task.urls), 16))
    quiet = ["--quiet=true", "--no-conf=true", "--allow-overwrite=true"]
    return [
        "aria2c",
        *quiet,
        *entry.options,
        "-j",
        files,
        "-d",
        str(task.folder),
        "-i",
        str(listed),
    ]


def s5cmd(task: Task, _entry: Entry) -> list[str]:
    source = f"s3://{task.tree.name}/{PREFIX}/*"
    return [str(PEERS_BIN / "s5cmd"), "--log", "error", "cp", source, f"{task.folder}/"]


def rclone(task: Task, _entry: Entry) -> list[str]:
    files = "32" if task.tree.count > 32 else "8"
    streams = ["--transfers", files, "--multi-thread-streams", "8", "--multi-thread-cutoff", "16M"]
    if task.row.scheme == "http":
        url = f"{task.endpoint}/{task.tree.name}/{PREFIX}/"
        return ["rclone", "copy", "--http-url", url, ":http:", str(task.folder), *streams]
    options = {
        "provider": "Other",
        "env-auth": "true",
        "region": "us-east-1",
        "endpoint": task.endpoint,
        "list-version": "2",
        "no-check-bucket": "true",
    }
    flags = [f"--s3-{name}={value}" for name, value in options.items()]
    source = f":s3:{task.tree.name}/{PREFIX}"
    return ["rclone", "copy", *flags, source, str(task.folder), *streams]


def pull(task: Task, entry: Entry) -> list[str]:
    """localmodel's command for one model, as a program."""
    source = task.urls[0]
    if entry.scheme == "s3":
        source = f"s3://{task.tree.name}/{PREFIX}"
    argv = [sys.executable, "-m", "agent.main", "pull", "--quiet"]
    return [*argv, source, str(task.folder / "model")]


PROGRAMS: dict[str, Callable[[Task, Entry], list[str]]] = {
    "curl": curl,
    "aria2": aria2,
    "s5cmd": s5cmd,
    "rclone": rclone,
    PULL: pull,
}


def download(task: Task, entry: Entry) -> Sample:
    """Run a tool's download. Raises FailedError."""
    if entry.tool == NOTHING:
        time.sleep(_IDLE_SECONDS)
        return Sample(_IDLE_SECONDS)
    if entry.tool == DISK:
        return steps.write(task.folder, task.tree)
    if entry.tool in PROGRAMS:
        argv = PROGRAMS[entry.tool](task, entry)
        env = task.env | ({"PYTHONPATH": str(CHECKOUT)} if entry.tool == PULL else {})
        return running.run(argv, env, task.scratch, task.timeout)
    job = {
        "urls": task.urls,
        "targets": task.targets,
        "folder": str(task.folder),
        "uri": f"s3://{task.tree.name}/{PREFIX}",
        "bucket": task.tree.name,
        "keys": [f"{PREFIX}/{name}" for name in task.tree.files],
        "endpoint": task.endpoint,
        "options": entry.options,
    }
    path = task.scratch / "job.json"
    path.write_text(json.dumps(job))
    argv = [str(PEERS_PYTHON), str(PROGRAM), entry.tool, str(path)]
    with running.worker(argv, task.env, task.scratch) as process:
        peak = running.Peak(process)
        answer = process.ask({}, task.timeout)
        return Sample(answer["seconds"], peak.stop(), answer["cpu"])
