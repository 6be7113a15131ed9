"""`occ-perception rig`: rig files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from occ_perception.cli.shared import PASS_ON, pairs, pass_on, rig_of
from occ_perception.errors import RecordingError

rig_app = typer.Typer(no_args_is_help=True, help="Rigs: check calibrations with pictures, convert them.")


@rig_app.command("check")
def rig_check(
    rig: Annotated[str, typer.Argument(help="Rig file, or the name of a shipped rig.")],
    images: Annotated[list[str] | None, typer.Option(help="CAMERA=FILE, or folder of CAMERA.jpg; repeatable.")] = None,
    cloud: Annotated[list[str] | None, typer.Option(help="LIDAR=FILE (.npz, .npy, .pcd, .bin); repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/rig"),
) -> None:
    """Check a rig file, and draw LiDAR points (by range) and the grid's ground into its images."""
    from occ_perception.recordings.cloud_files import SUFFIXES
    from occ_perception.replay import rig_files

    console, the_rig = Console(), rig_of(rig)
    cameras, lidars = [c.name for c in the_rig.cameras], [x.name for x in the_rig.lidars]
    pictures = rig_files.check_pictures(
        the_rig, rig_files.files_by_sensor(images, cameras, rig_files.IMAGE_SUFFIXES),
        rig_files.files_by_sensor(cloud, lidars, SUFFIXES))
    console.print(rig_files.rig_table(the_rig, pictures))
    if pictures:
        rig_files.save_pictures(pictures, out)
        console.print(f"pictures: {out}\nThe green lattice (1 m) must lie on the ground, points on what they hit.")


@rig_app.command("convert")
def rig_convert(
    kind: Annotated[str, typer.Argument(help="camera_info, kalibr, kitti or nuscenes.")],
    source: Annotated[list[str], typer.Argument(help="FILE, or SENSOR=FILE for each camera_info.")],
    out: Annotated[Path, typer.Option(help="Rig file to write.")],
    pose: Annotated[list[str] | None, typer.Option(
        help="SENSOR=x,y,z,roll,pitch,yaw on the base (metres, degrees; pitch down is positive); repeatable.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the images, for kitti.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the rig. Default: that of the file.")] = None,
) -> None:
    """Make a rig file from the calibration files of other tools."""
    from occ_perception.calibration import save_rig
    from occ_perception.replay.rig_files import convert

    files = {key: Path(path) for key, path in pairs(source, "SOURCE", default="all").items()}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise RecordingError("does not exist", where=", ".join(missing))
    image_size = None
    if size is not None:
        height, _, width = size.partition("x")
        if not (height.isdigit() and width.isdigit()):
            raise typer.BadParameter(f"{size!r} is not HEIGHTxWIDTH", param_hint="--size")
        image_size = int(height), int(width)
    rig = convert(kind, files, pairs(pose, "--pose"), name or out.stem, image_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_rig(rig, out)
    Console().print(f"{len(rig.cameras)} cameras, {len(rig.lidars)} LiDARs: {out}. Look at it with `rig check`.")


@rig_app.command("health", context_settings=PASS_ON, add_help_option=False)
def rig_health(context: typer.Context) -> None:
    """Judge whether cameras and LiDARs agree, and refine where cameras look; `rig health --help` lists the options."""
    pass_on(context, "occ_perception.labeling.rig_health")


@rig_app.command("calibrate", context_settings=PASS_ON, add_help_option=False)
def rig_calibrate(context: typer.Context) -> None:
    """Calibrate a camera and its place beside a LiDAR from a board; `rig calibrate --help` lists the options."""
    pass_on(context, "occ_perception.labeling.rig_calibrate")
