"""How downloads are shown: bars on a terminal, and plain lines everywhere else. On stderr."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from localmodel.crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import TaskID
    from structlog.typing import EventDict, WrappedLogger

# Plain lines of one model are at least so far apart.
LINE_SECONDS = 5.0

_REFRESHES_PER_SECOND = 5
_NAME_WIDTH = 40


@dataclass(frozen=True)
class Shown:
    """What is to be seen of one model."""

    state: str
    done: int = 0
    total: int | None = None
    bytes_per_second: int | None = None

    @property
    def amount(self) -> str:
        """Bytes that are here, of all."""
        total = "?" if self.total is None else format_quantity(self.total)
        return f"{format_quantity(self.done)}/{total}"

    @property
    def rate(self) -> str:
        """The speed, or nothing."""
        rate = self.bytes_per_second
        return "" if not rate or rate < 0 else f"{format_quantity(rate)}/s"

    @property
    def left(self) -> str:
        """How long the rest takes, or nothing."""
        rate = self.bytes_per_second
        if not rate or rate < 0 or self.total is None or self.done >= self.total:
            return ""
        return f"{duration((self.total - self.done) / rate)} left"


class Display(Protocol):
    """Calls may come from several threads."""

    def show(self, name: str, shown: Shown) -> None:
        """A model is like this now."""
        ...

    def drop(self, name: str) -> None:
        """Show a model no longer."""
        ...

    def say(self, line: str) -> None:
        """Something has happened."""
        ...

    def close(self) -> None:
        """End the display; what it showed last stays."""
        ...


def make_display(*, quiet: bool = False) -> Display:
    """The display for where stderr goes to."""
    if quiet:
        return Lines(sys.stderr, every=None)
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - a pipe needs none of it

        console = Console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            return Bars(console)
    return Lines(sys.stderr)


class Lines:
    """A line for each event, and one for each model now and then; with `every` None, no such."""

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
        """Write how far it is, if that is due."""
        if self._every is None:
            return
        with self._lock:
            now = self._clock()
            # What is over quickly needs no line on its way.
            due = self._due.setdefault(name, now + self._every)
            if now < due:
                return
            self._due[name] = now + self._every
            self._write(" ".join(filter(None, (_line(name, shown), shown.rate, shown.left))))

    def drop(self, name: str) -> None:
        """Forget when its line was due."""
        with self._lock:
            self._due.pop(name, None)

    def say(self, line: str) -> None:
        """Write it."""
        if self._every is not None:
            with self._lock:
                self._write(line)

    def close(self) -> None:
        """Nothing is left to do."""

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # Nobody listens; the download goes on.
            self._every = None


class Bars:
    """A line with a bar for each model, which changes in its place. Events scroll above."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        def column(field: str) -> TextColumn:
            return TextColumn("{task.fields[" + field + "]}", markup=False)

        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            # A name is no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            column("amount"),
            column("rate"),
            column("left"),
            column("state"),
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            expand=True,
            # It may lead elsewhere than stderr does.
            redirect_stdout=False,
        )
        self._progress.start()

    def show(self, name: str, shown: Shown) -> None:
        """Set its bar."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(
                    _shortened(name), total=None, amount="", rate="", left="", state=""
                )
            self._progress.update(
                self._tasks[name],
                completed=shown.done,
                # An empty model is complete, and no bar of unknown length.
                total=shown.total or (1 if shown.total == 0 else None),
                amount=shown.amount if shown.done or shown.total is not None else "",
                rate=shown.rate,
                left=shown.left,
                state=shown.state,
            )

    def drop(self, name: str) -> None:
        """Take its bar away."""
        with self._lock:
            task = self._tasks.pop(name, None)
            if task is not None:
                self._progress.remove_task(task)

    def say(self, line: str) -> None:
        """Print it above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Draw a last time, and let the terminal go."""
        self._progress.stop()


class LogLines:
    """A processor of structlog that makes what other modules log a line of the display."""

    def __init__(self, display: Display, silent: frozenset[str] = frozenset()) -> None:
        self._display = display
        self._silent = silent

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> str:
        """Say what is a warning or worse; the rest is seen anyway."""
        from structlog import DropEvent  # noqa: PLC0415

        text = str(event.pop("event", ""))
        failed = event.pop("exc_info", None)
        if method in {"warning", "error", "exception", "critical"} and text not in self._silent:
            details = " ".join(f"{name}={value}" for name, value in event.items())
            self._display.say(f"{text} {details}".rstrip())
            if failed:
                self._display.say(traceback.format_exc().rstrip())
        raise DropEvent


def duration(seconds: float) -> str:
    """A time for a person, such as 1h02m, 3m20s or 4.2s."""
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
