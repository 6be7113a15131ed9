"""`occ-perception bag`: recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from occ_perception.cli.shared import RigOption, require, rig_of, show_counts

bag_app = typer.Typer(no_args_is_help=True, help="Bags: look into them, make them from files or from simulation.")


@bag_app.command("info")
def bag_info(bag: Annotated[Path, typer.Argument(help="Recording: rosbag2 folder, .mcap or .db3 file.")]) -> None:
    """List the topics of a bag with types, numbers and rates."""
    from occ_perception.recordings import BagReader
    from occ_perception.replay.terminal import bag_table

    with BagReader(bag) as reader:
        Console().print(bag_table(reader))


@bag_app.command("view")
def bag_view(
    bag: Annotated[Path, typer.Argument(help="Recording with voxel grids: outputs of a node, or ground truth.")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("out/view.html"),
    topic: Annotated[str | None, typer.Option(help="Topic of the grids, where there are several.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=50, help="Number of grids, evenly spread.")] = 5,
) -> None:
    """Write a page with the voxel grids of a bag in 3D, to be turned, zoomed and slid through."""
    require("plotly")
    from occ_perception.replay.viewer import grids_of, write_view

    grids = grids_of(bag, topic, frames)
    write_view(grids, out)
    Console().print(f"{len(grids)} grids: {out}")


@bag_app.command("create")
def bag_create(
    output: Annotated[Path, typer.Argument(help="Folder, or .mcap file to make.")],
    rig: Annotated[str, typer.Option(help="Rig file, or the name of a shipped rig.")],
    images: Annotated[list[str], typer.Option(help="CAMERA=FILE or CAMERA=FOLDER; repeatable.")],
    cloud: Annotated[list[str] | None, typer.Option(help="LIDAR=FILE or LIDAR=FOLDER; repeatable.")] = None,
    rate: Annotated[float, typer.Option(help="Instants per second.")] = 10.0,
    repeat: Annotated[int, typer.Option(min=1, help="How often the series is told.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bag.")] = False,
) -> None:
    """Make a bag from images, clouds and a rig; the n-th files of all sensors are one instant."""
    from occ_perception.recordings.cloud_files import SUFFIXES
    from occ_perception.recordings.create import create_bag
    from occ_perception.replay.rig_files import IMAGE_SUFFIXES, files_by_sensor

    the_rig = rig_of(rig)
    counts = create_bag(
        output, the_rig, files_by_sensor(images, [c.name for c in the_rig.cameras], IMAGE_SUFFIXES),
        files_by_sensor(cloud, [x.name for x in the_rig.lidars], SUFFIXES),
        rate_hz=rate, repeat=repeat, overwrite=overwrite)
    show_counts(output, counts)


@bag_app.command("simulate")
def bag_simulate(
    output: Annotated[Path, typer.Argument(help="Folder, or .mcap file to make.")],
    rig: RigOption = "sidewalk_wheeled",
    seed: Annotated[int, typer.Option(min=0, help="Of the world.")] = 0,
    district: Annotated[str, typer.Option(help="touristy, residential or commercial.")] = "residential",
    embodiment: Annotated[str, typer.Option(help="wheeled, quadruped, wheelchair or humanoid.")] = "wheeled",
    night: Annotated[bool, typer.Option(help="Lamps and headlights instead of the sun.")] = False,
    duration: Annotated[float, typer.Option(min=0.5, help="Length of the bag, seconds.")] = 20.0,
    image_hz: Annotated[float, typer.Option(min=0.5, help="Images per second.")] = 10.0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bag.")] = False,
) -> None:
    """Let a simulated robot drive, and write what its sensors see and what is true."""
    require("embreex")
    from occ_perception.simulation.bags import BagSettings, write_bag
    from occ_perception.simulation.scene import DISTRICTS, EMBODIMENTS
    from occ_perception.simulation.world import make_world

    for value, known, option in ((district, DISTRICTS, "--district"), (embodiment, EMBODIMENTS, "--embodiment")):
        if value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)
    world = make_world(seed, district, night, embodiment, duration + 6.0)  # type: ignore[arg-type]
    settings = BagSettings(duration_s=duration, image_hz=image_hz)
    show_counts(output, write_bag(world, rig_of(rig), output, settings, overwrite=overwrite, progress=True))
