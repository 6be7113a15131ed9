"""A filled-in table as Markdown, JSON and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from occ_perception.metrics import Interval
from occ_perception.training.checkpoint import DIRTY
from occ_perception.training.experiments.build import Compared, Table
from occ_perception.training.experiments.picture import draw_table, encoded
from occ_perception.training.experiments.tables import FAMILY, Column
from occ_perception.training.files import write_bytes, write_json, write_text

DASH = "–"
_HOW = ("Ours with 95 % intervals of a paired bootstrap over scenes and seeds; `better` and `worse` where the interval "
        "does not hold 0.")
VERDICTS = {"better": "better", "worse": "**worse**", "undecided": "not decided"}


def write_report(table: Table, folder: Path, command: str) -> list[Path]:
    """Write `<table>.md`, `.json` and `.png` into `folder`; returns their paths."""
    stem = folder / table.spec.name
    paths = [stem.with_suffix(suffix) for suffix in (".md", ".json", ".png")]
    write_text(paths[0], markdown(table, command))
    write_json(paths[1], as_json(table, command))
    write_bytes(paths[2], encoded(draw_table(table)))
    return paths


def heading(table: Table) -> str:
    """Title of a table, which always says that the worlds are simulated."""
    return f"{table.spec.heading} (simulated, scale {table.scale.name})"


def markdown(table: Table, command: str) -> str:
    """The table as a page of its own."""
    parts = [f"# {heading(table)}", f"![{heading(table)}]({table.spec.name}.png)", _lines(table)]
    if table.comparisons:
        parts += ["## Comparisons", _HOW, _comparisons(table)]
    if table.missing:
        parts.append(f"**Not done yet:** {', '.join(table.missing)}.")
    parts += [f"**Attention:** {warning}" for warning in table.warnings]
    parts += ["## What it rests on", "\n".join(f"- {note}" for note in (*table.spec.notes, *_about(table, command))),
              _splits(table), _runs(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(table: Table, command: str) -> dict[str, Any]:
    """The table with plain values; null for what was not measured or is not in the paper."""
    return {
        "table": f"{FAMILY}/{table.spec.name}", "title": heading(table), "simulated": True, "scale": table.scale.name,
        "command": command, "missing": list(table.missing), "warnings": list(table.warnings),
        "columns": {c.name: {"title": c.title, "unit": c.unit, "lower_is_better": c.lower_is_better}
                    for c in table.spec.columns},
        "rows": [{"row": line.key, "title": line.title, "seeds": list(line.seeds),
                  "ours": {name: _plain(cell) for name, cell in line.cells.items()}, "paper": dict(line.paper)}
                 for line in table.lines],
        "comparisons": [{
            "one": c.one, "other": c.other, "column": c.column.name, "seeds": list(c.seeds), "verdict": c.verdict,
            "difference": _plain(c.points), "gain_percent": _plain(c.relative),
            "paper_difference": _number(c.paper_points), "paper_gain_percent": _number(c.paper_relative),
        } for c in table.comparisons],
        "data": _data(table), "runs": [f"{run['name']}-{run['key'][:8]}" for run in table.used],
        "bootstrap": {"resamples": table.scale.resamples, "level": 0.95}, "notes": list(table.spec.notes),
    }


def terminal(table: Table) -> Group:
    """Scores and comparisons for the terminal."""
    scores = RichTable(title=heading(table))
    scores.add_column("")
    for column in _drawn(table):
        scores.add_column(f"{column.title} ({column.unit})", justify="right")
    for line in table.lines:
        scores.add_row(line.title, *(_figure(line.cells[c.name].value) for c in _drawn(table)))
    compared = RichTable(caption="" if not table.missing else f"missing: {', '.join(table.missing)}")
    for name in ("", "score", "difference", "paper"):
        compared.add_column(name, justify="left" if name in ("", "score") else "right")
    colours = {"better": "green", "worse": "red", "undecided": "default"}
    for c in table.comparisons:
        compared.add_row(c.title, c.column.title, Text(_signed(c.points), colours[c.verdict]),
                         _sign(c.paper_points))
    return Group(scores, compared)


def _drawn(table: Table) -> list[Column]:
    return [column for column in table.spec.columns if column.drawn]


def _lines(table: Table) -> str:
    """One table of our scores with intervals, each over the paper's figure."""
    head = ["", "seeds", *(f"{c.title}{' (m)' if c.unit == 'm' else ''}" for c in table.spec.columns)]
    rows: list[list[str]] = []
    for line in table.lines:
        ours = [(_with_interval if c.drawn else _value)(line.cells[c.name]) for c in table.spec.columns]
        rows.append([f"**{line.title}**", ", ".join(map(str, line.seeds)) or DASH, *ours])
        if line.paper:
            rows.append(["*paper*", "", *(_figure(line.paper.get(c.name, math.nan)) for c in table.spec.columns)])
    return _grid(head, rows)


