"""`occ-perception rig health`: whether cameras and LiDARs agree, and where the cameras must look so that they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from occ_perception.calibration import Rig, RigCamera, load_rig, save_rig
from occ_perception.labeling import rig_data
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.extrinsics import (
    EDGE_RGB,
    ExtrinsicHealth,
    Refinement,
    alignment_picture,
    check_extrinsics,
    refine_extrinsics,
)
from occ_perception.recordings.cloud_files import SUFFIXES
from occ_perception.replay.overlay import range_colours
from occ_perception.replay.panels import arrange
from occ_perception.replay.pictures import Colour, Picture, write_picture
from occ_perception.replay.rig_files import IMAGE_SUFFIXES, files_by_sensor
from occ_perception.ros.environment import rig_file

_RANGES_M = (1, 4, 7, 10)


@dataclass(frozen=True, eq=False)
class Judgement:
    """Health of a camera as the rig has it, and a better place where one was looked for and found."""

    health: ExtrinsicHealth
    refinement: Refinement | None = None


def judge(frames: Sequence[LabelFrame], rig: Rig, *, refine: bool = False) -> list[Judgement]:
    """Every camera with images, in the order of the rig.

    Args:
        refine: look for a better place of cameras whose health warns; one of no better health is not taken.
    """
    judgements = []
    for camera in rig.cameras:
        if not any(camera.name in frame.images for frame in frames):
            continue
        health = check_extrinsics(frames, camera)
        found = None
        if refine and health.warning and not math.isnan(health.health):
            found = refine_extrinsics(frames, camera)
        better = found is not None and found.after.health > health.health
        judgements.append(Judgement(health, found if better else None))
    return judgements


def refined_rig(rig: Rig, judgements: Sequence[Judgement]) -> Rig:
    """The rig with refined cameras where they were found."""
    better = {each.health.camera: each.refinement.camera for each in judgements if each.refinement is not None}
    return rig.model_copy(update={"cameras": tuple(better.get(camera.name, camera) for camera in rig.cameras)})


def health_table(rig: Rig, judgements: Sequence[Judgement], frames: int) -> Table:
    """Health by camera, and what refinement did."""
    table = Table(title=f"rig {rig.name}: cameras and LiDARs over {frames} frames")
    refined = any(each.refinement is not None for each in judgements)
    for column in ("camera", "depth edges", "nearness", "health", *(("refined", "turned by") if refined else ())):
        table.add_column(column, justify="left" if column == "camera" else "right")
    for each in judgements:
        health = each.health
        row = [health.camera, f"{health.points:,}", _number(health.score), _health(health)]
        if refined:
            found = each.refinement
            row += ["", ""] if found is None else [_health(found.after), f"{found.turned_deg:.2f}°"]
        table.add_row(*row)
    return table


def _health(health: ExtrinsicHealth) -> str:
    return f"[{'yellow' if health.warning else 'green'}]{_number(health.health)}[/]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def health_picture(frames: Sequence[LabelFrame], camera: RigCamera, refined: RigCamera | None) -> Picture:
    """The alignment of a camera as the rig has it, beside the refined one, in the middle one of its frames."""
    shown = [frame for frame in frames if camera.name in frame.images]
    frame = shown[len(shown) // 2]
    pictures = {f"{camera.name}, as the rig has it": alignment_picture(frame, camera)}
    if refined is not None:
        pictures[f"{camera.name}, refined"] = alignment_picture(frame, refined)
    colours: list[Colour] = [(int(r), int(g), int(b)) for r, g, b in range_colours(_RANGES_M)]
    legend = {f"{range_m} m": colour for range_m, colour in zip(_RANGES_M, colours)}
    return arrange([pictures], legend | {"depth edge, to lie on an edge of the image": EDGE_RGB}, row_px=1000)


def main(
    rig: Annotated[str, typer.Argument(help="Rig file, or the name of a shipped rig.")],
    images: Annotated[list[str] | None, typer.Option(help="CAMERA=FILE or CAMERA=FOLDER; repeatable.")] = None,
    cloud: Annotated[list[str] | None, typer.Option(help="LIDAR=FILE or LIDAR=FOLDER; repeatable.")] = None,
    bag: Annotated[Path | None, typer.Option(help="A drive with odometry, instead of files.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="SENSOR=TOPIC in the bag, where not the default.")] = None,
    refine: Annotated[Path | None, typer.Option(help="Rig file to write, cameras turned to where they fit.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/rig_health"),
) -> None:
    """Judge whether cameras and LiDARs agree: depth edges must lie on image edges. Needs structure all around.

    The n-th files of all sensors are one instant of a robot that stands; of a bag, drives are used.
    """
    console, the_rig = Console(), load_rig(rig_file(rig))
    if bag is None and images and cloud:
        frames = rig_data.frames_of_files(
            the_rig, files_by_sensor(images, [camera.name for camera in the_rig.cameras], IMAGE_SUFFIXES),
            files_by_sensor(cloud, [lidar.name for lidar in the_rig.lidars], SUFFIXES))
    elif bag is not None and not images and not cloud:
        frames = rig_data.frames_of_drive(bag, the_rig, rig_data.named_topics(topic))
    else:
        raise typer.BadParameter(rig_data.FILES_OR_BAG, param_hint="input")
    with console.status("looking for edges"):
        judgements = judge(frames, the_rig, refine=refine is not None)
    console.print(health_table(the_rig, judgements, len(frames)))
    for each in judgements:
        if each.health.warning:
            console.print(each.health.warning, style="yellow", soft_wrap=True)
        better = None if each.refinement is None else each.refinement.camera
        write_picture(health_picture(frames, the_rig.camera(each.health.camera), better),
                      out / f"{each.health.camera}.png")
    console.print(f"pictures: {out}", soft_wrap=True)
    if refine is None:
        return
    if not any(each.refinement for each in judgements):
        console.print("no camera was refined: no rig was written")
        return
    refine.parent.mkdir(parents=True, exist_ok=True)
    save_rig(refined_rig(the_rig, judgements), refine)
    console.print(f"refined rig: {refine}. Judge it on other frames before you use it.", soft_wrap=True)
