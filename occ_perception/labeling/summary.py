"""What came of a fleet's scenes, as tables: quality and speed of those that are done, reasons for the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from occ_perception.errors import DatasetError
from occ_perception.labeling.fleet import FleetResult
from occ_perception.labeling.quality import Quality, total
from occ_perception.labeling.scene_job import REPORT, Status


def read_reports(out: Path) -> list[dict[str, Any]]:
    """The reports of all scenes that are done, by name.

    Raises:
        DatasetError: there are none, or one is broken.
    """
    found = []
    for path in sorted(out.glob(f"*/{REPORT}")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot be read: {error}", where=str(path)) from error
    if not found:
        raise DatasetError("holds no labelled scene", where=str(out), fix="Label some with `label run`")
    return found


def quality_table(reports: Sequence[dict[str, Any]], title: str) -> Table:
    """A line per scene and one for all: frames, speed of a core, and quality where the truth is known."""
    table = Table(title=title)
    table.add_column("scene", overflow="fold")
    for column in ("frames", "per core s", "MB", "occ IoU", "mIoU", "kerb", "gutter", "obstacle", "trail", "warnings"):
        table.add_column(column, justify="right")
    for report in reports:
        scores = Quality.from_dict(report["quality"]).scores() if "quality" in report else {}
        table.add_row(report["scene"], str(report["frames"]), f"{report['frames_per_core_s']:.1f}",
                      str(report["peak_memory_mb"]), *_percents(scores), str(len(report["warnings"])))
    whole = total(Quality.from_dict(report["quality"]) for report in reports if "quality" in report)
    frames = sum(report["frames"] for report in reports)
    engine_s = sum(report["frames"] / max(report["frames_per_core_s"], 1e-9) for report in reports)
    table.add_section()
    table.add_row("all", str(frames), f"{frames / max(engine_s, 1e-9):.1f}",
                  str(max(report["peak_memory_mb"] for report in reports)),
                  *_percents({} if whole is None else whole.scores()),
                  str(sum(len(report["warnings"]) for report in reports)))
    return table


def _percents(scores: dict[str, float | None]) -> list[str]:
    numbers = [scores.get(name) for name in ("iou", "miou", "curb", "gutter", "obstacle", "trail")]
    return ["-" if number is None else f"{100 * number:.2f}" for number in numbers]


def outcome_line(result: FleetResult) -> str:
    """How many scenes ended how, and how fast the run was."""
    counts = Counter(outcome.status for outcome in result.outcomes)
    return (f"scenes: {counts[Status.done]} done now, {len(result.kept)} before, {counts[Status.skipped]} skipped, "
            f"{counts[Status.failed]} failed; {result.frames_per_s:.2f} frames/s in {result.elapsed_s:.0f} s")


def outcome_table(result: FleetResult) -> Table:
    """Why scenes and sources were not labelled."""
    table = Table()
    for column in ("not labelled", "", "reason"):
        table.add_column(column, overflow="fold")
    for outcome in result.outcomes:
        if outcome.status is not Status.done:
            table.add_row(escape(outcome.name), outcome.status.value, escape(outcome.reason))
    return table