def _comparisons(table: Table) -> str:
    head = ["", "", "difference", "gain", "paper: difference", "paper: gain", "seeds", ""]
    return _grid(head, [[
        c.title, c.column.title, _signed(c.points) + (" m" if c.column.unit == "m" else ""),
        _signed(c.relative, 1, " %"), _sign(c.paper_points), _sign(c.paper_relative, 1, " %"),
        ", ".join(map(str, c.seeds)) or DASH, _verdict(c),
    ] for c in table.comparisons])


def _verdict(compared: Compared) -> str:
    return DASH if math.isnan(compared.points.value) else VERDICTS[compared.verdict]


def _about(table: Table, command: str) -> list[str]:
    scale = table.scale
    height, width = scale.network.image_size
    sizes = (f"Images of {height}x{width}, cells of {scale.cell_m:g} m, {scale.steps} steps of {scale.batch_size} "
             f"paired samples, one trunk; {scale.resamples} resamples.")
    return [sizes, f"Made with `{command}`."]


def _data(table: Table) -> dict[str, dict[str, Any]]:
    """The splits that were scored on and learned from, by content hash: of other cells they are other splits."""
    found: dict[str, dict[str, Any]] = {}
    for run in table.used:
        learned = {split: about for split, about in run["data"].items() if "content_hash" in about}
        scored = {split.partition("+")[0]: scores["data"] for split, scores in run["evaluations"].items()}
        for split, about in (learned | scored).items():
            found[about["content_hash"]] = {"split": split, "version": about["version"],
                                            "frames": about.get("frames", about.get("samples")),
                                            "shrunk_from": about.get("shrunk_from")}
    return dict(sorted(found.items(), key=lambda item: (item[1]["split"], item[0])))


def _splits(table: Table) -> str:
    return _grid(["split", "frames", "content hash", "shrunk from", "simulation"], [
        [about["split"], str(about["frames"]), f"`{digest[:12]}`", f"`{str(about['shrunk_from'] or DASH)[:12]}`",
         about["version"]] for digest, about in _data(table).items()]) if table.used else ""


def _runs(table: Table) -> str:
    return _grid(["run", "steps", "minutes", "commit"], [
        [f"`{run['name']}-{run['key'][:8]}`", str(run["steps"]), f"{run['minutes']:.1f}",
         f"`{_short(str(run['commit']))}`"] for run in table.used]) if table.used else ""


def _short(commit: str) -> str:
    return commit[:8] + DIRTY * commit.endswith(DIRTY)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _with_interval(found: Interval) -> str:
    if math.isnan(found.value):
        return DASH
    bounds = "" if math.isnan(found.low) else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{bounds}"


def _value(found: Interval) -> str:
    return _figure(found.value)


def _signed(found: Interval, digits: int = 2, unit: str = "") -> str:
    if math.isnan(found.value):
        return DASH
    bounds = "" if math.isnan(found.low) else f" [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return f"{found.value:+.{digits}f}{unit}{bounds}"


def _sign(value: float, digits: int = 2, unit: str = "") -> str:
    return DASH if math.isnan(value) else f"{value:+.{digits}f}{unit}"


def _figure(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"


def _plain(found: Interval) -> list[float | None]:
    """Value, low, high."""
    return [_number(found.value), _number(found.low), _number(found.high)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
