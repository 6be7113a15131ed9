"""On a real street image, LiDAR and voxels tell of the same things; clocks and mounts can be wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable

import embreex  # noqa: F401
import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import World
from occ_perception.simulation.sim import SensorErrors, SidewalkSim, SimFrame
from occ_perception.taxonomy import SIDEWALK, UNKNOWN


@pytest.fixture(scope="module")
def sim(street: World, wheeled_rig: Rig) -> SidewalkSim:
    return SidewalkSim(street, wheeled_rig, lidar=LidarModel(range_sigma_m=0.0))


@pytest.fixture(scope="module")
def frame(sim: SidewalkSim) -> SimFrame:
    return sim.frame(5.0)


def test_a_frame_is_complete(frame: SimFrame) -> None:
    view = frame.views["front"]
    assert view.image.shape == (544, 960, 3)
    assert view.semantics.shape == view.range_m.shape == view.track_ids.shape == (544, 960)
    assert len(frame.clouds["top"].points_m) > 20_000
    assert frame.truth.grid.labels.shape == (100, 100, 50)
    assert frame.truth.trajectory is not None


def test_pixels_lie_in_voxels_of_their_own_class(sim: SidewalkSim, frame: SimFrame) -> None:
    view, truth = frame.views["front"], frame.truth
    camera = sim.rig.camera("front")
    points = np.nan_to_num(camera.camera.rays()) * view.range_m[..., None]
    points = se3.apply(truth.T_grid_base @ camera.T_base_camera, points)
    cells, inside = truth.grid.spec.index(points)
    inside &= (view.range_m > 0) & (cells > 0).all(-1) & (cells < np.array(truth.grid.spec.shape) - 1).all(-1)
    cells, classes = cells[inside], view.semantics[inside]
    assert len(cells) > 100_000
    around = [truth.grid.labels[tuple((cells + (dx, dy, dz)).T)]
              for dx in (-1, 0, 1) for dy in (-1, 0, 1) for dz in (-1, 0, 1)]
    agrees = (np.array(around) == classes).any(axis=0)
    for label in np.unique(classes).tolist():
        own = classes == label
        if own.sum() > 500:
            assert agrees[own].mean() > 0.97, SIDEWALK.classes[label]


def test_lidar_points_lie_in_or_beside_matter(sim: SidewalkSim, frame: SimFrame) -> None:
    cloud, truth = frame.clouds["top"], frame.truth
    assert cloud.time_ns is not None
    lidar, robot = sim.rig.lidar("top"), sim.world.robot
    points = np.empty((len(cloud.points_m), 3))
    for time_ns in np.unique(cloud.time_ns):
        own = cloud.time_ns == time_ns
        T = np.linalg.inv(truth.T_world_grid) @ robot.pose_at(frame.time_s + time_ns * 1e-9) @ lidar.T_base_lidar
        points[own] = se3.apply(T, cloud.points_m[own])
    cells, inside = truth.grid.spec.index(points)
    inside &= (cells > 0).all(-1) & (cells < np.array(truth.grid.spec.shape) - 1).all(-1)
    cells = cells[inside]
    assert len(cells) > 5_000
    matter = (truth.grid.labels > 0) & (truth.grid.labels != UNKNOWN)
    beside = np.zeros_like(matter)
    for axis in range(3):
        for step in (-1, 0, 1):
            beside |= np.roll(matter, step, axis=axis)
    # ground is drawn up to 0.3 cells higher than it is, so that some of its points lie in the unknown below
    assert (truth.grid.labels[tuple(cells.T)] != 0).mean() > 0.9
    assert beside[tuple(cells.T)].mean() > 0.99


def test_frames_do_not_depend_on_what_was_asked_before(street: World, wheeled_rig: Rig, frame: SimFrame) -> None:
    again = SidewalkSim(street, wheeled_rig, lidar=LidarModel(range_sigma_m=0.0)).frame(5.0)
    assert (again.views["front"].image == frame.views["front"].image).all()
    assert (again.clouds["top"].points_m == frame.clouds["top"].points_m).all()
    assert (again.truth.grid.labels == frame.truth.grid.labels).all()


def test_clock_offsets_change_stamps_and_nothing_else(make_yard: Callable[..., World], small_rig: Rig) -> None:
    world = make_yard(speed_mps=1.0)
    right = SidewalkSim(world, small_rig, start_ns=10**18).frame(1.0)
    errors = SensorErrors(clock_offset_s={"top": 0.03, "front": -0.01})
    late = SidewalkSim(world, small_rig, start_ns=10**18, errors=errors).frame(1.0)
    assert right.clouds["top"].stamp_ns == 10**18 + 10**9
    assert late.clouds["top"].stamp_ns == 10**18 + 1_030_000_000
    assert late.truth.grid.stamp_ns == 10**18 + 990_000_000
    assert (late.views["front"].image == right.views["front"].image).all()
    assert (late.clouds["top"].points_m == right.clouds["top"].points_m).all()


def test_extrinsic_errors_move_the_picture_but_not_the_truth(make_yard: Callable[..., World], small_rig: Rig) -> None:
    world = make_yard()
    right = SidewalkSim(world, small_rig).frame(0.0)
    turned = SidewalkSim(world, small_rig, errors=SensorErrors(
        extrinsic={"front": se3.from_euler(0.0, 0.05, 0.0)})).frame(0.0)  # 0.05 rad about y, the optical frame's down
    assert (right.views["front"].semantics != turned.views["front"].semantics).mean() > 0.005
    assert (right.truth.grid.labels == turned.truth.grid.labels).all()
    assert (right.clouds["top"].points_m == turned.clouds["top"].points_m).all()


def test_errors_of_unknown_sensors_are_refused(make_yard: Callable[..., World], small_rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match=r"no sensor 'left'.*front, top"):
        SidewalkSim(make_yard(), small_rig, errors=SensorErrors(clock_offset_s={"left": 1.0}))
