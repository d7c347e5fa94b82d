"""The order in which sources are asked about copies, without sources."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from agent.control.access_checks import Checks
from agent.structs.options import Options
from agent.structs.requests import Request, Requester
from tests.unit.agent.rows import WHOLE

if TYPE_CHECKING:
    import threading

    from agent.control.rows import Table

TENANT = Requester("team")
# As long as a check may take, and six of them are longer than a check is put off.
CHECK_SECONDS = 120.0
SLOW = [f"slow-{number}" for number in range(7)]


class Asked:
    """Notes which keys are checked."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def check(self, attempt: Request, _manifest: Any, _ended: threading.Event, _again: Any) -> None:
        self.keys.append(attempt.key)


def test_copies_whose_origin_is_slow_keep_no_other_from_being_checked() -> None:
    now = [1000.0]
    options = replace(Options(), monotonic=lambda: now[0], jitter=lambda: 0.0)
    workers, unused = Asked(), cast("Any", None)
    checks = Checks(cast("Any", workers), unused, unused, unused, options)
    rows = {
        key: SimpleNamespace(
            key=key,
            asking=[(TENANT, True)],
            retries={},
            request=SimpleNamespace(key=key, by=lambda _, key=key: SimpleNamespace(key=key)),
            manifest=WHOLE,
        )
        for key in [*SLOW, "last"]
    }
    for _ in range(200):
        table = SimpleNamespace(rows=rows, now=now[0])
        before = len(workers.keys)
        checks.begin(cast("Table", table))
        # No answer came in time.
        now[0] += CHECK_SECONDS
        for key in workers.keys[before:]:
            checks._rechecks.put_off(key, TENANT)
            del checks._running[key, TENANT]
    assert workers.keys.count("last") > 200 / len(rows) / 2
