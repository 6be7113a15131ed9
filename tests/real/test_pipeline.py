"""Real images through bag, synchroniser, assembler, tables and engine into voxels: a voxel holds what shows it.

The engine gathers colours and judges nothing, so that the geometry of the whole way is tested alone.
"""

import numpy as np
import pytest

from occ_perception.engines import load_engine, load_manifest
from occ_perception.pipelines import FrameAssembler, OccupancyPipeline, OdometryBuffer, synchroniser_for
from occ_perception.recordings import BagReader, sensor_events
from occ_perception.recordings.create import create_bag
from occ_perception.taxonomy import UNKNOWN

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def grids_of(gathering_model):
    """What the robot's pipeline answers to every instant of a bag."""
    manifest = load_manifest(gathering_model)
    engine = load_engine(manifest, device="cpu", threads=1)

    def answer(bag, rig):
        pipeline = OccupancyPipeline(engine, manifest, rig)
        synchroniser, assembler, sets = synchroniser_for(rig), FrameAssembler(rig, OdometryBuffer()), []
        with BagReader(bag) as reader:
            for event in sensor_events(reader, rig):
                if event.kind == "image":
                    sets += synchroniser.push(event.sensor, event.stamp_ns, event.message)
            sets += synchroniser.flush()
            return [pipeline.step(assembler.assemble(synced)).grid for synced in sets]

    return answer


@pytest.fixture(scope="module")
def robot_grids(marked_bag, tracked_robot, grids_of):
    return grids_of(marked_bag, tracked_robot.rig)


@pytest.fixture(scope="module")
def vehicle_grids(fisheye_vehicle, grids_of, tmp_path_factory):
    bag = tmp_path_factory.mktemp("vehicle") / "bag"
    create_bag(bag, fisheye_vehicle.rig, fisheye_vehicle.images, repeat=2)
    return grids_of(bag, fisheye_vehicle.rig)


def test_every_instant_is_answered_from_all_cameras(robot_grids, vehicle_grids):
    assert [sorted(grid.sensor_stamps_ns) for grid in robot_grids] == [["front", "left", "rear", "right"]] * 6
    assert [sorted(grid.sensor_stamps_ns) for grid in vehicle_grids] == [["back", "front", "left", "right"]] * 2


def test_voxels_of_a_person_are_those_where_the_lidar_met_him(robot_grids, assert_person_is_where_the_lidar_met_him):
    assert_person_is_where_the_lidar_met_him(robot_grids[0])


def test_voxels_of_the_lane_line_are_the_brightest_across_the_ground(vehicle_grids):
    x_cells, y_cells, ground = np.arange(15, 50), np.arange(15, 28), 20  # x 1.5 to 5 m, y -3.5 to -2.2 m, above z = 0
    brightness = vehicle_grids[0].confidence[np.ix_(x_cells, y_cells, [ground])][..., 0]
    brightest = np.stack([x_cells, y_cells[brightness.argmax(axis=1)], np.full(len(x_cells), ground)], -1)
    y_m = vehicle_grids[0].spec.centre_of(brightest)[:, 1]
    assert np.median(np.abs(y_m - -2.84)) < 0.1
    assert np.mean(np.abs(y_m - -2.84) < 0.16) > 0.9


def test_what_no_camera_sees_is_unknown_and_the_way_ahead_is_not(robot_grids, vehicle_grids):
    for grids in (robot_grids, vehicle_grids):
        assert not (grids[0].labels[30:90, 45:55, 20] == UNKNOWN).any()
    assert (robot_grids[0].labels == UNKNOWN).mean() > 0.1
