"""`occ-perception rig calibrate`: a camera's lens and its place beside a LiDAR, from a board that both saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from occ_perception.calibration import Rig, load_rig, save_rig
from occ_perception.geometry import se3
from occ_perception.labeling import rig_data
from occ_perception.labeling.charuco import Board, RigCalibration, calibrate_rig, find_board, find_board_returns
from occ_perception.labeling.rig_data import Pair
from occ_perception.replay.overlay import draw_points, tile
from occ_perception.replay.panels import arrange
from occ_perception.replay.pictures import Picture, write_picture
from occ_perception.ros.environment import rig_file

_CORNER_RGB, _PLATE_RGB, _RING_RGB = (60, 220, 90), (60, 140, 255), (255, 60, 60)
_MOST_BOARDS = 6
_BOARD = Board()


def calibration_table(before: Rig, camera: str, found: RigCalibration) -> Table:
    """What a calibration found, and how far that is from the rig it started from."""
    old, new = before.camera(camera), found.rig.camera(camera)
    moved = se3.invert(old.T_base_camera) @ new.T_base_camera
    turned_deg = float(np.degrees(Rotation.from_matrix(moved[:3, :3]).magnitude()))
    table = Table(title=f"camera {camera}", show_header=False)
    pairs = len(found.used) + len(found.skipped)
    table.add_row("pairs used", f"{len(found.used)} of {pairs}")
    table.add_row("corners miss by (rms)", f"{found.rms_px:.2f} px")
    table.add_row("returns miss board and ring by (rms)", f"{1000 * found.rms_m:.0f} mm")
    table.add_row("lens", f"{new.model}, {', '.join(f'{value:.5g}' for value in new.parameters)}")
    table.add_row("it was", f"{old.model}, {', '.join(f'{value:.5g}' for value in old.parameters)}")
    table.add_row("turned by, moved by", f"{turned_deg:.2f}°, {100 * np.linalg.norm(moved[:3, 3]):.1f} cm")
    return table


def calibration_picture(pairs: Sequence[Pair], found: RigCalibration, camera: str, lidar: str, board: Board) -> Picture:
    """Up to six boards as the camera saw them, with the LiDAR's returns of plate and ring where the new rig has them.

    Args:
        pairs: those the calibration was made from.
    """
    mounted, T_base_lidar = found.rig.camera(camera).mounted(), found.rig.lidar(lidar).T_base_lidar
    chosen, drawn = _spread(found.used, _MOST_BOARDS), []
    for index in chosen:
        image, cloud = pairs[index]
        returns, view, picture = find_board_returns(cloud, board), find_board(image, board), image.copy()
        if returns is not None:
            for points, rgb in ((returns.plate_m, _PLATE_RGB), (returns.ring_m, _RING_RGB)):
                colours = np.tile(rgb, (len(points), 1))
                picture = draw_points(picture, mounted, se3.apply(T_base_lidar, points), colours, 1)
        for corner in view.pixels if view is not None else ():
            u, v = np.rint(corner).astype(int).tolist()
            cv2.circle(picture, (u, v), 5, _CORNER_RGB, 1, cv2.LINE_AA)
        drawn.append(picture)
    legend = {"corner, found in the image": _CORNER_RGB, "return of the plate": _PLATE_RGB,
              "return of the ring, to lie on the tape": _RING_RGB}
    caption = f"{camera} and {lidar}: pairs {', '.join(map(str, chosen))}"
    return arrange([{caption: tile(drawn, columns=min(3, len(drawn)), width_px=640)}], legend, row_px=1000)


def _spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]


def main(
    rig: Annotated[str, typer.Argument(help="Rig file, or the name of a shipped rig.")],
    camera: Annotated[str, typer.Option(help="Camera to calibrate.")],
    out: Annotated[Path, typer.Option(help="Rig file to write.")],
    lidar: Annotated[str | None, typer.Option(help="LiDAR beside it, where the rig has several.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images of the board.")] = None,
    cloud: Annotated[Path | None, typer.Option(help="Folder of scans, the n-th beside the n-th image.")] = None,
    bag: Annotated[Path | None, typer.Option(help="Bag of a robot that stands, instead of files.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="SENSOR=TOPIC in the bag, where not the default.")] = None,
    squares: Annotated[str, typer.Option(help="COLUMNSxROWS of the board.")] = f"{_BOARD.columns}x{_BOARD.rows}",
    square: Annotated[float, typer.Option(help="Side of a square, metres.")] = _BOARD.square_m,
    marker: Annotated[float, typer.Option(help="Side of a marker, metres.")] = _BOARD.marker_m,
    ring: Annotated[float, typer.Option(help="Radius of the ring of reflective tape, metres.")] = _BOARD.ring_radius_m,
    tape: Annotated[float, typer.Option(help="Width of the tape, metres.")] = _BOARD.tape_m,
    dictionary: Annotated[str, typer.Option(help="OpenCV's name of the marker dictionary.")] = _BOARD.dictionary,
    pictures: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("out/rig_calibrate"),
) -> None:
    """Calibrate a camera's lens, and its place beside a LiDAR, from a ChArUco board with a reflective ring."""
    console, the_rig = Console(), load_rig(rig_file(rig))
    columns, _, rows = squares.partition("x")
    if not (columns.isdigit() and rows.isdigit()):
        raise typer.BadParameter(f"{squares!r} is not COLUMNSxROWS", param_hint="--squares")
    board = Board(int(columns), int(rows), square, marker, ring, tape, dictionary)
    beside = the_rig.lidar(lidar).name if lidar is not None else rig_data.only_lidar(the_rig)
    if bag is None and images is not None and cloud is not None:
        pairs = rig_data.pairs_of_files(the_rig, camera, images, beside, cloud)
    elif bag is not None and images is None and cloud is None:
        pairs = rig_data.pairs_of_bag(bag, the_rig, camera, beside, rig_data.named_topics(topic))
    else:
        raise typer.BadParameter(rig_data.FILES_OR_BAG, param_hint="input")
    with console.status("looking for the board"):
        found = calibrate_rig(the_rig, camera, beside, [image for image, _ in pairs], [scan for _, scan in pairs],
                              board)
        picture = calibration_picture(pairs, found, camera, beside, board)
    console.print(calibration_table(the_rig, camera, found))
    for index, reason in sorted(found.skipped.items()):
        console.print(f"pair {index} is left out: {reason}", style="yellow")
    write_picture(picture, pictures / f"{camera}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_rig(found.rig, out)
    console.print(f"calibrated rig: {out}, picture: {pictures / f'{camera}.png'}", soft_wrap=True)
