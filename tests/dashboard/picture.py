"""Draws the dashboard as SVG from Prometheus' answers: its rows, panels, units and thresholds.

Not Grafana itself: the layout and the queries are the dashboard's, the drawing is this module's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.monitoring.panels import Panel, Row

WIDTH, MARGIN, GAP = 1320, 16, 8
TITLE_HEIGHT, ROW_HEIGHT, STAT_HEIGHT, GRAPH_HEIGHT = 52, 34, 92, 214
# Inside a graph: the room for the labels of the axes, the title, and the legend.
LEFT, RIGHT, TOP, LEGEND = 58, 14, 36, 38
LEGEND_LINE = 14
PAGE, CARD, EDGE, GRID = "#111217", "#181b1f", "#2c2f36", "#26292f"
TEXT, DIM = "#d5d7dc", "#8e929b"
PALETTE = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37c4c4", "#c0d8ff",
    "#e0b400", "#96d98d",
)  # fmt: skip
COLORS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
FONT = "Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
# Of a character, for a legend that must not overlap.
CHARACTER = 6.1
# Of the words that count what has no room in a legend.
MORE = 70
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


class Point(NamedTuple):
    """A value at a time (seconds since 1970)."""

    at: float
    value: float


@dataclass(frozen=True)
class Series:
    """One line of a panel."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Span:
    """The time that the picture shows, in seconds since 1970."""

    start: float
    end: float


def text_of(value: float, unit: str) -> str:
    """A value in a unit of Grafana, for people."""
    if unit in {"bytes", "Bps"}:
        power = min(int(math.log(abs(value), 1024)), len(_BINARY) - 1) if abs(value) >= 1 else 0
        number = value / 1024**power
        return f"{_short(number)} {_BINARY[power]}{'/s' if unit == 'Bps' else ''}"
    if unit == "percentunit":
        return f"{_short(value * 100)}%"
    if unit == "s":
        return f"{_short(value * 1000)} ms" if 0 < abs(value) < 1 else f"{_short(value)} s"
    return f"{_short(value)}{'/s' if unit == 'reqps' else ''}"


def _short(number: float) -> str:
    if abs(number) >= 100 or number == int(number):
        return f"{number:.0f}"
    return f"{number:.3g}"


def draw(rows: Sequence[tuple[Row, Sequence[Sequence[Series]]]], span: Span, title: str) -> str:
    """The picture. rows: each row with the series of each of its panels."""
    y, parts = float(TITLE_HEIGHT), [_text(MARGIN, 33, title, size=18, weight=600)]
    seconds = round(span.end - span.start)
    length = f"a load of {seconds // 60}:{seconds % 60:02d} minutes, from Prometheus' answers"
    parts.append(_text(WIDTH - MARGIN, 33, length, size=12, fill=DIM, anchor="end"))
    for row, answers in rows:
        parts.append(_text(MARGIN, y + 23, row.title, size=14, weight=600))
        y += ROW_HEIGHT
        is_stat = row.panels[0].kind == "stat"
        beside = len(row.panels) if is_stat else 3
        height = STAT_HEIGHT if is_stat else GRAPH_HEIGHT
        width = (WIDTH - 2 * MARGIN - (beside - 1) * GAP) / beside
        for number, (panel, series) in enumerate(zip(row.panels, answers, strict=True)):
            x = MARGIN + (number % beside) * (width + GAP)
            top = y + (number // beside) * (height + GAP)
            parts.append(_card(x, top, width, height))
            drawing = _stat if is_stat else _graph
            parts.append(drawing(panel, series, span, x, top, width, height))
        y += math.ceil(len(row.panels) / beside) * (height + GAP)
    height_all = y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height_all:.0f}" '
        f'width="{WIDTH}" height="{height_all:.0f}" font-family="{FONT}">\n'
        f'<rect width="100%" height="100%" fill="{PAGE}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _card(x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" '
        f'fill="{CARD}" stroke="{EDGE}"/>'
    )


