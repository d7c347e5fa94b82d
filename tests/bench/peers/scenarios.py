"""Runs eight agents against one origin: with peers and without, and with one that misbehaves."""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.peers.agents import Agent, Place, until
from tests.bench.peers.origin import MODEL, Bucket, Hub, Way
from tests.unit.agent.servers import serving

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN_RATE = 125e6
SLOW_RATE = 2e6
AGENTS = 8
# Where others reach the last agent, if that is by a way that is slow or lies.
KNOWN_AS = "127.0.2.1"
URI = f"hf://{MODEL}"


@dataclass(frozen=True)
class Scenario:
    """`target` is the longest time, as a ratio to one direct download from the same origin.

    `target_of_all` is the same to all agents without peers, which run if `has_all_alone`.
    `rate` is what the origin sends in total, in bytes a second; None: no limit.
    """

    name: str
    rate: float | None = ORIGIN_RATE
    has_all_alone: bool = False
    kills: bool = False
    slow: bool = False
    lies: bool = False
    target: float | None = None
    target_of_all: float | None = None
    target_copies: float | None = None


SCENARIOS = (
    Scenario("limited origin", has_all_alone=True, target=1.3, target_copies=1.1),
    # The cores are not the limit.
    Scenario("origin of a quarter", rate=ORIGIN_RATE / 4, target=1.3, target_copies=1.1),
    Scenario("unlimited origin", rate=None, has_all_alone=True, target_of_all=1.1),
    Scenario("one agent is killed", kills=True),
    Scenario("one peer lies", lies=True),
    Scenario("one peer is slow", slow=True),
)


@dataclass(frozen=True)
class Run:
    """Seconds until the last agent had published, copies from the origin, and CPU seconds.

    Without those of the agents' starts.
    """

    seconds: float
    copies: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """Runs scenarios in a folder, with the files of a hub."""

    folder: Path
    hub: Hub
    timeout: float

    def direct(self, scenario: Scenario, count: int = 1) -> Run:
        """So many agents without peers."""
        return self._run(scenario, count, with_peers=False)

    def exchange(self, scenario: Scenario) -> Run:
        """All agents with peers."""
        return self._run(scenario, AGENTS, with_peers=True)

    def _run(self, scenario: Scenario, count: int, *, with_peers: bool) -> Run:
        # Fresh folders: what an earlier run left on the disk is not in this one.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.hub.reset(scenario.rate)
        try:
            with ExitStack() as stack:
                url = stack.enter_context(serving(self.hub)).url
                places = _places(stack, scenario) if with_peers else [None] * count
                agents = [self._start(stack, number, url, places) for number in range(count)]
                kills = scenario.kills and with_peers
                until(lambda: self.hub.waiting >= len(agents), agents, self.timeout)
                started = {agent: agent.cpu_seconds for agent in agents}
                seconds = self._let_go(agents, kills=kills)
                done = agents[:-1] if kills else agents
                found = Run(
                    seconds,
                    self.hub.sent / self.hub.size,
                    sum(agent.cpu_seconds - started[agent] for agent in done),
                )
                for agent in done:
                    agent.check(self.hub.digests)
                return found
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self, stack: ExitStack, number: int, url: str, places: list[Place] | list[None]
    ) -> Agent:
        place = places[number]
        others = [one for one in places if one is not None and one is not place]
        agent = Agent(
            self.folder / f"agent-{number}",
            URI,
            {"HF_ENDPOINT": url, "NO_PROXY": "*"},
            place,
            [f"{other.known_as}:{other.port}" for other in others],
        )
        stack.callback(agent.kill)
        return agent

    def _let_go(self, agents: list[Agent], *, kills: bool) -> float:
        """Let all begin at once. Returns the seconds until all that are not killed are done."""
        hub = self.hub
        began = time.monotonic()
        hub.gate.set()
        if kills:
            # Half of a copy has left the origin: the last agent has pieces that others want.
            until(lambda: hub.sent > hub.size / 2, agents, self.timeout)
            agents[-1].kill()
            agents = agents[:-1]
        until(lambda: False, agents, self.timeout)
        return time.monotonic() - began


def _places(stack: ExitStack, scenario: Scenario) -> list[Place]:
    """An address for each agent; others reach the last one by a way of its own, if it is bad."""
    hosts = [f"127.0.1.{number + 1}" for number in range(AGENTS)]
    if not (scenario.slow or scenario.lies):
        port = _free_port()
        return [Place(host, host, port) for host in hosts]
    way = Way(hosts[-1], Bucket(SLOW_RATE if scenario.slow else None), lies=scenario.lies)
    server = stack.enter_context(serving(way, KNOWN_AS))
    # An agent names itself by its own port, so the way to it has the same.
    way.port = server.server_port
    places = [Place(host, host, way.port) for host in hosts[:-1]]
    return [*places, Place(hosts[-1], KNOWN_AS, way.port)]


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
    return port
