"""The picture page of a table: bars of our scores beside the paper's, and comparisons with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import DatasetError
from occ_perception.metrics import Interval
from occ_perception.training.experiments.build import Compared, Line, Table
from occ_perception.training.experiments.canvas import GRID, INK, SOFT, Canvas, Colour
from occ_perception.training.experiments.tables import Column

WIDTH = 1400
_MARGIN, _GAP = 36, 28
_OURS: Colour = (47, 111, 183)
_PAPER: Colour = (222, 214, 198)
_PAPER_EDGE: Colour = (168, 152, 120)
_VERDICTS: dict[str, Colour] = {"better": (40, 140, 82), "worse": (200, 58, 52), "undecided": (120, 128, 138)}
_BAR, _LINE_HEIGHT, _PANEL_HEAD, _PANEL_FOOT = 13, 46, 34, 30
_FOREST_HEIGHT, _FOREST_HEAD, _HEAD = 28, 30, 118
_LABELS, _VALUES, _NUMBERS = 160, 60, 330
_NEAR_CEILING = 60.0


def draw_table(table: Table) -> NDArray[np.uint8]:
    """The page, uint8 RGB [height, 1400, 3]."""
    columns = [column for column in table.spec.columns if column.drawn]
    per_row = 2 if len(columns) in (2, 4) else 3
    panel_rows = [columns[i:i + per_row] for i in range(0, len(columns), per_row)]
    panel_width = (WIDTH - 2 * _MARGIN - (per_row - 1) * _GAP) / per_row
    panel_height = _PANEL_HEAD + _LINE_HEIGHT * len(table.lines) + _PANEL_FOOT
    shown = [compared for compared in table.comparisons if compared.column.drawn]
    groups = [list(group) for _, group in groupby(shown, key=lambda c: (c.one, c.other))]
    forest_height = (84 + sum(_FOREST_HEAD + _FOREST_HEIGHT * len(group) for group in groups)) if groups else 0
    foot = 40 if table.missing else 16
    canvas = Canvas(WIDTH, _HEAD + len(panel_rows) * (panel_height + _GAP) + forest_height + foot)
    _head(canvas, table)
    top = float(_HEAD)
    for row in panel_rows:
        for i, column in enumerate(row):
            _panel(canvas, table.lines, column, _MARGIN + i * (panel_width + _GAP), top, panel_width)
        top += panel_height + _GAP
    if groups:
        _forest(canvas, table, groups, top)
    if table.missing:
        names = ", ".join(table.missing)
        canvas.text(_MARGIN, top + forest_height + 14, f"Not done yet: {_cut(names, 150)}", 13, _VERDICTS["worse"])
    return canvas.picture()


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG."""
    good, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not good:
        raise DatasetError("the picture cannot be encoded", where="PNG")
    return bytes(content.tobytes())