def _stat(
    panel: Panel, series: Sequence[Series], span: Span, x: float, y: float, w: float, h: float
) -> str:
    (one,) = series or (Series(panel.title, ()),)
    values = [point for point in one.points if math.isfinite(point.value)]
    if not values:
        return _text(x + w / 2, y + h / 2, "no data", size=13, fill=DIM, anchor="middle")
    last = values[-1].value
    color = _color_at(panel, last)
    lines = [_text(x + 12, y + 22, panel.title, size=12, fill=TEXT)]
    lines.append(_text(x + 12, y + 58, text_of(last, panel.unit), size=26, fill=color, weight=600))
    top = max(1e-9, *(point.value for point in values))
    scale = _Scale(span, 0, top * 1.05, x, y + h - 26, w, 26)
    lines.append(_area(values, None, scale, color, 0.25))
    return "\n".join(lines)


@dataclass(frozen=True)
class _Scale:
    """From times and values to places in a rectangle."""

    span: Span
    low: float
    high: float
    x: float
    y: float
    width: float
    height: float

    def place(self, point: Point) -> tuple[float, float]:
        share = (point.at - self.span.start) / (self.span.end - self.span.start)
        up = (point.value - self.low) / (self.high - self.low)
        return self.x + share * self.width, self.y + self.height * (1 - up)


def _graph(
    panel: Panel, series: Sequence[Series], span: Span, x: float, y: float, w: float, h: float
) -> str:
    parts = [_text(x + 12, y + 22, panel.title, size=13, weight=600)]
    shown = [one for one in series if any(math.isfinite(point.value) for point in one.points)]
    if not shown:
        return parts[0] + _text(x + w / 2, y + h / 2, "no data", size=13, fill=DIM, anchor="middle")
    shown.sort(key=lambda one: one.name)
    layers = _stacked(shown) if panel.stacked else [(one.points, None) for one in shown]
    values = [p.value for points, _ in layers for p in points if math.isfinite(p.value)]
    low, high, step = _ticks(min(0.0, *values), max(values), panel)
    scale = _Scale(span, low, high, x + LEFT, y + TOP, w - LEFT - RIGHT, h - TOP - LEGEND - 18)
    parts += _axes(panel, scale, step)
    for number, (points, below) in enumerate(layers):
        color = PALETTE[number % len(PALETTE)]
        parts.append(_area(points, below, scale, color, 0.35 if panel.stacked else 0.08))
    parts.append(_legend([one.name for one in shown], x + 12, y + h - LEGEND + 14, w - 24))
    return "\n".join(parts)


def _stacked(series: Sequence[Series]) -> list[tuple[tuple[Point, ...], dict[float, float]]]:
    below: dict[float, float] = {}
    layers = []
    for one in series:
        floor = dict(below)
        for point in one.points:
            below[point.at] = below.get(point.at, 0.0) + point.value
        points = tuple(Point(point.at, below[point.at]) for point in one.points)
        layers.append((points, floor))
    return layers


def _ticks(low: float, high: float, panel: Panel) -> tuple[float, float, float]:
    if panel.maximum is not None:
        return low, panel.maximum, panel.maximum / 4
    whole = panel.unit == "none" and panel.title != "Busy"
    base = 1024.0 if panel.unit in {"bytes", "Bps"} else 10.0
    high = high if high > 0 else 1.0
    if whole:
        high = max(high, 4.0)
    size = base ** math.floor(math.log(high, base))
    rough = (high - low) / 4 / size
    nice = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50,
            100, 125, 250, 500)  # fmt: skip
    step = next((n for n in nice if n >= rough), nice[-1]) * size
    if whole:
        step = max(1.0, math.ceil(step))
    return low, low + step * max(1, math.ceil((high * 1.02 - low) / step)), step


