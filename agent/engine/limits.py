"""How many connections, and how many bytes per second. Pure: clocks are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from localmodel.agent.structs.options import MAX_CONNECTIONS

START_CONNECTIONS = 16
# Where the CPU is the limit, more than these only get in each other's way.
FEW_CONNECTIONS = 4
# So long it takes to see whether it is.
FEEL_SECONDS = 0.1
# A step is judged by the bytes of this long.
STEP_SECONDS = 0.3
# New connections take this long to come into their own.
SETTLE_SECONDS = 0.2
# How much faster a step up must be to be kept, and how little slower a step down; and what is a
# collapse.
GAIN = 1.1
KEPT = 0.95
COLLAPSE = 0.5
# After a step that was no good, or an origin that said no, the next try waits.
HOLD_SECONDS = 15.0


@dataclass(frozen=True)
class Limits:
    """What an administrator sets; None: no limit of bytes per second."""

    connections_per_origin: int = MAX_CONNECTIONS
    bytes_per_second: int | None = None


@dataclass
class ConnectionLimit:
    """How many connections one origin is good for. Times are monotonic seconds.

    Origins throttle each stream, so more streams are faster, up to a point: some throttle the
    client as a whole when it opens too many. So it doubles while that pays, and halves when the
    origin says no or the rate collapses. Where our threads wait for a CPU, fewer streams are
    faster: then it begins with few, and tries half as many where twice as many do not pay.
    """

    most: int = MAX_CONNECTIONS
    now: int = FEW_CONNECTIONS
    _begun_at: float | None = None
    _felt: bool = False
    _hold_until: float = 0.0
    _settle_until: float = 0.0
    _step_at: float | None = None
    _bytes: int = 0
    _rate_before: float = 0.0
    _before: int = 0
    _best: float = 0.0
    # Whether a step up has not paid where it is crowded, and so steps down are tried.
    _down: bool = False

    def __post_init__(self) -> None:
        self.now = min(self.now, self.most)

    def cap(self, most: int) -> None:
        """Set the most that is allowed."""
        if most > self.most:
            self._hold_until = 0.0
        self.most = most
        self.now = min(self.now, most)

    def resume(self) -> None:
        """Go on after a pause: what was being measured before it says nothing."""
        self.now = self._before or self.now
        self._before, self._best, self._step_at = 0, 0.0, None

    def sample(self, received: int, now: float, *, busy: bool, crowded: bool = False) -> None:
        """Tell the bytes received in all, and how the connections are.

        busy: all allowed ones are in use. crowded: our threads wait for a CPU.
        """
        if not self._felt:
            self._feel(now, crowded=crowded)
        if self._step_at is None or not busy or now < self._settle_until:
            # A rate that nobody tried to raise says nothing.
            self._step_at, self._bytes = now, received
            return
        elapsed = now - self._step_at
        if elapsed < STEP_SECONDS:
            return
        rate = (received - self._bytes) / elapsed
        self._step_at, self._bytes = now, received
        self._judge(rate, now, crowded=crowded)

    def refused(self, now: float, coming: int = 0) -> None:
        """The origin said that it is too much. So many connections bring bytes; 0: not known."""
        if now < self._hold_until - HOLD_SECONDS + STEP_SECONDS:
            # One burst of refusals is one refusal.
            return
        self._felt = True
        self._set(max(1, min(coming, self.now - 1) if coming else self.now // 2))
        self._before = 0
        self._hold_until = now + HOLD_SECONDS

    def _feel(self, now: float, *, crowded: bool) -> None:
        if self._begun_at is None:
            self._begun_at = now
        elif now - self._begun_at >= FEEL_SECONDS:
            self._felt = True
            if not crowded:
                self._set(START_CONNECTIONS)
                self._settle_until = now + SETTLE_SECONDS

    def _judge(self, rate: float, now: float, *, crowded: bool) -> None:
        if self._before:
            up = self.now > self._before
            paid = rate >= (GAIN if up else KEPT) * self._rate_before
            if not paid:
                self._set(self._before)
                self._down = up and crowded and self.now > FEW_CONNECTIONS
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
        if crowded and self.now > FEW_CONNECTIONS and (self._down or self.now >= self.most):
            self._try(max(FEW_CONNECTIONS, self.now // 2), rate, now)
        elif self.now < self.most:
            self._try(2 * self.now, rate, now)

    def _try(self, connections: int, rate: float, now: float) -> None:
        self._rate_before, self._before = rate, self.now
        self._settle_until = now + SETTLE_SECONDS
        self._set(connections)

    def _set(self, connections: int) -> None:
        self.now = min(connections, self.most)


@dataclass
class TokenBucket:
    """A rate in bytes per second, with a tenth of a second of it at once."""

    rate: int | None = None
    _free_at: float = 0.0

    def take(self, count: int, now: float) -> float:
        """Take so many bytes. Returns how many seconds to wait before going on."""
        if self.rate is None:
            return 0.0
        start = max(self._free_at, now - 0.1)
        self._free_at = start + count / self.rate
        return max(0.0, self._free_at - now)
