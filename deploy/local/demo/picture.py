"""Draws the headings and checks of a demo as an SVG, for README.md: `make demo-picture`.

It reads what `make demo` printed from its standard input, and writes the SVG to its output.
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.text import Text

WIDTH = 92
# The template of rich loads fonts from the network, which a page of documentation must not do.
_FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
_SHOWN = re.compile(r"▶ (?!Stop)|  ✓ |    (cold|warm) |Every check")
_STYLES = {"▶": "bold cyan", "✓": "green"}


def shown(line: str) -> bool:
    """Whether the picture has a line of the demo: what happens, and what was checked."""
    return _SHOWN.match(line) is not None


def styled(line: str) -> Text:
    """A line with the colours of its mark."""
    text = Text(line.rstrip())
    mark = line.strip()[:1]
    if mark == "▶":
        text.stylize(_STYLES[mark])
    elif mark == "✓":
        text.stylize(_STYLES[mark], 0, line.index(mark) + 1)
    elif line.startswith("Every"):
        text.stylize("bold")
    return text


def draw(lines: list[str]) -> str:
    """The SVG of the lines of a demo that are shown."""
    from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: PLC0415 - rich's own

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in filter(shown, lines):
        console.print(styled(line), overflow="ellipsis", no_wrap=True)
    template = _FONT_FACES.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "monospace")
    return console.export_svg(title="make demo", code_format=template, unique_id="demo")


if __name__ == "__main__":
    sys.stdout.write(draw(sys.stdin.readlines()))
