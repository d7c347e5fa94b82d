"""Measures the starts of pods on a real node."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from deploy.kube.kinds import PODS
from deploy.local.real.pods import MOUNT_PATH, first_line
from tests.bench.starts.figures import Round
from tests.e2e.real import NODE, START_SECONDS, add, offer, release, run, slow, wait_blocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.e2e.world import World

# The group, the namespace, and the cache of the warm pods.
NAME = "starts"
# How long the download of a cold pod's model lasts at least: it goes on while kubelet finds out.
SLOW_SECONDS = 60.0
_SCRIPT = f"ls {MOUNT_PATH}"


class Measuring:
    """Creates pods one after the other. size: bytes of each model."""

    def __init__(self, world: World, size: int) -> None:
        self._world = world
        self._size = size

    def prepare(self) -> None:
        """Make the warm model, and let the node start a pod of each kind for the first time."""
        self._uri = offer(self._world, NAME, os.urandom(self._size), NODE)
        self._world.wait_ready(NAME, 1)
        for uri in ("", self._uri):
            self._started("first", uri, "echo started")

    def round(self, number: int, random: Random) -> Round:
        """Start a pod of each kind, in random order."""
        found: dict[str, float] = {}
        sent: list[int] = []

        def warm() -> float:
            before = self._world.http.sent
            seconds = self._started("warm", self._uri, _SCRIPT)
            sent.append(self._world.http.sent - before)
            return seconds

        kinds: list[tuple[str, Callable[[], float]]] = [
            ("bare", partial(self._started, "bare", "", "echo started")),
            ("warm", warm),
            ("cold", partial(self._cold, f"{NAME}-{number}")),
        ]
        random.shuffle(kinds)
        for kind, measure in kinds:
            found[kind] = measure()
        return Round(found["bare"], found["warm"], found["cold"], sum(sent))

    def _started(self, name: str, uri: str, script: str) -> float:
        """Seconds from the creation of a pod to its first line."""
        created = run(self._world, NAME, name, uri, script)
        line = first_line(self._world.api, name, NAME, seconds=START_SECONDS)
        self._end(name)
        return line.at - created

    def _cold(self, cache: str) -> float:
        """Seconds from the publication of a model to the first line of a pod that waits for it."""
        world = self._world
        with slow(world, self._size / SLOW_SECONDS):
            uri = world.http.put(f"{cache}.bin", os.urandom(self._size))
            add(world, NAME, cache, uri)
            run(world, NAME, "cold", uri, _SCRIPT, cache=cache)
            wait_blocked(world, NAME, "cold")
            published = release(world, NODE, uri)
        line = first_line(world.api, "cold", NAME, seconds=START_SECONDS)
        self._end("cold")
        world.remove_caches(cache)
        world.until(lambda: not world.published(NODE, uri), f"{cache} to be removed")
        return line.at - published

    def _end(self, name: str) -> None:
        """Delete a pod, and wait for its end, which would take time from the next one."""
        self._world.delete(PODS, name, NAME)
        self._world.until(lambda: self._world.find(PODS, name, NAME) is None, f"{name} to end")
