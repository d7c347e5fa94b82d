"""The plugin's page in a real browser, with recorded objects on a small API server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from deploy.kube.client import KubeClient
from deploy.kube.kinds import CACHES, GROUPS, LOCAL_MODEL_NODES, NODES, PLACEMENTS
from deploy.kubectl.ui import watching
from deploy.kubectl.ui.running import running
from deploy.local.layout import CHECKOUT
from tests.browser import MISSING, browser, is_installed, prefer, resize
from tests.recorded_api import RecordedApi, serving
from tests.ui_page import Page
from tests.unit.agent.api_server import write_kubeconfig
from tests.unit.deploy.ui_objects import (
    cache,
    cluster,
    group,
    local_model_node,
    node,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome


pytestmark = [
    pytest.mark.skipif(not is_installed(), reason=MISSING),
    pytest.mark.timeout(180),  # starts a browser
]
MESSAGE = "403 Forbidden: give the secret the right to read it"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@contextmanager
def the_page(api: RecordedApi, chrome: Chrome, folder: Path) -> Iterator[Page]:
    with serving(api) as server:
        client = KubeClient.connect(write_kubeconfig(folder / "kubeconfig", server.url))
        with running(client, "test") as page_server:
            yield Page(chrome, page_server.url)
            chrome.get("about:blank")


@pytest.fixture
def api() -> RecordedApi:
    objects = cluster(4)
    failed = report("mistral", "Failed", reason="AccessDenied", message=MESSAGE, attempts=3)
    objects["LocalModelNode"][1] = local_model_node(
        "node-2", report("llama"), failed, report("qwen")
    )
    return RecordedApi(objects)


@pytest.fixture
def page(api: RecordedApi, chrome: Chrome, tmp_path: Path) -> Iterator[Page]:
    with the_page(api, chrome, tmp_path) as found:
        yield found


def downloading(api: RecordedApi, done: int) -> None:
    """node-1 has downloaded so many bytes of 1000 of qwen."""
    state = report("qwen", "Downloading", downloadedBytes=done, bytesPerSecond=100)
    changed = local_model_node("node-1", report("llama"), report("mistral"), state)
    api.put(LOCAL_MODEL_NODES, changed)


def test_the_matrix(page: Page) -> None:
    assert page.models == ["llama", "mistral", "qwen"]
    assert page.nodes == ["node-1", "node-2", "node-3", "node-4"]
    assert page.label("mistral on node-2") == "mistral on node-2: failed, AccessDenied"
    assert page.label("llama on node-1") == "llama on node-1: available"
    assert page.label("Group gpu") == "Group gpu: 4 nodes · 11 of 12 copies available · 1 failed"
    assert page.label("node-1,") == "node-1, 60 GiB free of 100 GiB"
    assert page.label("mistral, ") == "mistral, 3 of 4 copies available, 1 failed"
    assert page.text("#summary") == "4 nodes · 3 models · 11 of 12 copies available"
    assert page.text("#link") == "Live"
    page.assert_no_errors()


def test_assistive_technology_finds_a_grid(page: Page) -> None:
    grid = page.find("#grid")
    assert (grid.aria_role, grid.accessible_name) == ("grid", "Models on nodes")
    # Head, section and four nodes; names and three models.
    assert (grid.get_attribute("aria-rowcount"), grid.get_attribute("aria-colcount")) == ("6", "4")
    cell = page.find('[aria-label^="mistral on node-2"]')
    assert cell.aria_role in {"gridcell", "cell"}
    assert cell.get_attribute("aria-colindex") == "3"
    row = cell.find_element(By.XPATH, "..")
    assert (row.aria_role, row.get_attribute("aria-rowindex")) == ("row", "4")
    # One stop of the Tab key in the grid.
    assert page.script("return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1
    # A state is a letter or a word, not a colour alone.
    assert cell.text == "failed"
    unnamed = (
        "return [...document.querySelectorAll('button, input, select')].filter("
        "e => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).length"
    )
    assert page.script(unnamed) == 0


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.press("/")
    assert page.focused == "search"
    page.press(Keys.TAB)
    for _ in range(12):
        if page.script("return document.activeElement.closest('#grid') !== null"):
            break
        page.press(Keys.TAB)
    page.with_control(Keys.HOME)
    assert page.focused.startswith("Group gpu")
    page.press(Keys.ARROW_DOWN)
    assert page.focused.startswith("node-1,")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert page.focused == "mistral on node-2: failed, AccessDenied"
    page.press(Keys.END)
    assert page.focused.startswith("qwen on node-2")
    page.press(Keys.HOME)
    assert page.focused.startswith("node-2,")
    page.with_control(Keys.END)
    assert page.focused.startswith("qwen on node-4")
    page.press(Keys.PAGE_UP, Keys.ARROW_UP)
    assert page.focused.startswith("qwen, ")
    page.press(Keys.PAGE_DOWN)
    assert page.focused.startswith("qwen on node-4")
    page.press("n")
    assert page.focused == "mistral on node-2: failed, AccessDenied"
    outline = "return getComputedStyle(document.activeElement).outlineWidth"
    assert page.script(outline) == "3px"
    page.press(Keys.ENTER)
    page.until(lambda: MESSAGE in page.text("#details"))
    assert page.focused == "mistral on node-2: failed, AccessDenied"
    page.press(Keys.ESCAPE)
    page.until(lambda: page.text("#details h2") == "Problems")
    assert page.focused == "mistral on node-2: failed, AccessDenied"


def test_a_section_is_closed_and_opened_by_the_keyboard(page: Page) -> None:
    page.click('[aria-label^="Group gpu"]')
    assert page.nodes == []
    assert page.find('[aria-label^="Group gpu"]').get_attribute("aria-expanded") == "false"
    page.press(Keys.ARROW_RIGHT)
    assert len(page.nodes) == 4
    page.press(Keys.ARROW_LEFT)
    assert page.nodes == []
    page.press(Keys.ENTER)
    assert len(page.nodes) == 4
    assert page.focused.startswith("Group gpu")


def test_a_cell_says_why(page: Page) -> None:
    page.click('[aria-label^="mistral on node-2"]')
    page.until(lambda: MESSAGE in page.text("#details"))
    text = page.text("#details")
    assert "mistral\non node-2\nfailed, AccessDenied" in text
    assert "s3://models/mistral" in text
    assert "Failed tries\n3" in text
    # The panel follows the active cell.
    page.press(Keys.ARROW_DOWN)
    page.until(lambda: "on node-3" in page.text("#details"))
    # Models, nodes and problems have details too.
    page.click('[aria-label^="node-2,"]')
    page.until(lambda: "60 GiB free of 100 GiB" in page.text("#details"))
    page.click('[aria-label^="qwen, "]')
    page.until(lambda: "s3://models/qwen" in page.text("#details"))
    page.press(Keys.ESCAPE)
    page.click(".problem")
    page.until(lambda: MESSAGE in page.text("#details"))
    assert page.script("return document.querySelector('.opened').ariaLabel").startswith(
        "mistral on"
    )


def test_an_open_panel_is_asked_for_again_although_nothing_changes(page: Page) -> None:
    page.click('[aria-label^="mistral on node-2"]')
    asked = "return performance.getEntriesByType('resource').filter(e => e.name.includes('why?'))"
    page.until(lambda: len(page.script(asked)) > 1)
    assert MESSAGE in page.text("#details")


def test_a_download_is_seen_live(page: Page, api: RecordedApi) -> None:
    page.click('[aria-label^="qwen on node-1"]')
    for percent in (10, 60):
        downloading(api, percent * 10)
        page.sees(f"qwen on node-1: downloading, {percent} %, 100 B/s")
        page.until(lambda: f"{percent} %" in page.text(".badge"))  # noqa: B023
    assert "1 downloading at 100 B/s" in page.text("#summary")
    api.put(LOCAL_MODEL_NODES, cluster()["LocalModelNode"][0])
    page.sees("qwen on node-1: available")
    api.put(NODES, node("node-1", ready=False))
    page.sees("qwen on node-1: node not ready")
    page.until(lambda: "▲ node-1" in page.all("#body .label"))


def test_nodes_caches_and_groups_come_and_go(page: Page, api: RecordedApi) -> None:
    api.put(CACHES, cache("zephyr", "cpu"))
    api.put(GROUPS, group("cpu"))
    api.put(LOCAL_MODEL_NODES, local_model_node("cpu-1", report("zephyr"), groups=("cpu",)))
    page.sees("zephyr on cpu-1: available")
    page.sees("zephyr on node-1: not planned")
    assert page.all(".section:not([hidden]) .label") == ["▾ cpu", "▾ gpu"]
    page.until(lambda: page.all("#group option") == ["all", "cpu", "gpu"])
    api.remove(LOCAL_MODEL_NODES, "cpu-1")
    api.remove(CACHES, "zephyr")
    page.until(lambda: page.models == ["llama", "mistral", "qwen"])
    assert "cpu-1" not in page.nodes


def test_filter_sort_and_search(page: Page, api: RecordedApi) -> None:
    page.click('.chip[data-state="F"]')
    assert (page.nodes, page.models) == (["node-2"], ["mistral"])
    # The filter is live.
    failed = report("qwen", "Failed", reason="DiskFull")
    api.put(LOCAL_MODEL_NODES, local_model_node("node-4", report("llama"), failed))
    page.until(lambda: page.nodes == ["node-2", "node-4"])
    assert page.models == ["mistral", "qwen"]
    page.click('.chip[data-state="F"]')
    Select(page.find("#sort")).select_by_value("state")
    assert page.nodes[:2] == ["node-2", "node-4"]
    Select(page.find("#order")).select_by_value("state")
    assert page.models == ["mistral", "qwen", "llama"]
    page.press("/")
    page.press("node-3", " ", "lla")
    page.until(lambda: (page.nodes, page.models) == (["node-3"], ["llama"]))
    page.press(Keys.ENTER)
    assert page.focused.startswith("llama on node-3")
    page.press("/", "nothing")
    page.until(lambda: "Nothing matches" in page.text("#empty"))
    page.press(Keys.ESCAPE)
    page.until(lambda: len(page.nodes) == 4)
    assert page.find("#search").get_attribute("value") == ""


def test_groups_are_sections_and_a_filter(chrome: Chrome, tmp_path: Path) -> None:
    objects = cluster(1)
    objects["LocalModelCache"].append(cache("zephyr", "cpu"))
    objects["LocalModelNodeGroup"].append(group("cpu"))
    objects["LocalModelNode"] += [
        local_model_node("cpu-1", report("zephyr"), groups=("cpu",)),
        local_model_node("both-1", report("zephyr"), report("llama"), groups=("cpu", "gpu")),
    ]
    with the_page(RecordedApi(objects), chrome, tmp_path) as page:
        assert page.all(".section .label") == ["▾ cpu", "▾ cpu + gpu", "▾ gpu"]
        Select(page.find("#group")).select_by_value("cpu")
        assert page.nodes == ["cpu-1", "both-1"]
        assert page.models == ["zephyr"]


def test_it_says_that_the_cluster_is_gone_and_goes_on(
    chrome: Chrome, api: RecordedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PROBE_SECONDS", 0.3)
    with serving(api) as server:
        port = server.port
        client = KubeClient.connect(write_kubeconfig(tmp_path / "kubeconfig", server.url))
        context = running(client, "test")
        page = Page(chrome, context.__enter__().url)
    try:
        page.until(lambda: "Not connected" in page.text("#link"))
        assert re.search(r"data \d+ s old", page.text("#link"))
        assert "does not answer" in page.text("#trouble")
        # What was known stays.
        assert page.label("mistral on node-2") == "mistral on node-2: failed, AccessDenied"
        downloading(api, 500)
        with serving(api, port):
            page.until(lambda: page.text("#link") == "Live")
            page.sees("qwen on node-1: downloading, 50 %")
            assert not page.find("#trouble").is_displayed()
            context.__exit__(None, None, None)
            page.until(lambda: page.text("#link").startswith("Stopped"))
            assert "start it again" in page.text("#trouble")
    finally:
        chrome.get("about:blank")


def test_what_may_not_be_read_is_named(chrome: Chrome, api: RecordedApi, tmp_path: Path) -> None:
    api.refused[PLACEMENTS.plural] = (403, "forbidden by the test")
    with the_page(api, chrome, tmp_path) as page:
        page.until(lambda: page.text("#link") == "Live, with gaps")
        assert "LocalModelPlacements: forbidden by the test" in page.text("#trouble")
        assert len(page.nodes) == 4


def test_the_work_is_bounded_by_the_window(chrome: Chrome, tmp_path: Path) -> None:
    """Neither elements nor the bytes of a change grow with the cluster."""
    elements, changes = [], []
    for number in (240, 480):
        api = RecordedApi(big(number, number // 4))
        with the_page(api, chrome, tmp_path) as page:
            page.press("/", Keys.ENTER)
            page.with_control(Keys.END)
            assert page.focused.startswith(f"model-{number // 4} on node-{number}:")
            elements.append(page.script("return document.querySelectorAll('*').length"))
            page.script(
                "window.got = [];"
                "const stream = new EventSource('events');"
                "stream.addEventListener('message', event => got.push(event.data.length));"
            )
            page.until(lambda: page.script("return got.length") == 1)
            obj = api.get(LOCAL_MODEL_NODES, "node-1")
            obj["status"]["models"][0] |= {"state": "Failed", "reason": "DiskFull"}
            api.put(LOCAL_MODEL_NODES, obj)
            page.until(lambda: page.script("return got.length") == 2)
            changes.append(page.script("return got[1]"))
            page.assert_no_errors()
    assert elements[1] < elements[0] * 1.2
    assert elements[1] < 4000
    assert max(changes) < 300


def big(nodes: int, models: int) -> dict[str, list[dict[str, Any]]]:
    names = [f"model-{number}" for number in range(1, models + 1)]
    return {
        "LocalModelCache": [cache(name) for name in names],
        "LocalModelNodeGroup": [group("gpu")],
        "LocalModelNode": [
            local_model_node(f"node-{number}", *map(report, names))
            for number in range(1, nodes + 1)
        ],
    }


def test_texts_have_contrast(page: Page) -> None:
    """At least 4.5:1, as AA of WCAG says, in the light and in the dark."""
    pairs = [
        ("text", "page"),
        ("text", "sheet"),
        ("text", "hover"),
        ("muted", "page"),
        ("muted", "sheet"),
        ("muted", "odd"),
        ("bad", "sheet"),
        ("bad", "odd"),
        ("warn-text", "warn"),
        ("available-text", "available"),
        ("downloading-text", "downloading"),
        ("downloading-text", "downloading-fill"),
        ("pending-text", "pending"),
        ("failed-text", "failed"),
        ("evicted-text", "evicted"),
        ("away-text", "away"),
        ("away-text", "away-stripe"),
        ("removing-text", "removing"),
    ]
    for scheme in ("light", "dark"):
        prefer(page.driver, prefers_color_scheme=scheme)
        for front, back in pairs:
            found = contrast(page, front, back)
            assert found >= 4.5, f"{front} on {back} in {scheme}: {found:.1f}"
        # The focus, and what has no text.
        for mark in ("accent", "line-strong"):
            assert contrast(page, mark, "sheet") >= 3, f"{mark} in {scheme}"


def contrast(page: Page, front: str, back: str) -> float:
    values = [
        page.script(
            f"return getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
        )
        for name in (front, back)
    ]
    light, dark = sorted((luminance(value) for value in values), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_moves_for_who_prefers_that(page: Page) -> None:
    prefer(page.driver, prefers_reduced_motion="reduce")
    moving = (
        "return [...document.querySelectorAll('*')].filter(e => "
        "getComputedStyle(e).transitionDuration !== '0s'"
        " || getComputedStyle(e).animationName !== 'none').length"
    )
    assert page.script(moving) == 0


def test_a_narrow_window(page: Page) -> None:
    resize(page.driver, 420, 760)
    page.until(lambda: not page.find("#details").is_displayed())
    page.press("n", Keys.ENTER)
    page.until(lambda: MESSAGE in page.text("#details"))
    wide = "return document.documentElement.scrollWidth <= innerWidth"
    assert page.script(wide)
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.find("#details").is_displayed())


def test_the_command(api: RecordedApi, chrome: Chrome, tmp_path: Path) -> None:
    """It prints the address, serves the page, and ends with Ctrl-C."""
    with serving(api) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.kubectl.main", "--kubeconfig", kubeconfig),
                *("ui", "--no-browser"),
            ],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                url = process.stdout.readline().strip()
                assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
                assert process.stdout.readline() == "Ctrl-C stops it.\n"
                chrome.get(url)
                assert chrome.title.startswith("localmodel")
                chrome.get("about:blank")
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0
            finally:
                process.kill()
