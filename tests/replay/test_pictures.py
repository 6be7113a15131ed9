"""Pictures show what is where: colours, sides, errors."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.geometry import SIDEWALK_GRID as GRID
from occ_perception.replay.pictures import (
    ERROR_COLOURS,
    PATH_COLOUR,
    WAYPOINT_COLOURS,
    DrawnPath,
    View,
    error_map,
    map_from_above,
    overlay_labels,
    render_voxels,
    view_of,
)
from occ_perception.taxonomy import SIDEWALK, Sidewalk
from occ_perception.types import PathCheck, Trajectory, WaypointFlag

PALETTE = SIDEWALK.palette()
SMALL = view_of(GRID, 150, 100)


def column(x: int, y: int, label: int, top: int = 30) -> np.ndarray:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[x - 4:x + 5, y - 4:y + 5, 19:top] = label
    return labels


def trajectory(path: np.ndarray, check: PathCheck | None = None) -> Trajectory:
    return Trajectory(0, path, np.arange(len(path), dtype=np.float32), check)


def at(picture: np.ndarray, view: View, point_m: tuple[float, float, float]) -> np.ndarray:
    (u, v), _ = (part[0] for part in view.project([point_m]))
    return picture[round(v), round(u)].astype(int)


@pytest.mark.parametrize("label", [Sidewalk.PERSON, Sidewalk.VEHICLE, Sidewalk.GRASS])
def test_a_voxel_shows_in_its_colour_where_the_view_projects_it(label: int) -> None:
    labels = column(50, 50, label)
    picture = render_voxels(labels, GRID, PALETTE, SMALL)
    colour = at(picture, SMALL, (5.05, 0.05, 1.0))  # on its top
    direction = PALETTE[label] / np.linalg.norm(PALETTE[label].astype(float))
    assert colour @ direction / np.linalg.norm(colour) > 0.99
    assert at(picture, SMALL, (5.05, 3.0, 0.5)).min() > 200  # beside it there is only sky


def test_an_empty_grid_is_sky_and_paths_lie_on_the_ground() -> None:
    empty = np.full(GRID.shape, 255, np.uint8)
    plain = render_voxels(empty, GRID, PALETTE, SMALL)
    assert plain.shape == (100, 150, 3)
    assert plain.min() > 200
    path = np.array([[2.0, 0.0], [5.0, 1.0]], np.float32)
    drawn = render_voxels(empty, GRID, PALETTE, SMALL, [DrawnPath.of(trajectory(path), PATH_COLOUR)])
    changed = np.argwhere((drawn != plain).any(-1))
    (start, end), _ = SMALL.project([[0.0, 0.0, 0.06], [5.0, 1.0, 0.06]])
    assert changed[:, 0].max() == pytest.approx(start[1], abs=5)
    assert changed[:, 0].min() == pytest.approx(end[1], abs=7)


def test_checked_waypoints_have_the_colours_of_what_was_found() -> None:
    flags = {"free": 0, "tight": WaypointFlag.TIGHT, "blocked": WaypointFlag.BLOCKED | WaypointFlag.TIGHT,
             "off limits": WaypointFlag.OFF_LIMITS | WaypointFlag.UNKNOWN, "unknown": WaypointFlag.UNKNOWN}
    path = np.stack([np.arange(1.55, 6.0), np.full(5, 0.05)], axis=1).astype(np.float32)  # centres of cells
    check = PathCheck(np.ones(5, np.float32), np.zeros(5, np.uint8), np.array([*flags.values()], np.uint8))
    drawn = DrawnPath.of(trajectory(path, check), PATH_COLOUR)
    picture = map_from_above(np.zeros(GRID.shape, np.uint8), GRID, PALETTE, pixels_per_cell=4, paths=[drawn])
    for (x, y), name in zip(path, flags, strict=True):
        row, column = round((10 - x) * 40), round((5 - y) * 40)
        assert tuple(picture[row, column].tolist()) == WAYPOINT_COLOURS[name]
    unchecked = DrawnPath.of(trajectory(path), PATH_COLOUR)
    assert {tuple(dot) for dot in unchecked.dots.tolist()} == {PATH_COLOUR}


def test_shadow_darkens_the_ground_away_from_the_sun() -> None:
    ground = np.zeros(GRID.shape, np.uint8)
    ground[:, :, 19] = Sidewalk.SIDEWALK
    both = np.maximum(ground, column(50, 50, Sidewalk.WALL, top=40))
    points = [(5.8, -0.6, 0.0), (4.2, 1.4, 0.0)]
    bare, shaded = (render_voxels(labels, GRID, PALETTE, SMALL) for labels in (ground, both))
    assert at(shaded, SMALL, points[0]).sum() < 0.9 * at(bare, SMALL, points[0]).sum()
    assert at(shaded, SMALL, points[1]).sum() == pytest.approx(at(bare, SMALL, points[1]).sum(), rel=0.05)


def test_from_above_ahead_is_up_and_left_is_left() -> None:
    picture = map_from_above(column(95, 95, Sidewalk.PERSON), GRID, PALETTE, pixels_per_cell=2)
    red = np.argwhere((picture[..., 0] > 150) & (picture[..., 1] < 90))
    assert red.max() < 20  # far and left: the upper left corner
    high = map_from_above(column(95, 95, Sidewalk.PERSON), GRID, PALETTE, ceiling_m=-0.5)
    assert not ((high[..., 0] > 150) & (high[..., 1] < 90)).any()


def test_errors_have_their_colours_and_unseen_voxels_none() -> None:
    truth = column(20, 50, Sidewalk.PERSON) | column(50, 50, Sidewalk.WALL) | column(80, 50, Sidewalk.WALL)
    prediction = column(20, 50, Sidewalk.PERSON) | column(50, 50, Sidewalk.TREES) | column(20, 80, Sidewalk.WALL)
    truth[:, :, 45:] = 255
    picture = error_map(prediction, truth, GRID, pixels_per_cell=1)

    def shown(x: int, y: int) -> tuple[int, ...]:
        return tuple(picture[99 - x, 99 - y].tolist())

    assert shown(20, 50) == ERROR_COLOURS["right"]
    assert shown(50, 50) == ERROR_COLOURS["wrong class"]
    assert shown(80, 50) == ERROR_COLOURS["missed"]
    assert shown(20, 80) == ERROR_COLOURS["false alarm"]
    unseen = error_map(prediction, truth, GRID, np.zeros(GRID.shape, bool), pixels_per_cell=1)
    assert not any((unseen == colour).all(-1).any() for colour in ERROR_COLOURS.values())


def test_an_overlay_paints_the_pixels_whose_rays_meet_a_voxel(rig: Rig) -> None:
    camera = rig.cameras[0]
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    painted = overlay_labels(image, column(30, 50, Sidewalk.PERSON), GRID, camera.camera, camera.T_base_camera, PALETTE)
    assert painted[camera.height // 2, camera.width // 2, 0] > 100
    assert painted[:, :10].max() == 0