@dataclass(frozen=True)
class _Axis:
    """Values to pixels between `left` and `right`."""

    low: float
    high: float
    left: float
    right: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)

    def ticks(self) -> list[float]:
        """About five round values."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        return [i * step for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def _head(canvas: Canvas, table: Table) -> None:
    canvas.text(_MARGIN, 32, table.spec.heading, 22, bold=True)
    seeds = sorted({seed for line in table.lines for seed in line.seeds})
    said = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed" if seeds else "no run is done yet"
    canvas.text(_MARGIN, 62, f"Simulated benchmark, scale {table.scale.name}: cells of {table.scale.cell_m:g} m, "
                f"{table.scale.steps} steps of {table.scale.batch_size} samples, {said}.", 13, SOFT)
    canvas.bar(_MARGIN, 84, _MARGIN + 22, 96, _OURS)
    canvas.text(_MARGIN + 30, 90, "ours, with 95 % interval", 13)
    if _in_the_paper(table):
        canvas.bar(_MARGIN + 240, 84, _MARGIN + 262, 96, _PAPER, _PAPER_EDGE)
        canvas.text(_MARGIN + 270, 90, "the paper's, on its own recordings: only relations can be compared", 13)


def _in_the_paper(table: Table) -> bool:
    return any(line.paper for line in table.lines)


def _panel(canvas: Canvas, lines: Sequence[Line], column: Column, left: float, top: float, width: float) -> None:
    """Bars of one column; where all values are near the ceiling, dots on an axis that is cut."""
    values = [value for line in lines for value in (*_finite(line.cells[column.name]),
                                                   line.paper.get(column.name, math.nan)) if not math.isnan(value)]
    axis, bars = _bar_axis(values, left + _LABELS, left + width - _VALUES)
    canvas.text(left, top + 10, f"{column.title} ({column.unit})", 15, bold=True)
    better = "lower is better" if column.lower_is_better else "higher is better"
    canvas.text(left + width, top + 10, better if bars else f"{better}; axis cut", 11, SOFT, align=1.0)
    first, last = top + _PANEL_HEAD - 6, top + _PANEL_HEAD + _LINE_HEIGHT * len(lines)
    for tick in axis.ticks():
        canvas.line((axis.at(tick), first), (axis.at(tick), last), GRID)
        canvas.text(axis.at(tick), last + 12, f"{tick:g}", 11, SOFT, align=0.5)
    for i, line in enumerate(lines):
        y = top + _PANEL_HEAD + i * _LINE_HEIGHT + 12
        words = _wrapped(canvas, line.title, _LABELS - 14)
        for n, part in enumerate(words):
            canvas.text(axis.left - 10, y + 6 + 15 * (n - (len(words) - 1) / 2), part, 12, align=1.0)
        _our_mark(canvas, axis, line.cells[column.name], y, bars)
        _paper_mark(canvas, axis, line.paper.get(column.name, math.nan), y + _BAR + 2, bars)
    canvas.line((axis.left, first), (axis.left, last), SOFT)


def _bar_axis(values: Sequence[float], left: float, right: float) -> tuple[_Axis, bool]:
    """An axis from 0 for bars, or a cut one for dots."""
    if not values:
        return _Axis(0.0, 1.0, left, right), True
    low, high = min(values), max(values)
    if low > _NEAR_CEILING:
        spare = max(0.3 * (high - low), 0.02 * high)
        return _Axis(low - spare, high + spare, left, right), False
    return _Axis(0.0, 1.06 * high if high > 0 else 1.0, left, right), True


def _our_mark(canvas: Canvas, axis: _Axis, found: Interval, y: float, bars: bool) -> None:
    if math.isnan(found.value):
        canvas.text(axis.left + 6, y, "not done", 11, SOFT)
        return
    if bars:
        canvas.bar(axis.left, y - _BAR / 2, axis.at(found.value), y + _BAR / 2, _OURS)
    else:
        canvas.dot(axis.at(found.value), y, _OURS)
    ends = [value for value in _finite(found) if not math.isnan(value)]
    if not math.isnan(found.low):
        canvas.interval(axis.at(found.low), axis.at(found.high), y, INK, cap=3.5, width=1.2)
    canvas.text(axis.at(max(ends)) + 7, y, _short(found.value), 11.5)


def _paper_mark(canvas: Canvas, axis: _Axis, value: float, y: float, bars: bool) -> None:
    if math.isnan(value):
        return
    if bars:
        canvas.bar(axis.left, y - _BAR / 2 + 1, axis.at(value), y + _BAR / 2 - 1, _PAPER, _PAPER_EDGE)
    else:
        canvas.diamond(axis.at(value), y, _PAPER_EDGE, 5)
    canvas.text(axis.at(value) + 7, y, _short(value), 11, SOFT)


def _forest(canvas: Canvas, table: Table, groups: Sequence[Sequence[Compared]], top: float) -> None:
    """Differences or gains with intervals, ours and the paper's, around a line at 0."""
    relative = table.spec.measure == "relative"
    unit = "gain, %" if relative else "difference, percentage points"
    canvas.text(_MARGIN, top + 10, f"Comparisons: {unit}", 17, bold=True)
    left = float(_MARGIN)
    for verdict, words in (("better", "better"), ("worse", "worse"), ("undecided", "interval holds 0")):
        canvas.dot(left + 6, top + 36, _VERDICTS[verdict])
        canvas.text(left + 18, top + 36, words, 12)
        left += 40 + canvas.width_of(words, 12)
    if _in_the_paper(table):
        canvas.diamond(left + 6, top + 36, _PAPER_EDGE)
        canvas.text(left + 18, top + 36, "the paper's", 12)
    shown = [(c, c.relative if relative else c.points, c.paper_relative if relative else c.paper_points)
             for group in groups for c in group]
    axis = _forest_axis(shown, _MARGIN + 250, WIDTH - _MARGIN - _NUMBERS)
    y = top + 66
    bottom = y + sum(_FOREST_HEAD + _FOREST_HEIGHT * len(group) for group in groups) - 8
    for tick in axis.ticks():
        canvas.line((axis.at(tick), y - 6), (axis.at(tick), bottom), GRID)
        canvas.text(axis.at(tick), bottom + 10, f"{tick:+g}" if tick else "0", 11, SOFT, align=0.5)
    canvas.line((axis.at(0), y - 6), (axis.at(0), bottom), SOFT, 1.4)
    for group in groups:
        title = group[0].title
        canvas.bar(_MARGIN, y - 1, _MARGIN + canvas.width_of(title, 13.5) + 8, y + 17, (255, 255, 255))
        canvas.text(_MARGIN, y + 8, title, 13.5, bold=True)
        y += _FOREST_HEAD
        for compared, ours, paper in (entry for entry in shown if any(entry[0] is c for c in group)):
            _forest_line(canvas, axis, compared, ours, paper, y)
            y += _FOREST_HEIGHT