def _axes(panel: Panel, scale: _Scale, step: float) -> list[str]:
    parts = []
    count = round((scale.high - scale.low) / step)
    for number in range(count + 1):
        value = scale.low + number * step
        _, at = scale.place(Point(scale.span.start, value))
        parts.append(
            f'<path d="M{scale.x:.1f} {at:.1f}h{scale.width:.1f}" stroke="{GRID}" fill="none"/>'
        )
        label = text_of(value, panel.unit)
        parts.append(_text(scale.x - 6, at + 3.5, label, size=10, fill=DIM, anchor="end"))
    for value, name in panel.thresholds:
        if scale.low < value < scale.high:
            _, at = scale.place(Point(scale.span.start, value))
            parts.append(
                f'<path d="M{scale.x:.1f} {at:.1f}h{scale.width:.1f}" stroke="{COLORS[name]}" '
                'stroke-dasharray="5 4" stroke-opacity=".7" fill="none"/>'
            )
    length = scale.span.end - scale.span.start
    every = next((n for n in (10, 15, 30, 60, 120, 300) if length / n <= 6), 600)
    for number in range(int(length // every) + 1):
        seconds = number * every
        at = scale.x + seconds / length * scale.width
        label = f"{seconds // 60}:{seconds % 60:02d}"
        bottom = scale.y + scale.height + 13
        parts.append(_text(at, bottom, label, size=10, fill=DIM, anchor="middle"))
    return parts


def _area(
    points: Sequence[Point],
    below: dict[float, float] | None,
    scale: _Scale,
    color: str,
    opacity: float,
) -> str:
    """A line with the area below it; a gap where Prometheus has no value."""
    parts = []
    floors = below or {}
    for run in (_thinned(run, floors) for run in _runs(points)):
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in (scale.place(p) for p in run))
        floor = [Point(p.at, floors.get(p.at, scale.low)) for p in reversed(run)]
        back = "L".join(f"{x:.1f} {y:.1f}" for x, y in (scale.place(p) for p in floor))
        parts.append(f'<path d="M{line}L{back}Z" fill="{color}" fill-opacity="{opacity}"/>')
        parts.append(
            f'<path d="M{line}" fill="none" stroke="{color}" stroke-width="1.6" '
            'stroke-linejoin="round"/>'
        )
    return "".join(parts)


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    kept = [point for point in points if math.isfinite(point.value)]
    gaps = [b.at - a.at for a, b in pairwise(kept)]
    usual = min(gaps, default=0.0)
    runs: list[list[Point]] = []
    for number, point in enumerate(kept):
        if not number or gaps[number - 1] > 1.5 * usual:
            runs.append([])
        runs[-1].append(point)
    return runs


def _thinned(run: list[Point], below: dict[float, float]) -> list[Point]:
    """The points without those that lie between two of the same value."""

    def place(point: Point) -> tuple[float, float]:
        return point.value, below.get(point.at, 0.0)

    inner = zip(run, run[1:-1], run[2:], strict=False)
    kept = [b for a, b, c in inner if not place(a) == place(b) == place(c)]
    return [run[0], *kept, *run[1:][-1:]]


def _legend(names: Sequence[str], x: float, y: float, width: float) -> str:
    """The names of the lines, in two lines; what does not fit is counted."""
    parts, at, line = [], x, 0
    sizes = [16 + len(name) * CHARACTER + 12 for name in names]
    for number, name in enumerate(names):
        more = 0 if number == len(names) - 1 else MORE
        if at + sizes[number] + more * line > x + width:
            if line == 1:
                text = f"and {len(names) - number} more"
                parts.append(_text(at, y + LEGEND_LINE, text, fill=DIM))
                break
            at, line = x, 1
        top = y + line * LEGEND_LINE
        color = PALETTE[number % len(PALETTE)]
        parts.append(
            f'<rect x="{at:.1f}" y="{top - 5:.1f}" width="11" height="3" rx="1" fill="{color}"/>'
        )
        parts.append(_text(at + 16, top, name, fill=TEXT))
        at += sizes[number]
    return "".join(parts)


def _color_at(panel: Panel, value: float) -> str:
    name = panel.below
    for threshold, color in panel.thresholds:
        if value >= threshold:
            name = color
    return COLORS[name]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 11,
    fill: str = TEXT,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    more = "" if anchor == "start" else f' text-anchor="{anchor}"'
    more += "" if weight == 400 else f' font-weight="{weight}"'
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{more}'
    return f"<text {place}>{escape(text)}</text>"
