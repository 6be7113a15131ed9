"""A run as files: a page with pictures that needs nothing beside it, results.json, CSVs of classes and waypoints."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from occ_perception.calibration import Rig
from occ_perception.replay.evaluation import Evaluation, FrameScore
from occ_perception.replay.pages import encoded, figure, number, percent, style, swatch, table, write_whole
from occ_perception.replay.panels import CHECKED, Panels, draw_panels, sheet
from occ_perception.replay.pictures import ERROR_COLOURS, WAYPOINT_COLOURS
from occ_perception.types import WaypointFlag

_STAGES = {"assemble": "decode and assemble", "tables": "projection tables", "engine": "engine", "post": "results"}


def write_report(evaluation: Evaluation, rig: Rig, folder: Path, *, title: str = "Occupancy report") -> Path:
    """Write report.html, results.json, per_class.csv, paths.csv and picture.jpg (the best frame) into `folder`.

    Each file is written beside its place and renamed. Returns the path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # ray casting holds no lock
        panels = list(pool.map(lambda snapshot: draw_panels(snapshot, rig), evaluation.snapshots))
    write_whole(folder / "results.json", (json.dumps(as_json(evaluation), indent=1) + "\n").encode())
    write_whole(folder / "per_class.csv", per_class_csv(evaluation).encode())
    if evaluation.trajectories:
        write_whole(folder / "paths.csv", paths_csv(evaluation).encode())
    else:
        (folder / "paths.csv").unlink(missing_ok=True)  # of an earlier run
    if panels:
        write_whole(folder / "picture.jpg", encoded(sheet(panels[-1]), "jpg"))
    write_whole(folder / "report.html", page(evaluation, panels, title).encode())
    return folder / "report.html"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the pictures, with null for what was not measured."""
    content = {f.name: getattr(evaluation, f.name) for f in fields(evaluation)
               if f.name not in ("snapshots", "trajectories")}
    content["frames"] = [asdict(frame) for frame in evaluation.frames]
    plain: dict[str, Any] = _without_nan(content)
    return plain


def per_class_csv(evaluation: Evaluation) -> str:
    """A line per class with IoU on visible and on all known voxels, RayIoU, and the number of true visible voxels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "class", "iou_visible", "iou_known", "rayiou", "true_visible_voxels"])
    for row in _class_rows(evaluation):
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in row])
    return text.getvalue()


