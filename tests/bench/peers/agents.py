"""Agents without Kubernetes, each a process with a store of its own and a loopback address."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from crds.keys import model_key
from deploy.local.layout import CHECKOUT
from tests.bench.running import FailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_READ = 8 << 20
_AGENT = (sys.executable, "-m", "agent.main", "run")


@dataclass(frozen=True)
class Place:
    """Where an agent serves pieces, and as whom the others know it."""

    host: str
    known_as: str
    port: int


def cpu_seconds(pid: int) -> float:
    """The CPU time of a running process so far."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Agent:
    """A running agent that downloads one model."""

    def __init__(
        self,
        root: Path,
        uri: str,
        env: Mapping[str, str],
        place: Place | None,
        peers: Sequence[str],
    ) -> None:
        self._model = root / "models" / model_key(uri)
        root.mkdir(parents=True)
        models = root.with_suffix(".yaml")
        models.write_text(yaml.safe_dump({"models": [{"uri": uri}]}))
        flags = [f"--models={models}", f"--root={root}", "--log-format=json"]
        if place is not None:
            flags.append(f"--peer-bind-address={place.host}:{place.port}")
            flags.append(f"--peer-address={place.known_as}")
            flags += [f"--peer={peer}" for peer in peers]
        self._log = root.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # The agent ends with this process, also if that is killed.
                ["setpriv", "--pdeathsig", "KILL", *_AGENT, *flags],
                cwd=CHECKOUT,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(root), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_done(self) -> bool:
        """Whether the model is published. Raises FailedError if the agent has ended."""
        if self._model.is_dir():
            return True
        if self._process.poll() is not None:
            text = self._log.read_text(errors="replace")[-800:]
            raise FailedError(f"an agent ended with {self._process.returncode}: {text}")
        return False

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the process so far."""
        return cpu_seconds(self._process.pid)

    def check(self, digests: Mapping[str, str]) -> None:
        """Compare the published files with these SHA-256. Raises FailedError."""
        for path, digest in digests.items():
            found = hashlib.sha256()
            with (self._model / path).open("rb") as file:
                while piece := file.read(_READ):
                    found.update(piece)
            if found.hexdigest() != digest:
                raise FailedError(f"{self._model / path} has other bytes than the origin")

    def kill(self) -> None:
        """End the process at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def until(is_true: Callable[[], bool], agents: Sequence[Agent], timeout: float) -> None:
    """Wait for a condition, or until all agents have published the model.

    Raises FailedError after `timeout` seconds, or if an agent has ended.
    """
    deadline = time.monotonic() + timeout
    while not is_true():
        # Of each agent: one that has ended must not go unnoticed behind one that goes on.
        done = [agent.is_done for agent in agents]
        if all(done):
            return
        if time.monotonic() > deadline:
            raise FailedError(f"took more than {timeout:.0f} s")
        time.sleep(POLL_SECONDS)
