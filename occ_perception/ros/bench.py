"""`occ-perception bench`: every figure the project promises, measured on this machine, as a table and as JSON."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from occ_perception.calibration import load_rig
from occ_perception.engines import load_manifest
from occ_perception.engines.bench import bench_engines
from occ_perception.geometry import ROAD_GRID, SIDEWALK_GRID, VoxelGridSpec
from occ_perception.metrics import OccupancyIoU, RayIoU
from occ_perception.replay.about import about_machine, about_software
from occ_perception.ros.bench_node import NodeFigures, bench_node
from occ_perception.ros.demo import sample_recording
from occ_perception.ros.diagnostics import OUTSIDE, TOTAL
from occ_perception.ros.environment import shipped
from occ_perception.taxonomy import FREE, SIDEWALK, Sidewalk

Say = Callable[[str], None]


@dataclass(frozen=True)
class Figure:
    """One measured number. `at_least` and `at_most` are the promise; `note` says how it was measured, or why not."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the promise is kept; None where nothing is promised or nothing was measured."""
        if math.isnan(self.value) or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most)

    @property
    def promise(self) -> str:
        """The promise as text."""
        sides = [f">= {self.at_least:g}" if self.at_least is not None else "",
                 f"<= {self.at_most:g}" if self.at_most is not None else ""]
        return " ".join(side for side in sides if side)


def run_bench(bag: Path | None = None, rig_file: Path | None = None, model: Path | None = None,
              out: Path = Path("out/bench.json"), *, seconds: float = 60.0,
              console: Console | None = None) -> list[Figure]:
    """Measure everything, print the table, write `out`.

    Args:
        bag: recording that feeds the node; default the sample recording.
        rig_file: its rig; default the shipped sidewalk_wheeled.
        model: model folder; default the shipped walkocc_lite.
        out: JSON file to write.
        seconds: how long the node is fed.
    """
    console = console or Console()

    def say(text: str) -> None:
        console.print(f"[dim]measuring:[/] {text}", highlight=False)

    bag, model = bag or sample_recording(), model or shipped("models/walkocc_lite")
    rig_file = rig_file or shipped("calibration/sidewalk_wheeled.yaml")
    say("metrics")
    figures = metric_figures()
    say("engine variants, in turns")
    figures += engine_figures(model)
    say("simulation")
    figures += simulation_figures(rig_file)
    node = bench_node(bag, rig_file, model, seconds=seconds, say=say)
    figures = node_figures(node) + figures
    console.print(as_table(figures))
    write_json(figures, out, {"node": asdict(node), "bag": bag.name, "rig": rig_file.name, "model": model.name})
    console.print(f"written: {out}")
    return figures


def node_figures(node: NodeFigures) -> list[Figure]:
    """The figures of the node's run."""
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(node.drops.items()) if count) or "none"
    return [
        Figure("node: images answered", node.answered_percent, "%", at_least=99.0,
               note=f"{node.answered} of {node.images}; dropped: {drops}; {node.provider}"),
        Figure("node: receive to publish, p50", node.p(TOTAL, 50), "ms"),
        Figure("node: receive to publish, p95", node.p(TOTAL, 95), "ms", at_most=90.0),
        Figure("node: receive to publish, p99", node.p(TOTAL, 99), "ms"),
        Figure("node: outside the engine, median", node.p(OUTSIDE, 50), "ms", at_most=8.0,
               note="receiving, decoding, tables, results, publishing"),
        Figure("node: engine, median", node.p("engine", 50), "ms"),
        Figure("node: player to recorder, p95", node.end_to_end_ms["p95"], "ms", note="with both transports"),
        Figure("node: resident memory, end", node.rss_mb[-1], "MB", at_most=600.0),
        Figure("node: growth of memory", node.rss_growth_mb, "MB", at_most=10.0,
               note=f"{node.rss_mb[0]:.0f} MB at the start; last quarter of the run against its second"),
    ]


def metric_figures(batches: int = 7) -> list[Figure]:
    """Grids per second of the two scores that are computed per frame, on one thread."""
    figures = []
    moving = sorted(SIDEWALK.things)
    for name, spec in (("road 200x200x16", ROAD_GRID), ("sidewalk 100x100x50", SIDEWALK_GRID)):
        truth, prediction = _street(spec, 0), _street(spec, 1)
        flows = [np.random.default_rng(k).normal(size=(*spec.shape, 2)).astype(np.float32) for k in (0, 1)]
        origins_m = np.array([[0.5, 0.0, 0.8], [1.5, 0.0, 0.8]])
        rays = RayIoU(spec, len(SIDEWALK), FREE, moving)
        rate = rate_of(lambda m=rays, p=prediction, t=truth, o=origins_m, f=flows: m.update(p, t, o, f[0], f[1]),
                       batches)
        figures.append(Figure(f"RayIoU, {name}", rate, "grids/s", at_least=60.0, note="2 origins, with flow"))
    iou = OccupancyIoU(len(SIDEWALK))
    truth, prediction = _street(SIDEWALK_GRID, 0), _street(SIDEWALK_GRID, 1)
    rate = rate_of(lambda: iou.update(prediction, truth), batches)
    figures.append(Figure("OccupancyIoU, sidewalk 100x100x50", rate, "grids/s", at_least=500.0))
    return figures


