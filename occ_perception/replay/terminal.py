"""Runs and bags as tables in a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from occ_perception.recordings import BagReader
from occ_perception.replay.evaluation import Evaluation


def show(evaluation: Evaluation, console: Console) -> None:
    """Print classes, scores, latencies and drops."""
    if evaluation.scores:
        console.print(_classes(evaluation))
    console.print(_summary(evaluation))
    for note in evaluation.notes:
        console.print(note, style="yellow")


def _classes(evaluation: Evaluation) -> Table:
    visible, known = evaluation.scores["visible"], evaluation.scores["known"]
    table = Table(title=f"IoU in percent over {evaluation.scored} frames")
    table.add_column("class")
    for column in ("visible voxels", "all known voxels", "true visible voxels"):
        table.add_column(column, justify="right")
    for i, name in list(enumerate(evaluation.classes))[1:]:
        red, green, blue = evaluation.colours[i]
        table.add_row(f"[rgb({red},{green},{blue})]■[/] {name}", percent(visible["per_class"][i]),
                      percent(known["per_class"][i]), f"{int(visible['support'][i]):,}")
    table.add_section()
    table.add_row("mean over classes", percent(visible["miou"]), percent(known["miou"]))
    table.add_row("occupied or not", percent(visible["iou"]), percent(known["iou"]))
    return table


def _summary(evaluation: Evaluation) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    rows: list[tuple[str, str]] = [("images answered", f"{evaluation.answered} of {evaluation.images_in}")]
    if rays := evaluation.scores.get("rays"):
        rows.append(("RayIoU", f"{percent(rays['rayiou'])} %"))
    if path := evaluation.scores.get("navigation"):
        names = ("collision", "grass", "lane_keeping")
        rates = ", ".join(f"{name.replace('_', ' ')} {percent(path[f'{name}_rate'])} %" for name in names)
        rows.append(("predicted paths", rates))
    if evaluation.paths:
        rows.append(("paths checked", ", ".join(f"{name} {count}" for name, count in evaluation.paths.items())))
    for stage, values in evaluation.latency_ms.items():
        text = ", ".join(f"{name} {values[name]:.1f}" for name in ("p50", "p95", "p99") if name in values)
        rows.append((f"{stage.replace('_', ' ')}, ms", text))
    drops = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in evaluation.drops.items())
    rows.append(("dropped", drops or "nothing"))
    for row in rows:
        table.add_row(*row)
    return table


def bag_table(reader: BagReader) -> Table:
    """Topics of a bag with types, numbers and rates."""
    seconds, counts = reader.duration_ns * 1e-9, reader.counts
    table = Table(title=f"{reader.path.name}: {seconds:.1f} s, {sum(counts.values())} messages")
    for column in ("topic", "type", "messages", "Hz"):
        table.add_column(column, justify="right" if column in ("messages", "Hz") else "left")
    for topic, type_name in sorted(reader.topics.items()):
        rate = f"{(counts[topic] - 1) / seconds:.1f}" if seconds > 0 and counts[topic] > 1 else "–"
        table.add_row(topic, type_name, str(counts[topic]), rate)
    return table


def percent(value: Any) -> str:
    """A fraction in percent with one digit, a dash for NaN or none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"
