from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from agent.commands import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    handlers, level = logging.root.handlers, logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers, logging.root.level = handlers, level


def fail(password: str) -> None:
    try:
        [][len(password)]
    except IndexError:
        structlog.get_logger().exception("Step failed", nodeName="n")


@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    logs.configure(log_format)
    fail("s3cret")
    text = capsys.readouterr().err
    assert "list index out of range" in text
    assert "s3cret" not in text


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto")
    structlog.get_logger().info("Agent started", nodeName="n")
    logging.getLogger("urllib3").error("of a library")
    logging.getLogger("urllib3").warning("Retrying /path?token=s3cret")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["message"], ours["level"], ours["nodeName"]) == ("Agent started", "info", "n")
    assert theirs["message"] == "of a library"
