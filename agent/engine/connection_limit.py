"""How many connections an origin gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.structs.options import MAX_CONNECTIONS

START_CONNECTIONS = 16
# The number where the CPU is the bottleneck: more connections would only slow each other down.
FEW_CONNECTIONS = 4
# How long bytes come, or are waited for, before the number is raised for the first time.
PROBE_SECONDS = 0.1
# How long the rate is measured to judge one step.
STEP_SECONDS = 0.3
# How long new connections take to reach their full rate.
SETTLE_SECONDS = 0.2
# A step up is kept if the rate is at least GAIN times the former one, a step down if it is at least
# KEPT times that. A rate below COLLAPSE times the best one is a collapse.
GAIN = 1.1
KEPT = 0.95
COLLAPSE = 0.5
# More connections help only where at least AWAITING of them wait for bytes from the origin: the
# others wait for the disk, or for each other.
AWAITING = 0.5
# Where HELD of them wait for bytes, and each has SAME of the highest rate that one ever had, the
# origin or the round trip holds each of them: the next step follows at once. The rate is that
# between two samples, the first of them QUICK_SETTLE_SECONDS after the last step; it is exact
# enough if each connection brought QUICK_BYTES.
HELD = 0.75
SAME = 0.8
QUICK_SETTLE_SECONDS = 0.05
QUICK_BYTES = 1 << 20
# How long no step is tried after one that was undone, and after a refusal by the origin.
HOLD_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sample:
    """An origin's connections at one moment, `now` in monotonic seconds.

    received: the total of bytes from the origin. busy: most of the allowed connections are in use.
    awaiting: the part of them that waits for bytes from the origin. cpu_bound: the fetch threads
    waited for a CPU since the last sample.
    """

    received: int
    now: float
    busy: bool
    awaiting: float = 1.0
    cpu_bound: bool = False

    def rate_since(self, earlier: Sample) -> float:
        """The bytes per second that came since then."""
        return (self.received - earlier.received) / (self.now - earlier.now)


@dataclass(slots=True)
class _Window:
    """What is known of the time since a sample."""

    since: Sample
    samples: int = 0
    awaiting: float = 0.0
    cpu_bound: int = 0

    def add(self, sample: Sample) -> None:
        self.samples += 1
        self.awaiting += sample.awaiting
        self.cpu_bound += sample.cpu_bound

    def seconds(self, now: float) -> float:
        return now - self.since.now

    @property
    def is_cpu_bound(self) -> bool:
        return 2 * self.cpu_bound > self.samples

    @property
    def mean_awaiting(self) -> float:
        return self.awaiting / max(self.samples, 1)


@dataclass
class ConnectionLimit:
    """How many connections are opened to one origin: `now`. Times are monotonic seconds.

    Origins throttle each connection, so more connections are faster, up to a point: some origins
    throttle a client as a whole that opens too many. So the number doubles while the rate grows
    with it, and halves when the origin refuses or the rate collapses. It doubles sooner while each
    connection keeps its rate. Where the node is the bottleneck, more connections are useless, and
    where that is the CPU, fewer are faster: the number starts low, and is halved where that is no
    slower.
    """

    most: int = MAX_CONNECTIONS
    now: int = FEW_CONNECTIONS
    _is_probed: bool = False
    _hold_until: float = 0.0
    # When the last step was taken, and whether it was one up after which no rate is known yet.
    _is_raised: bool = False
    _stepped_at: float = 0.0
    _window: _Window | None = None
    _last: Sample | None = None
    # The number of connections before the step that is not judged yet, and their rate.
    _before: int = 0
    _rate_before: float = 0.0
    # The highest rates of all connections together, and of one of them, and the lowest number of
    # connections of which a rate is known.
    _best: float = 0.0
    _best_of_one: float = 0.0
    _fewest: int = MAX_CONNECTIONS

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
        self._before, self._best = 0, 0.0
        self._best_of_one, self._fewest = 0.0, self.most
        self._window = self._last = None

    def sample(self, sample: Sample) -> None:
        """Adapt `now`."""
        last, self._last = self._last, sample
        if not self._is_probed:
            self._probe(sample)
        elif not sample.busy or last is None or not last.busy:
            # With idle connections, the rate does not depend on their number.
            self._window = None
        elif self._is_held(last, sample):
            self._judge(sample.rate_since(last), sample.now, cpu_bound=False, awaiting=1.0)
        elif self._window is None:
            if sample.now - self._stepped_at >= SETTLE_SECONDS:
                self._window = _Window(sample)
        else:
            self._window.add(sample)
            if self._window.seconds(sample.now) >= STEP_SECONDS:
                window, self._window = self._window, _Window(sample)
                self._judge(
                    sample.rate_since(window.since),
                    sample.now,
                    cpu_bound=window.is_cpu_bound,
                    awaiting=window.mean_awaiting,
                )

    def refused(self, now: float, receiving: int = 0) -> None:
        """Lower `now`: the origin refused a connection while `receiving` ones got bytes.

        0 if their number is not known.
        """
        if now < self._hold_until - HOLD_SECONDS + STEP_SECONDS:
            # A burst of refusals counts once.
            return
        self._is_probed = True
        self._step(max(1, min(receiving, self.now - 1) if receiving else self.now // 2), now)
        # Fewer connections bring less, which is no collapse.
        self._before, self._best = 0, 0.0
        self._hold_until = now + HOLD_SECONDS

    def _probe(self, sample: Sample) -> None:
        """Raise the number for the first time, unless the CPU is the bottleneck."""
        window = self._window
        if window is None or (
            sample.received == window.since.received and sample.awaiting < AWAITING
        ):
            # The disk makes room for the file: this says nothing of the origin yet.
            self._window = _Window(sample)
            return
        window.add(sample)
        seconds = window.seconds(sample.now)
        is_held = window.is_cpu_bound and window.mean_awaiting >= HELD
        # Where both signs show, it is not sure yet which of them lasts.
        if seconds < PROBE_SECONDS or (is_held and seconds < STEP_SECONDS):
            return
        self._is_probed = True
        self._note(sample.rate_since(window.since))
        if is_held or not window.is_cpu_bound:
            self._step(START_CONNECTIONS, sample.now)

    def _is_held(self, last: Sample, sample: Sample) -> bool:
        """Whether each connection is held by the origin, and none by this node or by another."""
        count = sample.received - last.received
        if sample.cpu_bound or min(sample.awaiting, last.awaiting) < HELD:
            return False
        if last.now - self._stepped_at < QUICK_SETTLE_SECONDS or count < QUICK_BYTES * self.now:
            return False
        enough = self.now * SAME * self._best_of_one
        return self._is_raised and sample.rate_since(last) >= enough > 0

    def _judge(self, rate: float, now: float, *, cpu_bound: bool, awaiting: float) -> None:
        self._is_raised = False
        self._note(rate)
        if self._before:
            paid = rate >= (GAIN if self.now > self._before else KEPT) * self._rate_before
            before, self._before = self._before, 0
            if not paid:
                self._step(before, now)
                self._hold_until = now + HOLD_SECONDS
                return
        elif rate < COLLAPSE * self._best and self.now > START_CONNECTIONS:
            self._step(max(START_CONNECTIONS, self.now // 2), now)
            self._hold_until = now + HOLD_SECONDS
            self._best = rate
            return
        self._best = max(rate, self._best)
        if now < self._hold_until or rate <= 0:
            return
        if cpu_bound and awaiting < HELD:
            fewer = max(FEW_CONNECTIONS, self.now // 2)
            # Fewer of them do not bring as much if one never had so high a rate.
            is_possible = fewer * self._best_of_one >= KEPT * rate or self._fewest > fewer
            if fewer < self.now and is_possible:
                self._try(fewer, rate, now)
        elif awaiting >= AWAITING and self.now < self.most:
            self._try(2 * self.now, rate, now)

    def _note(self, rate: float) -> None:
        self._best_of_one = max(self._best_of_one, rate / self.now)
        self._fewest = min(self._fewest, self.now)

    def _try(self, connections: int, rate: float, now: float) -> None:
        self._rate_before, self._before = rate, self.now
        self._step(connections, now)

    def _step(self, connections: int, now: float) -> None:
        self._stepped_at, self._window, self._is_raised = now, None, connections > self.now
        self._set(connections)

    def _set(self, connections: int) -> None:
        self.now = min(connections, self.most)