def engine_figures(model: Path) -> list[Figure]:
    """Latency of the variants, and how much faster int8 is than fp32."""
    rows = {str(row["variant"]): row for row in bench_engines(load_manifest(model))}
    figures = [Figure(f"engine {name}, median", float(str(row["median_ms"])), "ms", note=str(row["provider"]))
               for name, row in rows.items()]
    if {"fp32", "int8"} <= rows.keys():
        ratio = float(str(rows["fp32"]["median_ms"])) / float(str(rows["int8"]["median_ms"]))
        figures.append(Figure("engine: int8 against fp32", ratio, "times faster"))
    return figures


def simulation_figures(rig_file: Path, frames: int = 20) -> list[Figure]:
    """Complete simulated frames per second of processor time: camera, LiDAR of 64 x 1024, truth of 100 x 100 x 50."""
    name = "simulation, complete frames per core"
    if importlib.util.find_spec("embreex") is None:
        return [Figure(name, math.nan, "frames/s", note="skipped: embreex is not installed (extra `train`)")]
    from occ_perception.simulation.sim import SidewalkSim
    from occ_perception.simulation.world import make_world

    sim = SidewalkSim(make_world(0, "residential", False, "wheeled", 20.0), load_rig(rig_file))
    sim.frame(0.0)  # compiles
    times_s = [0.5 * (k + 1) for k in range(frames)]
    began_s = time.process_time()
    for time_s in times_s:
        sim.frame(time_s)
    return [Figure(name, frames / (time.process_time() - began_s), "frames/s", at_least=5.0,
                   note="544x960 fisheye, 64x1024 LiDAR; processor time of all threads")]


def rate_of(work: Callable[[], object], batches: int = 7, batch_s: float = 0.2) -> float:
    """Calls per second of processor time, which other programs do not take: the best of several batches."""
    work()
    began_s = time.thread_time()
    work()
    calls = max(1, round(batch_s / max(time.thread_time() - began_s, 1e-9)))
    seconds = []
    for _ in range(batches):
        began_s = time.thread_time()
        for _ in range(calls):
            work()
        seconds.append(time.thread_time() - began_s)
    return calls / min(seconds)


def _street(spec: VoxelGridSpec, seed: int) -> NDArray[np.uint8]:
    """A plausible grid: ground, two walls, boxes of vehicles and persons; different details for every seed."""
    labels = np.zeros(spec.shape, np.uint8)
    nx, ny, nz = spec.shape
    rng = np.random.default_rng(seed)
    ground = int(-spec.minimum_m[2] / spec.cell[2])
    labels[:, :, :ground] = 255
    labels[:, :, ground] = Sidewalk.ROAD
    labels[:, : ny // 3, ground] = Sidewalk.SIDEWALK
    labels[:, (1, -2), ground:] = Sidewalk.WALL
    for label in rng.choice([Sidewalk.VEHICLE, Sidewalk.PERSON, Sidewalk.TREES], 30):
        x, y = rng.integers(0, nx - 8), rng.integers(0, ny - 8)
        labels[x:x + 6, y:y + 4, ground:ground + max(2, nz // 4)] = label
    return labels


def as_table(figures: list[Figure]) -> Table:
    """The figures for a terminal."""
    table = Table(title=f"Measured on {about_machine()['processor']}, {os.cpu_count()} cores")
    for column in ("figure", "measured", "unit", "promise", "", "note"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    marks = {True: "[green]kept[/]", False: "[red]missed[/]", None: ""}
    for figure in figures:
        value = "–" if math.isnan(figure.value) else f"{figure.value:.4g}"
        table.add_row(figure.name, value, figure.unit, figure.promise, marks[figure.reached], figure.note)
    return table


def write_json(figures: list[Figure], out: Path, details: dict[str, Any]) -> None:
    """Figures, machine, software and details as JSON, written beside its place and renamed."""
    content = {
        "machine": about_machine() | {"load_average": os.getloadavg()}, "software": about_software(),
        "figures": [{**asdict(figure), "value": None if math.isnan(figure.value) else figure.value,
                     "reached": figure.reached} for figure in figures],
        "details": details,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f"{out.name}.tmp{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    beside.replace(out)
