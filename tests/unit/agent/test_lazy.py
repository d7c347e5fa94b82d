from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.sources import all_sources
from agent.sources.lazy import Lazy

THREADS = 4


def test_one_thread_makes_it_for_all() -> None:
    begun, made = threading.Barrier(THREADS), []

    def make() -> object:
        made.append(object())
        return made[-1]

    lazy = Lazy(make)

    def ask() -> object:
        begun.wait(20)
        return lazy.get()

    with ThreadPoolExecutor(THREADS) as threads:
        answers = [one.result() for one in [threads.submit(ask) for _ in range(THREADS)]]
    assert answers == made * THREADS


def test_a_failure_is_tried_again() -> None:
    failures = [OSError("once")]

    def make() -> str:
        if failures:
            raise failures.pop()
        return "made"

    lazy = Lazy(make)
    with pytest.raises(OSError, match="once"):
        lazy.get()
    assert lazy.get() == "made"


def test_only_what_is_made_is_used() -> None:
    used: list[str] = []
    lazy = Lazy(lambda: "made")
    lazy.use(used.append)
    assert used == []
    lazy.get()
    lazy.use(used.append)
    assert used == ["made"]


def test_schemes_of_one_kind_share_a_source() -> None:
    sources = all_sources()
    web = sources.of("http://host/m.bin", "")
    assert sources.of("https://host/m.bin", "") is web
    assert sources.of("http://host/other.bin", "team") is not web
    assert sources.of("hdfs://host/m", "") is sources.of("webhdfs://host/m", "")
