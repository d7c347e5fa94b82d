"""The display of downloads on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import TaskID

# The shortest time between two plain progress lines of one model.
LINE_SECONDS = 5.0

_REFRESHES_PER_SECOND = 5
_NAME_WIDTH = 40


@dataclass(frozen=True)
class Shown:
    """What the display shows of one model. Sizes in bytes; `total` is None while unknown."""

    state: str
    done: int = 0
    total: int | None = None
    bytes_per_second: int | None = None

    @property
    def amount(self) -> str:
        """Downloaded bytes and all bytes, such as 5Mi/2Gi."""
        total = "?" if self.total is None else format_quantity(self.total)
        return f"{format_quantity(self.done)}/{total}"

    @property
    def rate(self) -> str:
        """The speed, or empty."""
        rate = self.bytes_per_second
        return "" if not rate or rate < 0 else f"{format_quantity(rate)}/s"

    @property
    def left(self) -> str:
        """The remaining time, or empty."""
        rate = self.bytes_per_second
        if not rate or rate < 0 or self.total is None or self.done >= self.total:
            return ""
        return f"{duration((self.total - self.done) / rate)} left"


class Display(Protocol):
    """A display of progress and messages. Calls may come from several threads."""

    def show(self, name: str, shown: Shown) -> None:
        """Show or update the progress of a model."""
        ...

    def drop(self, name: str) -> None:
        """Stop showing the progress of a model."""
        ...

    def say(self, line: str) -> None:
        """Print a message."""
        ...

    def close(self) -> None:
        """End the display; the last progress stays on the screen."""
        ...


def make_display(*, quiet: bool = False) -> Display:
    """The display that suits stderr: bars, lines, or nothing if `quiet`."""
    if quiet:
        return Lines(sys.stderr, every=None)
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow, and not needed for a pipe

        console = Console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            return Bars(console)
    return Lines(sys.stderr)


class Lines:
    """A display that prints messages, and a progress line for each model every `every` seconds.

    With `every` None, or after the reader of the stream has gone, nothing is printed.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        every: float | None = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        # Of the models that are shown, until `drop`.
        self._due: dict[str, float] = {}

    def show(self, name: str, shown: Shown) -> None:
        """Print a progress line, if that is due."""
        if self._every is None:
            return
        with self._lock:
            now = self._clock()
            # A short download gets no progress line.
            due = self._due.setdefault(name, now + self._every)
            if now < due:
                return
            self._due[name] = now + self._every
            self._write(" ".join(filter(None, (_line(name, shown), shown.rate, shown.left))))

    def drop(self, name: str) -> None:
        """Forget when the next progress line of a model is due."""
        with self._lock:
            self._due.pop(name, None)

    def say(self, line: str) -> None:
        """Print a message."""
        if self._every is not None:
            with self._lock:
                self._write(line)

    def close(self) -> None:
        """Do nothing: all lines are printed."""

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # The reader of the stream is gone; the download continues.
            self._every = None


class Bars:
    """A display with a progress bar for each model; messages scroll above the bars."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        def column(field: str) -> TextColumn:
            return TextColumn("{task.fields[" + field + "]}", markup=False)

        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            # Brackets in a name are not rich's markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            column("amount"),
            column("rate"),
            column("left"),
            column("state"),
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            expand=True,
            # stdout may be a pipe: the hash of a pull must arrive unchanged.
            redirect_stdout=False,
        )
        self._progress.start()

    def show(self, name: str, shown: Shown) -> None:
        """Add or update the bar of a model."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(
                    _shortened(name), total=None, amount="", rate="", left="", state=""
                )
            self._progress.update(
                self._tasks[name],
                completed=shown.done,
                # rich shows a total of 0 as unknown, but an empty model is complete.
                total=shown.total or (1 if shown.total == 0 else None),
                amount=shown.amount if shown.done or shown.total is not None else "",
                rate=shown.rate,
                left=shown.left,
                state=shown.state,
            )

    def drop(self, name: str) -> None:
        """Remove the bar of a model."""
        with self._lock:
            task = self._tasks.pop(name, None)
            if task is not None:
                self._progress.remove_task(task)

    def say(self, line: str) -> None:
        """Print a message above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Draw the bars a last time, and release the terminal."""
        self._progress.stop()


class LogLines:
    """Prints the warnings and errors of all modules in the display, which shows the rest itself.

    Events in `silent` are left out.
    """

    def __init__(self, display: Display, silent: frozenset[str] = frozenset()) -> None:
        self._display = display
        self._silent = silent

    def debug(self, event: str, **fields: object) -> None:
        """Print nothing."""

    info = debug

    def warning(self, event: str, **fields: object) -> None:
        """Print the event with its fields."""
        if event not in self._silent:
            details = " ".join(f"{name}={value}" for name, value in fields.items())
            self._display.say(f"{event} {details}".rstrip())

    error = warning

    def exception(self, event: str, **fields: object) -> None:
        """Print the event and the traceback of the exception that is being handled."""
        if event not in self._silent:
            self.warning(event, **fields)
            self._display.say(traceback.format_exc().rstrip())


def duration(seconds: float) -> str:
    """A duration for people, such as 1h02m, 3m20s or 4.2s."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m"


def _line(name: str, shown: Shown) -> str:
    percent = f" ({100 * shown.done // shown.total}%)" if shown.total else ""
    return f"{name}: {shown.state} {shown.amount}{percent}"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]
