"""Prints progress: a line for each step, with its duration."""

from __future__ import annotations

import itertools
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_SECONDS = 0.1
# Without a terminal, the interval between the lines of a long step.
PLAIN_SECONDS = 15.0


def progress_line(mark: str, text: str, seconds: float, note: str, width: int) -> str:
    """The line of a step in progress, cut to the width of the terminal."""
    line = f"{mark} {text} … {seconds:.0f} s"
    if note:
        line += f"  {note}"
    return line[: max(width - 1, 10)]


class Console:
    """Prints steps: with a spinner on a terminal, as plain lines elsewhere."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._moving = stream is not None and stream.isatty()

    def line(self, text: str = "") -> None:
        """Print a line."""
        if self._stream is not None:
            print(text, file=self._stream, flush=True)

    @contextmanager
    def step(self, text: str, note: Callable[[], str] | None = None) -> Iterator[None]:
        """Show a step and its duration. note: returns a text on the step's progress."""
        if self._stream is None:
            yield
            return
        started = time.monotonic()
        done = threading.Event()
        show = self._move if self._moving else self._repeat
        ticker = threading.Thread(
            target=show, args=(text, note or (lambda: ""), started, done), daemon=True
        )
        ticker.start()
        mark = "✗"
        try:
            yield
            mark = "✓"
        finally:
            done.set()
            ticker.join()
            self.line(f"{mark} {text}  {time.monotonic() - started:.1f} s")

    def _move(
        self, text: str, note: Callable[[], str], started: float, done: threading.Event
    ) -> None:
        stream = self._stream or sys.stdout
        for frame in itertools.cycle(FRAMES):
            width = shutil.get_terminal_size().columns
            line = progress_line(frame, text, time.monotonic() - started, note(), width)
            stream.write(f"\r\033[K{line}")
            stream.flush()
            if done.wait(FRAME_SECONDS):
                break
        stream.write("\r\033[K")

    def _repeat(
        self, text: str, note: Callable[[], str], started: float, done: threading.Event
    ) -> None:
        while not done.wait(PLAIN_SECONDS):
            self.line(progress_line("…", text, time.monotonic() - started, note(), 200))


def silent() -> Console:
    """A console that prints nothing."""
    return Console(None)
