"""How many connections an origin gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.structs.options import MAX_CONNECTIONS

START_CONNECTIONS = 16
# The number where the CPU is the bottleneck: more connections would only slow each other down.
FEW_CONNECTIONS = 4
# How long CPU pressure is measured before the number of connections is raised for the first time.
CPU_PROBE_SECONDS = 0.1
# How long the rate is measured to judge one step.
STEP_SECONDS = 0.3
# How long new connections take to reach their full rate.
SETTLE_SECONDS = 0.2
# A step up is kept if the rate is at least GAIN times the former one, a step down if it is at least
# KEPT times that. A rate below COLLAPSE times the best one is a collapse.
GAIN = 1.1
KEPT = 0.95
COLLAPSE = 0.5
# How long no step is tried after one that was undone, and after a refusal by the origin.
HOLD_SECONDS = 15.0


@dataclass
class ConnectionLimit:
    """How many connections are opened to one origin: `now`. Times are monotonic seconds.

    Origins throttle each connection, so more connections are faster, up to a point: some origins
    throttle a client as a whole that opens too many. So the number doubles while the rate grows
    with it, and halves when the origin refuses or the rate collapses. Where the fetch threads wait
    for a CPU (`cpu_bound`), fewer connections are faster: the number starts low, and is halved
    where doubling it did not help.
    """

    most: int = MAX_CONNECTIONS
    now: int = FEW_CONNECTIONS
    _probe_at: float | None = None
    _is_probed: bool = False
    _hold_until: float = 0.0
    _settle_until: float = 0.0
    _step_at: float | None = None
    _bytes: int = 0
    _rate_before: float = 0.0
    _before: int = 0
    _best: float = 0.0
    # Whether the last step up did not help because the CPU is the bottleneck: try a step down.
    _down: bool = False

    def __post_init__(self) -> None:
        self.now = min(self.now, self.most)

    def cap(self, most: int) -> None:
        """Set the maximum number of connections."""
        if most > self.most:
            self._hold_until = 0.0
        self.most = most
        self.now = min(self.now, most)

    def resume(self) -> None:
        """Continue after a pause without jobs: drop the measurement that the pause interrupted."""
        self._set(self._before or self.now)
        self._before, self._best, self._step_at = 0, 0.0, None

    def sample(self, received: int, now: float, *, busy: bool, cpu_bound: bool = False) -> None:
        """Adapt `now` to the total of bytes received until this time.

        busy: most of the allowed connections are in use. cpu_bound: fetch threads wait for a CPU.
        """
        if not self._is_probed:
            self._probe_cpu(now, cpu_bound=cpu_bound)
        if self._step_at is None or not busy or now < self._settle_until:
            # With idle connections, the rate does not depend on their number.
            self._step_at, self._bytes = now, received
            return
        elapsed = now - self._step_at
        if elapsed < STEP_SECONDS:
            return
        rate = (received - self._bytes) / elapsed
        self._step_at, self._bytes = now, received
        self._judge(rate, now, cpu_bound=cpu_bound)

    def refused(self, now: float, receiving: int = 0) -> None:
        """Lower `now`: the origin refused a connection while `receiving` ones got bytes.

        0 if their number is not known.
        """
        if now < self._hold_until - HOLD_SECONDS + STEP_SECONDS:
            # A burst of refusals counts once.
            return
        self._is_probed = True
        self._set(max(1, min(receiving, self.now - 1) if receiving else self.now // 2))
        self._before = 0
        self._hold_until = now + HOLD_SECONDS

    def _probe_cpu(self, now: float, *, cpu_bound: bool) -> None:
        if self._probe_at is None:
            self._probe_at = now
        elif now - self._probe_at >= CPU_PROBE_SECONDS:
            self._is_probed = True
            if not cpu_bound:
                self._set(START_CONNECTIONS)
                self._settle_until = now + SETTLE_SECONDS

    def _judge(self, rate: float, now: float, *, cpu_bound: bool) -> None:
        if self._before:
            up = self.now > self._before
            paid = rate >= (GAIN if up else KEPT) * self._rate_before
            if not paid:
                self._set(self._before)
                self._down = up and cpu_bound and self.now > FEW_CONNECTIONS
                if not self._down:
                    self._hold_until = now + HOLD_SECONDS
            self._before = 0
            if not paid:
                return
        elif rate < COLLAPSE * self._best and self.now > START_CONNECTIONS:
            self._set(max(START_CONNECTIONS, self.now // 2))
            self._hold_until = now + HOLD_SECONDS
            self._best = rate
            return
        self._best = max(rate, self._best)
        if now < self._hold_until or rate <= 0:
            return
        if cpu_bound and self.now > FEW_CONNECTIONS and (self._down or self.now >= self.most):
            self._try(max(FEW_CONNECTIONS, self.now // 2), rate, now)
        elif self.now < self.most:
            self._try(2 * self.now, rate, now)

    def _try(self, connections: int, rate: float, now: float) -> None:
        self._rate_before, self._before = rate, self.now
        self._settle_until = now + SETTLE_SECONDS
        self._set(connections)

    def _set(self, connections: int) -> None:
        self.now = min(connections, self.most)
