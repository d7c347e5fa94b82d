"""The page of `kubectl localmodel ui` in a browser: what a person does with it, and sees of it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import prefer, resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

SECONDS = 60.0

Found = TypeVar("Found")


class Page:
    """An open page."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.open()

    def open(self) -> None:
        """Open the page, and wait for the matrix."""
        resize(self.driver, 1500, 900)
        prefer(self.driver, prefers_color_scheme="light")
        self._errors()
        self.driver.get(self.url)
        self.until(
            lambda: self.script("return performance.getEntriesByName('matrix-drawn').length")
        )

    def until(self, check: Callable[[], Any], seconds: float = SECONDS) -> Any:
        end = time.monotonic() + seconds
        while not (found := check()):
            assert time.monotonic() < end, f"it did not happen: {self.text('body')[:2000]}"
            time.sleep(0.05)
        return found

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[str]:
        """The texts of the elements."""
        code = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        found: list[str] = self.driver.execute_script(code, css)
        return found

    def text(self, css: str) -> str:
        return self._now(lambda: self.find(css).text)

    def click(self, css: str) -> None:
        self._now(lambda: self.find(css).click())

    @staticmethod
    def _now(act: Callable[[], Found]) -> Found:
        """Do something with an element, once more if the page draws it anew meanwhile."""
        while True:
            with suppress(StaleElementReferenceException):
                return act()

    def label(self, name: str) -> str:
        """The accessible name of a cell that begins so; empty if no such cell is drawn."""
        code = (
            "return [...document.querySelectorAll('#grid [aria-label]')].filter("
            "e => !e.closest('[hidden]')).map(e => e.getAttribute('aria-label')).find("
            "l => l.startsWith(arguments[0])) ?? ''"
        )
        return str(self.driver.execute_script(code, name))

    def sees(self, name: str) -> None:
        """Wait for a cell with a name that begins so."""
        self.until(lambda: self.label(name))

    @property
    def focused(self) -> str:
        """The accessible name, or the id, of the element that has the focus."""
        return str(
            self.script(
                "return document.activeElement.getAttribute('aria-label')"
                " ?? document.activeElement.id"
            )
        )

    @property
    def nodes(self) -> list[str]:
        """The names of the rows that are drawn, from top to bottom."""
        return [
            text.removeprefix("▲ ")
            for text in self.script(
                "return [...document.querySelectorAll('#body .row:not(.section):not([hidden])')]"
                ".sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"
                ".map(e => e.querySelector('.label').textContent)"
            )
        ]

    @property
    def models(self) -> list[str]:
        """The names of the columns, from left to right."""
        return self.all("#head .model .label")

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def with_control(self, key: str) -> None:
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(
            Keys.CONTROL
        ).perform()

    def assert_no_errors(self) -> None:
        """No script failed, and nothing broke the content security policy."""
        assert self._errors() == []

    def _errors(self) -> list[dict[str, Any]]:
        """What the browser has logged since the last call."""
        driver: Any = self.driver
        found: list[dict[str, Any]] = driver.get_log("browser")
        return found
