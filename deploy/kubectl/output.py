"""Output: tables for people, JSON for programs."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from crds.quantity import format_quantity
from deploy.kubectl.links import in_words, moment
from deploy.kubectl.printable import escaped, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Where the output is no terminal, a row is a line, as long as it is.
_PIPE_WIDTH = 10_000
STYLES = {
    **dict.fromkeys(("ok", "available", "True"), "green"),
    **dict.fromkeys(
        ("waiting", "unknown", "downloading", "unreported", "evicted", "removing"), "yellow"
    ),
    **dict.fromkeys(("broken", "failed", "not-ready", "False"), "red"),
}


class Column(NamedTuple):
    """A column of a table. right: numbers. wraps: a text that may take several lines."""

    title: str
    right: bool = False
    wraps: bool = False


def console() -> Console:
    """The console of the standard output. rich leaves colours out by NO_COLOR and in pipes."""
    from rich.console import Console  # noqa: PLC0415 - JSON needs no rich

    return Console(highlight=False, soft_wrap=False)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """A table, on a terminal with a line below the titles."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    made = Table(
        box=box.SIMPLE_HEAD if is_terminal() else None,
        # A narrow terminal has no room for wide gaps.
        padding=(0, 1, 0, 0) if is_terminal() else (0, 1),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row in rows:
        made.add_row(*(text(cell, STYLES.get(cell, "")) for cell in row))
    return made


def text(words: str, style: str = "") -> Text:
    """A line of words, in which the brackets of names and messages are no markup."""
    from rich.text import Text  # noqa: PLC0415

    return Text(printable(words), style)


def echo(words: str = "") -> None:
    """Print a line without rich."""
    click.echo(printable(words))


def show(parts: Iterable[Table | Text]) -> None:
    """Print tables and texts: to a terminal in its width, elsewhere without cutting anything."""
    out = console()
    if out.is_terminal:
        for part in parts:
            out.print(part)
        return
    click.echo(plain(parts), nl=False)


def plain(parts: Iterable[Table | Text]) -> str:
    """Tables and texts as text without colours, and without spaces at the ends of lines."""
    from rich.console import Console  # noqa: PLC0415

    written = io.StringIO()
    out = Console(file=written, width=_PIPE_WIDTH, color_system=None, highlight=False)
    for part in parts:
        out.print(part)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def is_terminal() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout.isatty()


def show_json(value: Any) -> None:
    """Print a value as one JSON document, indented on a terminal."""
    encoded = msgspec.json.encode(value)
    if is_terminal():
        click.echo(escaped(msgspec.json.format(encoded, indent=2).decode()))
    else:
        click.echo(encoded)


def size(number: int) -> str:
    """Bytes for people; a dash for none."""
    return format_quantity(number) if number else "-"


def rate(number: int) -> str:
    """Bytes per second for people; a dash for none."""
    return f"{format_quantity(number)}/s" if number else "-"


def left(eta: str, now: datetime) -> str:
    """How long until a time; a dash if the time is not known."""
    then = moment(eta)
    return in_words(max((then - now).total_seconds(), 0)) if then else "-"


def ago(since: str, now: datetime) -> str:
    """How long ago a time was; a dash if the time is not known."""
    then = moment(since)
    return in_words(max((now - then).total_seconds(), 0)) if then else "-"
