"""The arrays that flow through the system refuse what does not fit, and say what was wanted."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.taxonomy import SIDEWALK, Taxonomy, get_taxonomy
from occ_perception.types import (
    CameraImage,
    FlowField,
    PathCheck,
    PathStatus,
    PointCloud,
    SensorFrame,
    Trajectory,
    VoxelGrid,
)

SPEC = VoxelGridSpec((0, 0, 0), (2, 1, 1), 0.5)


def test_an_image_of_another_layout_says_what_it_must_be():
    with pytest.raises(ShapeError, match=r"image of front: must be uint8 \[NxNx3\], got float32 \(4, 4, 3\)"):
        CameraImage("front", 0, np.zeros((4, 4, 3), np.float32))


def test_point_times_must_match_the_points():
    with pytest.raises(ShapeError, match="time_ns"):
        PointCloud("top", 0, np.zeros((3, 3), np.float32), time_ns=np.zeros(2, np.int64))


def test_a_grid_checks_labels_and_instance_rows():
    labels = np.zeros(SPEC.shape, np.uint8)
    with pytest.raises(ShapeError, match="labels"):
        VoxelGrid(SPEC, 0, labels[:1])
    rows = np.zeros(SPEC.shape, np.uint16)
    rows[0, 0, 0] = 2
    with pytest.raises(ShapeError, match="rows go up to 2 but there are 1"):
        VoxelGrid(SPEC, 0, labels, instance_rows=rows, track_ids=np.ones(1, np.uint64))


def test_a_sparse_flow_becomes_dense():
    flow = FlowField(SPEC, 0, np.array([[3, 1, 0]]), np.array([[1, 2, 3]], np.float32), np.ones(1, np.float32))
    dense = flow.dense()
    assert dense[3, 1, 0].tolist() == [1, 2, 3]
    assert np.count_nonzero(dense) == 3


def test_a_frame_knows_the_stamps_of_all_its_sensors():
    frame = SensorFrame(5, {"front": CameraImage("front", 5, np.zeros((1, 1, 3), np.uint8))},
                        {"top": PointCloud("top", 7, np.zeros((1, 3), np.float32))})
    assert frame.sensor_stamps_ns() == {"front": 5, "top": 7}


def test_waypoints_and_times_go_together():
    with pytest.raises(ShapeError, match="times_s"):
        Trajectory(0, np.zeros((3, 2), np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(("flags", "status"), [
    ((), PathStatus.CLEAR), ((0, 0), PathStatus.CLEAR), ((0, 4), PathStatus.CAUTION), ((8, 3), PathStatus.BLOCKED)])
def test_a_path_is_blocked_where_a_waypoint_is_and_clear_where_none_has_a_flag(flags, status):
    n = len(flags)
    check = PathCheck(np.ones(n, np.float32), np.zeros(n, np.uint8), np.array(flags, np.uint8))
    path = Trajectory(0, np.zeros((n, 2), np.float32), np.zeros(n, np.float32), check)
    assert path.status == check.status == status


def test_a_check_fits_its_path_and_a_path_without_one_is_unchecked():
    with pytest.raises(ShapeError, match="clearance_m"):
        PathCheck(np.ones(2, np.float32), np.zeros(3, np.uint8), np.zeros(3, np.uint8))
    check = PathCheck(np.ones(3, np.float32), np.zeros(3, np.uint8), np.zeros(3, np.uint8))
    times_s = np.zeros(2, np.float32)
    with pytest.raises(ShapeError, match="flags of its check"):
        Trajectory(0, np.zeros((2, 2), np.float32), times_s, check)
    assert Trajectory(0, np.zeros((2, 2), np.float32), times_s).status == PathStatus.UNCHECKED


def test_the_sidewalk_taxonomy_is_table_8_and_its_obstacles_those_of_a_2():
    assert len(SIDEWALK) == 14
    assert SIDEWALK.classes[12:] == ("curb", "gutter")
    assert {SIDEWALK.classes[i] for i in SIDEWALK.obstacles} == {
        "wall", "trees", "vehicle", "cyclist", "animal", "obstacle", "person"}
    assert SIDEWALK.things | SIDEWALK.stuff == set(range(1, 14))
    assert SIDEWALK.palette().shape == (256, 3)


def test_a_taxonomy_lists_its_faults_and_an_unknown_one_the_known():
    with pytest.raises(ConfigurationError, match="2 faults"):
        Taxonomy("t", ("free", "road"), ((0, 0, 0),), frozenset({7}), frozenset(), frozenset())
    with pytest.raises(ConfigurationError, match="sidewalk14"):
        get_taxonomy("cityscapes")