def _forest_line(canvas: Canvas, axis: _Axis, compared: Compared, ours: Interval, paper: float, y: float) -> None:
    lower = " (lower is better)" if compared.column.lower_is_better else ""
    canvas.text(_MARGIN + 14, y, f"{compared.column.title}{lower}", 12.5)
    if not math.isnan(paper):
        _mark(canvas, axis, paper, y, _PAPER_EDGE, hollow=True)
    right = WIDTH - _MARGIN - _NUMBERS + 24
    words = "not done" if math.isnan(compared.points.value) else "not defined"
    if not math.isnan(ours.value):
        colour = _VERDICTS[compared.verdict]
        words = f"{ours.value:+.1f}" if abs(ours.value) >= 10 else f"{ours.value:+.2f}"
        if not math.isnan(ours.low):
            canvas.interval(axis.at(ours.low), axis.at(ours.high), y, colour, width=2.0)
            for end in (ours.low, ours.high):
                _beyond(canvas, axis, end, y, colour)
            words += f"  [{ours.low:+.1f}, {ours.high:+.1f}]" if abs(ours.value) >= 10 else (
                f"  [{ours.low:+.2f}, {ours.high:+.2f}]")
        _mark(canvas, axis, ours.value, y, colour)
    canvas.text(right, y, words, 12)
    if not math.isnan(paper):
        canvas.text(WIDTH - _MARGIN, y, f"paper {paper:+.1f}" if abs(paper) >= 10 else f"paper {paper:+.2f}", 12, SOFT,
                    align=1.0)


def _mark(canvas: Canvas, axis: _Axis, value: float, y: float, colour: Colour, hollow: bool = False) -> None:
    """A point, or an arrow at the end of the axis where it lies beyond."""
    if _beyond(canvas, axis, value, y, colour):
        return
    if hollow:
        canvas.diamond(axis.at(value), y, colour)
    else:
        canvas.dot(axis.at(value), y, colour)


def _beyond(canvas: Canvas, axis: _Axis, value: float, y: float, colour: Colour) -> bool:
    """Draw an arrow if the value lies beyond an end of the axis; whether it does."""
    if axis.low <= value <= axis.high:
        return False
    direction = 1 if value > axis.high else -1
    canvas.arrow(axis.at(value) + 6 * direction, y, direction, colour)
    return True


def _forest_axis(shown: Iterable[tuple[Compared, Interval, float]], left: float, right: float) -> _Axis:
    """Holds 0, all points and most of the intervals; a few wide ones must not flatten all others."""
    points, ends = [0.0], [0.0]
    for _, ours, paper in shown:
        points += [value for value in (ours.value, paper) if not math.isnan(value)]
        ends += [value for value in _finite(ours) if not math.isnan(value)]
    sizes = [abs(point) for point in points if point] or [1.0]
    reach = 8.0 * float(np.median(sizes))
    low = max(min(points + ends), -reach)
    high = min(max(points + ends), reach)
    spare = 0.06 * (high - low) or 1.0
    return _Axis(low - spare, high + spare, left, right)


def _finite(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _wrapped(canvas: Canvas, text: str, width: float) -> list[str]:
    """The text in lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and canvas.width_of(longer, 12) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 4] + " ..."
