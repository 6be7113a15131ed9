"""A fleet's output folder as one page that needs nothing beside it: what was labelled, how well, and what was not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from occ_perception.labeling.quality import Quality, total
from occ_perception.labeling.scene_job import PICTURE, REPORT, Outcome, Status
from occ_perception.metrics import OccupancyIoU
from occ_perception.replay.pages import figure, number, percent, style, swatch, table, write_whole
from occ_perception.taxonomy import SIDEWALK

PAGE = "report.html"
MOST_PICTURES = 40
"""Scenes whose picture is in the page, the ones to look at first; a thousand would make it too large to open."""
_THUMBNAIL_PX = 900

Report = Mapping[str, Any]


def write_report(out: Path, outcomes: Sequence[Outcome] = ()) -> Path:
    """Write `report.html` into a fleet's output folder and return its path.

    Args:
        out: folder of labelled scenes; each has a report and a picture. What they lack is left out of the page.
        outcomes: of the last run; those that are not done are listed with their reasons.
    """
    reports, broken = _read(out)
    left_out = [*broken, *(outcome for outcome in outcomes if outcome.status is not Status.done)]
    write_whole(out / PAGE, page(out, reports, left_out).encode())
    return out / PAGE


def page(out: Path, reports: Sequence[Report], left_out: Sequence[Outcome]) -> str:
    """The HTML page. Scenes with warnings come first, then those of lowest mIoU."""
    template = resources.files("occ_perception.labeling").joinpath("report.html").read_text(encoding="utf-8")
    ranked = sorted(reports, key=_rank)
    quality = total(Quality.from_dict(report["quality"]) for report in reports if "quality" in report)
    segmenters = sorted({str(report["segmenter"]) for report in reports if "segmenter" in report})
    notes = [] if len(ranked) <= MOST_PICTURES else [
        f"Pictures of {MOST_PICTURES} scenes are shown, warnings and lowest mIoU first; every scene's folder has one."]
    if len(segmenters) > 1:
        notes.append(f"The scenes were labelled by different segmenters: {', '.join(segmenters)}")
    return Template(template).substitute(
        title=f"Labels in {escape(out.resolve().name)}", style=style(),
        subtitle=escape(f"segmenter {', '.join(segmenters) or 'unknown'}"), tiles=_tiles(reports, left_out, quality),
        notes="".join(f'<div class="note">{escape(note)}</div>' for note in notes), left_out=_left_out(left_out),
        cards="".join(_card(out, report) for report in ranked[:MOST_PICTURES]), scenes=_scenes(ranked),
        classes=_classes(quality), stages=_stages(reports), drops=_drops(reports), about=_about(reports))


def _read(out: Path) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """Reports of the scenes by name, and scenes whose report cannot be read."""
    reports, broken = [], []
    for path in sorted(out.glob(f"*/{REPORT}")):
        try:
            reports.append({"scene": path.parent.name} | json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            broken.append(Outcome(path.parent.name, Status.failed, f"its {REPORT} cannot be read: {error}"))
    return reports, broken


def _scores(report: Report) -> Mapping[str, float | None]:
    scores: Mapping[str, float | None] = report.get("quality", {}).get("scores", {})
    return scores


def _rank(report: Report) -> tuple[bool, float, str]:
    miou = _scores(report).get("miou")
    return not report.get("warnings"), 1.0 if miou is None else miou, str(report["scene"])


# --- parts of the page ---


def _tiles(reports: Sequence[Report], left_out: Sequence[Outcome], quality: Quality | None) -> str:
    scores = {} if quality is None else quality.scores()
    frames = sum(report.get("frames", 0) for report in reports)
    timed = [report for report in reports if report.get("frames_per_core_s") and "frames" in report]
    core_s = sum(report["frames"] / report["frames_per_core_s"] for report in timed)
    frames_per_s = sum(report["frames"] for report in timed) / core_s if core_s else None
    tiles = [
        (str(len(reports)), "scenes labelled"), (f"{frames:,}", "frames"), (str(len(left_out)), "not labelled"),
        (str(sum(bool(report.get("warnings")) for report in reports)), "scenes with warnings"),
        (number(frames_per_s), "frames per second of a core"),
    ]
    if quality is not None:
        tiles += [(percent(scores["iou"]), "IoU, visible voxels"), (percent(scores["miou"]), "mIoU, visible voxels"),
                  (percent(scores["trail"]), "of crossed voxels hold a trail")]
    return "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
                   for value, name in tiles)


def _card(out: Path, report: Report) -> str:
    """One scene: its picture, which opens the large one beside the page, its figures and warnings."""
    name, scores = str(report["scene"]), _scores(report)
    facts = [f"{report.get('frames', 0)} frames"]
    if report.get("points"):
        facts.append(f"{percent(report.get('labelled_points', 0) / report['points'])} of the returns labelled")
    if report.get("tracks"):
        facts.append(f"{report['tracks']} tracks")
    facts += [f"{title} {percent(scores[key])}" for key, title in (("iou", "IoU"), ("miou", "mIoU"), ("trail", "trail"))
              if scores.get(key) is not None]
    health = report.get("health", {})
    if health:
        facts.append("health " + ", ".join(f"{camera} {number(value)}" for camera, value in health.items()))
    levelling = report.get("levelling", {})
    if levelling and not levelling.get("skipped"):
        facts.append(f"levelled by up to {number(levelling.get('tilt_deg'))} degrees")
    facts += [f"{count} {_words(reason)}" for reason, count in report.get("drops", {}).items() if count]
    notes = "".join(f'<div class="note">{escape(warning)}</div>' for warning in report.get("warnings", ()))
    picture = cv2.imread(str(out / name / PICTURE), cv2.IMREAD_COLOR_RGB) if (out / name / PICTURE).is_file() else None
    shown = ""
    if picture is not None:
        height = round(picture.shape[0] * _THUMBNAIL_PX / picture.shape[1])
        small = cv2.resize(picture, (_THUMBNAIL_PX, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        shown = f'<a href="{quote(name)}/{PICTURE}">{figure(f"middle frame of {name}", small, "jpg")}</a>'
    return (f'<div class="frame" id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(", ".join(facts))}</p>'
            f"{notes}{shown}</div>")


def _left_out(outcomes: Iterable[Outcome]) -> str:
    rows = [f'<tr><td>{escape(outcome.name)}</td><td class="text">{outcome.status.value}</td>'
            f'<td class="text">{escape(outcome.reason)}</td></tr>' for outcome in outcomes]
    return f"<table>{''.join(rows)}</table>" if rows else "<p>Nothing in the last run.</p>"


def _scenes(reports: Iterable[Report]) -> str:
    rows = []
    for report in reports:
        scores = _scores(report)
        healths = [value for value in report.get("health", {}).values() if value is not None]
        rows.append([
            f'<a href="#{escape(str(report["scene"]))}">{escape(str(report["scene"]))}</a>',
            str(report.get("frames", "–")), *(percent(scores.get(key)) for key in ("iou", "miou", "curb", "gutter")),
            percent(scores.get("trail")), number(min(healths, default=None)), number(report.get("pose_error_m"), " m"),
            number(report.get("frames_per_core_s")),
            f"{report['peak_memory_mb']} MB" if "peak_memory_mb" in report else "–",
            str(len(report.get("warnings", ())))])
    header = ["scene", "frames", "IoU", "mIoU", "kerb", "gutter", "trail", "health", "poses", "frames/s", "memory",
              "warnings"]
    return table(header, rows) if rows else "<p>No scene is labelled.</p>"


def _classes(quality: Quality | None) -> str:
    if quality is None:
        return "<p>The truth of these scenes is not known.</p>"
    iou = OccupancyIoU(len(SIDEWALK))
    iou.confusion += quality.confusion
    computed: dict[str, Any] = iou.compute()
    rows = []
    for name, colour, value in list(zip(SIDEWALK.classes, SIDEWALK.colours, computed["per_class"]))[1:]:
        width = 0.0 if np.isnan(value) else 100 * value
        bar = f'<span class="bar"><i style="width:{width:.1f}%"></i></span>'
        rows.append([swatch(colour, name), bar + percent(value)])
    rows.append(["<b>mean over classes</b>", percent(computed["miou"])])
    rows.append(["<b>occupied or not</b>", percent(computed["iou"])])
    return table(["class", "IoU, visible voxels"], rows)


def _stages(reports: Iterable[Report]) -> str:
    wall, cpu = Counter[str](), Counter[str]()
    for report in reports:
        wall.update(report.get("wall_s", {}))
        cpu.update(report.get("cpu_s", {}))
    whole_s = max(sum(wall.values()), 1e-9)
    rows = [[escape(stage), number(seconds, " s"), number(cpu.get(stage), " s"), percent(seconds / whole_s)]
            for stage, seconds in wall.items()]
    return table(["stage", "by the clock", "of the cores", "share"], rows) if rows else "<p>Not known.</p>"


def _drops(reports: Iterable[Report]) -> str:
    drops = Counter[str]()
    for report in reports:
        drops.update(report.get("drops", {}))
    rows = [[escape(_words(reason)), str(count)] for reason, count in drops.most_common() if count]
    return table(["dropped messages and frames", "number"], rows) if rows else "<p>Nothing was dropped.</p>"


def _about(reports: Sequence[Report]) -> str:
    """Versions and settings; all scenes of a folder have the same settings."""
    values: dict[str, Any] = {key: ", ".join(sorted({str(report[key]) for report in reports if key in report}))
                              for key in ("version", "commit", "segmenter")}
    values |= reports[0].get("settings", {}) if reports else {}
    rows = [f'<tr><td>{escape(str(key))}</td><td class="text">{escape(str(value))}</td></tr>'
            for key, value in values.items() if value not in ("", None)]
    return f"<table>{''.join(rows)}</table>"


def _words(slug: str) -> str:
    return slug.replace("_", " ")