def paths_csv(evaluation: Evaluation) -> str:
    """A line per waypoint of every path: where and when, and what was found when it was laid into the grid."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stamp_ns", "status", "time_s", "x_m", "y_m", "clearance_m", "ruling_class", "flags"])
    names = dict(enumerate(evaluation.classes))
    for path in evaluation.trajectories:
        for i, (time_s, (x, y)) in enumerate(zip(path.times_s, path.positions_m, strict=True)):
            found = ["", "", ""]
            if path.check is not None:
                flags = [flag.name or "" for flag in WaypointFlag if path.check.flags[i] & flag]
                ruling = names.get(int(path.check.ruling_label[i]), "")
                found = [f"{path.check.clearance_m[i]:.3f}", ruling, " ".join(flags).lower()]
            writer.writerow([path.stamp_ns, path.status.name.lower(), f"{time_s:g}", f"{x:.3f}", f"{y:.3f}", *found])
    return text.getvalue()


def page(evaluation: Evaluation, panels: Sequence[Panels], title: str) -> str:
    """The HTML page with all pictures inside."""
    template = resources.files("occ_perception.replay").joinpath("report.html").read_text(encoding="utf-8")
    data, model = evaluation.about.get("data", {}), evaluation.about.get("model", {})
    subtitle = f"{model.get('model', 'no model')} on {data.get('recording', 'no recording')}"
    if "split" in data:
        subtitle += f" (split {data['split']}, version {data.get('version', 'unknown')})"
    return Template(template).substitute(
        style=style(), title=escape(title), subtitle=escape(subtitle), tiles=_tiles(evaluation),
        notes="".join(f'<div class="note">{escape(note)}</div>' for note in evaluation.notes),
        legend=_legend(evaluation), frames="".join(_frame(i, p, panels) for i, p in enumerate(panels)),
        classes=_classes(evaluation), latency=_latency(evaluation), timeline=_timeline(evaluation.frames),
        drops=_drops(evaluation), paths=_paths(evaluation), about=_about(evaluation.about),
    )


# --- parts of the page ---


def _tiles(evaluation: Evaluation) -> str:
    visible, rays = evaluation.scores.get("visible", {}), evaluation.scores.get("rays", {})
    navigation = evaluation.scores.get("navigation", {})
    total = evaluation.latency_ms.get("receive_to_publish") or evaluation.latency_ms.get("total") or {}
    tiles = [
        (percent(visible.get("iou")), "IoU, visible voxels"), (percent(visible.get("miou")), "mIoU, visible voxels"),
        (percent(rays.get("rayiou")), "RayIoU"), (percent(navigation.get("lane_keeping_rate")), "lane keeping"),
        (number(total.get("p95"), " ms"), "latency, 95 % of frames"),
        (f"{evaluation.answered} of {evaluation.images_in}", "images answered"),
    ]
    return "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(name)}</span></div>' for v, name in tiles)


def _legend(evaluation: Evaluation) -> str:
    named = list(zip(evaluation.classes, evaluation.colours, strict=True))[1:]
    return "".join(swatch(colour, name) for name, colour in named)


def _frame(index: int, panels: Panels, everything: Sequence[Panels]) -> str:
    score = panels.score
    scored = not math.isnan(score.miou)
    kind = f"Frame {index + 1}"
    if scored:
        is_best = index == len(everything) - 1 and index > 0
        kind = "The best frame, for comparison" if is_best else f"Worst frame {index + 1}"
    facts = [f"stamp {score.stamp_ns / 1e9:.3f} s"]
    if scored:
        facts += [f"IoU {percent(score.iou)}", f"mIoU {percent(score.miou)}"]
    if not math.isnan(score.latency_ms):
        facts.append(f"{score.latency_ms:.1f} ms")
    facts += list(score.flags) + ([f"path {score.path}"] if score.path else [])
    wide = "".join(figure(name, picture, "jpg") for name, picture in panels.wide.items())
    maps = "".join(figure(name, picture, "png") for name, picture in panels.maps.items())
    keys = "".join(swatch(colour, name) for name, colour in ERROR_COLOURS.items()) if scored else ""
    if score.path in CHECKED:
        keys += "".join(swatch(colour, f"waypoint {name}") for name, colour in WAYPOINT_COLOURS.items())
    return (f'<div class="frame"><h3>{kind}</h3><p>{escape(", ".join(facts))}</p><div class="wide">{wide}</div>'
            f'<div class="maps">{maps}</div><div class="legend" style="margin:10px 0 0">{keys}</div></div>')


def _class_rows(evaluation: Evaluation) -> list[tuple[int, str, float, float, float, int]]:
    if not evaluation.scores:
        return []
    visible, known, rays = (evaluation.scores[name] for name in ("visible", "known", "rays"))
    per_threshold = [values for name, values in rays.items() if name.startswith("per_class_")]
    rows = []
    for i, name in enumerate(evaluation.classes):
        ray = [values[i] for values in per_threshold]
        mean_ray = sum(ray) / len(ray) if ray else math.nan
        rows.append((i, name, visible["per_class"][i], known["per_class"][i], mean_ray, int(visible["support"][i])))
    return rows


def _classes(evaluation: Evaluation) -> str:
    rows = []
    for i, name, visible, known, ray, support in _class_rows(evaluation)[1:]:
        width = 0.0 if math.isnan(visible) else 100 * visible
        bar = f'<span class="bar"><i style="width:{width:.1f}%"></i></span>'
        rows.append([swatch(evaluation.colours[i], name), bar + percent(visible), percent(known), percent(ray),
                     f"{support:,}"])
    if not rows:
        return "<p>Nothing was scored.</p>"
    means = evaluation.scores
    rows.append(["<b>mean over classes</b>", percent(means["visible"]["miou"]), percent(means["known"]["miou"]),
                 percent(means["rays"]["rayiou"]), ""])
    rows.append(["<b>occupied or not</b>", percent(means["visible"]["iou"]), percent(means["known"]["iou"]), "", ""])
    return table(["class", "IoU, visible voxels", "IoU, all known voxels", "RayIoU", "true visible voxels"], rows)


def _latency(evaluation: Evaluation) -> str:
    if not evaluation.latency_ms:
        return "<p>Not known.</p>"
    names = [escape(_STAGES.get(stage, stage.replace("_", " "))) for stage in evaluation.latency_ms]
    rows = [[name, *(number(values.get(p)) for p in ("p50", "p95", "p99"))]
            for name, values in zip(names, evaluation.latency_ms.values(), strict=True)]
    return table(["milliseconds", "50 %", "95 %", "99 %"], rows)


def _timeline(frames: Sequence[FrameScore]) -> str:
    """Latency of every frame as a line, or IoU where latencies are not known."""
    values = [frame.latency_ms for frame in frames]
    name, unit = "latency by frame", "ms"
    if all(math.isnan(v) for v in values):
        values, name, unit = [100 * frame.iou for frame in frames], "IoU by frame", "%"
    values = [v for v in values if not math.isnan(v)]
    if len(values) < 2:
        return ""
    top = 1.1 * max(values) or 1.0
    points = " ".join(f"{40 + 540 * i / (len(values) - 1):.1f},{170 - 150 * v / top:.1f}" for i, v in enumerate(values))
    soft = 'fill="#5c6875"'
    lines = "".join(
        f'<line x1="40" x2="580" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e6eb"/>'
        f'<text x="34" y="{y + 4:.1f}" text-anchor="end" font-size="11" {soft}>{(170 - y) / 150 * top:.0f}</text>'
        for y in (170, 132.5, 95, 57.5, 20)
    )
    return (f'<svg viewBox="0 0 600 200" role="img" aria-label="{name}">{lines}'
            f'<polyline fill="none" stroke="#2563c9" stroke-width="1.6" points="{points}"/>'
            f'<text x="310" y="193" text-anchor="middle" font-size="12" {soft}>{name}, {unit}</text></svg>')


def _drops(evaluation: Evaluation) -> str:
    if not evaluation.drops:
        return "<p>Nothing was dropped.</p>"
    return table(["reason", "number"], [[escape(k.replace("_", " ")), str(n)] for k, n in evaluation.drops.items()])


def _paths(evaluation: Evaluation) -> str:
    scores, rows = evaluation.scores, []
    for name, group in (("predicted path", "navigation"), ("path really taken", "navigation_truth")):
        if group in scores:
            path = scores[group]
            rows.append([name, *(percent(path[k]) for k in ("collision_rate", "grass_rate", "lane_keeping_rate")),
                         number(path.get("displacement_m"), " m"), number(path.get("final_displacement_m"), " m")])
    header = ["path on the true map", "collision", "grass", "lane keeping", "mean displacement", "at its end"]
    tables = table(header, rows) if rows else ""
    if evaluation.paths:
        check = scores.get("path_check", {})
        counts = [str(evaluation.paths.get(name, 0)) for name in ("clear", "caution", "blocked", "unchecked")]
        tables += "<br>" + table(
            ["path on the predicted map", "clear", "caution", "blocked", "not checked", "blocked waypoints foreseen",
             "of those called blocked, right"],
            [["frames", *counts, percent(check.get("foreseen")), percent(check.get("right"))]])
    if rays := scores.get("rays"):
        within = [name for name in rays if name.startswith("rayiou_") and name.endswith("m")]
        values = [["right class and range", *(percent(rays[name]) for name in within), percent(rays["rayiou"])]]
        tables += "<br>" + table(["rays", *(f"within {name[7:-1]} m" for name in within), "mean"], values)
    return tables or "<p>Nothing was scored.</p>"


def _about(about: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [f'<tr><td>{escape(section)}</td><td class="text">{escape(key.replace("_", " "))}</td>'
            f'<td class="text">{escape(str(value))}</td></tr>'
            for section, values in about.items() for key, value in values.items() if value not in ("", None)]
    return f"<table>{''.join(rows)}</table>"


# --- numbers ---


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
