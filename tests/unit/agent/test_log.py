from __future__ import annotations

import io

from structlog.testing import capture_logs

from agent.commands.progress import Lines, LogLines
from agent.structs.log import Log


def test_events_go_to_structlog_unless_an_object_receives_them() -> None:
    log, written = Log(), io.StringIO()
    with capture_logs() as seen:
        log.warning("one", key="k")
        log.send_to(LogLines(Lines(written)))
        log.warning("two", key="k")
        log.send_to(None)
        log.info("three")
    assert [(event["event"], event["log_level"]) for event in seen] == [
        ("one", "warning"),
        ("three", "info"),
    ]
    assert written.getvalue() == "two key=k\n"


def test_a_display_shows_warnings_and_errors_with_their_tracebacks() -> None:
    written = io.StringIO()
    log = LogLines(Lines(written), silent=frozenset({"known"}))
    log.debug("hidden")
    log.info("hidden", key="k")
    log.error("failed", key="k", reason="r")
    for event in ("unexpected", "known"):
        try:
            int("missing")
        except ValueError:
            log.exception(event, key="k")
            log.warning("known")
    first, second, *trace = written.getvalue().splitlines()
    assert (first, second) == ("failed key=k reason=r", "unexpected key=k")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: invalid literal for int() with base 10: 'missing'"
