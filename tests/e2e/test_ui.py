"""The page of the kubectl plugin on a cluster: a download is seen live, and its copy goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from deploy.kube.kinds import CACHES
from deploy.kubectl.ui.running import running
from tests.browser import MISSING, browser, is_installed
from tests.ui_page import Page

if TYPE_CHECKING:
    from tests.e2e.world import World

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)
# The download takes 100 seconds, of which the test sees two percentages: then it goes on quickly.
SLOW = 40_000.0


def test_a_download_is_seen_live(world: World) -> None:
    world.node("node-1", "ui")
    world.group("ui")
    uri = world.http.put("ui-model.bin", b"u" * 4_000_000)
    world.http.bytes_per_second = SLOW
    try:
        with running(world.api, "e2e") as server, browser() as driver:
            page = Page(driver, server.url)
            world.cache("ui-model", uri, "ui")
            page.sees("ui-model on node-1: downloading, ")
            page.click('[aria-label^="ui-model on node-1"]')

            def percent() -> int:
                found = re.search(r"(\d+) %", page.label("ui-model on node-1"))
                return int(found[1]) if found else 0

            first = page.until(percent)
            page.until(lambda: percent() > first)
            assert page.text("#link") == "Live"
            world.http.bytes_per_second = 0.0
            page.sees("ui-model on node-1: available")
            page.until(lambda: "available" in page.text(".badge"))
            assert world.published("node-1", uri)
            world.delete(CACHES, "ui-model")
            page.until(lambda: "ui-model" not in page.models)
            page.assert_no_errors()
    finally:
        world.http.bytes_per_second = 0.0
        world.remove_caches("ui-model")
