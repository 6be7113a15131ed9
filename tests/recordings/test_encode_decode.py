"""What is encoded, serialised, read back and decoded is what it was; the standard messages hold exact values."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.errors import BadMessage
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.recordings import MessageEncoder, make, typestore
from occ_perception.recordings import decode as d
from occ_perception.taxonomy import OCCUPIED, SIDEWALK, UNKNOWN, Sidewalk
from occ_perception.types import (
    CameraImage,
    FlowField,
    Odometry,
    PathCheck,
    PathStatus,
    PointCloud,
    TrackedInstance,
    Trajectory,
    VoxelGrid,
    WaypointFlag,
)

ENCODER = MessageEncoder(make)
STAMP_NS = 1_700_000_000_987_654_321
LATEST_NS = 2**31 * 10**9 - 1  # ROS counts seconds in an int32
SPEC = VoxelGridSpec((0.0, -1.0, -0.5), (2.0, 1.0, 1.0), (0.5, 0.5, 0.25))


def sent(message):
    """The message after a journey through its serialised form."""
    store = typestore()
    return store.deserialize_cdr(store.serialize_cdr(message, message.__msgtype__), message.__msgtype__)


def assert_same(a, b):
    """Equal field by field, arrays by value and type."""
    assert type(a) is type(b)
    for name in a.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if hasattr(left, "__dataclass_fields__"):
            assert_same(left, right)
        elif isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            assert left == right, name


POSE = se3.from_euler(0.1, -0.2, 2.5, (1, 2, 3))


@st.composite
def grids(draw):
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    cell = draw(st.sampled_from([0.05, 0.1, 0.4, (0.1, 0.2, 0.3)]))
    low = np.array(draw(st.tuples(*[st.integers(-50, 50)] * 3))) / 10
    spec = VoxelGridSpec(tuple(low), tuple(np.round(low + np.array(shape) * cell, 9)), cell)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    order = draw(st.sampled_from("CF"))
    ids = rng.integers(1, 2**63, draw(st.integers(0, 5)), dtype=np.uint64)
    full = draw(st.booleans())
    return VoxelGrid(
        spec, draw(st.integers(0, LATEST_NS)), np.array(rng.integers(0, 256, shape, dtype=np.uint8), order=order),
        confidence=rng.integers(0, 256, shape, dtype=np.uint8) if full else None,
        instance_rows=rng.integers(0, len(ids) + 1, shape, dtype=np.uint16) if full else None,
        track_ids=ids, model_id=draw(st.text(max_size=5).filter(lambda text: "\0" not in text)),
        sensor_stamps_ns={"front": draw(st.integers(0, LATEST_NS)), "top": 5} if full else {},
        flags=frozenset(draw(st.sets(st.sampled_from(["no_odometry", "no_cloud", "reset"])))),
    )


@settings(deadline=None)
@given(grids())
def test_any_voxel_grid_comes_back(grid):
    assert_same(d.decode_voxel_grid(sent(ENCODER.voxel_grid(grid))), grid)


def test_the_pose_of_a_grid_comes_back_and_its_absence_too():
    labels = np.zeros(SPEC.shape, np.uint8)
    back = d.decode_voxel_grid(sent(ENCODER.voxel_grid(VoxelGrid(SPEC, STAMP_NS, labels, T_odom_grid=POSE))))
    np.testing.assert_allclose(back.T_odom_grid, POSE, atol=1e-12)
    assert d.decode_voxel_grid(sent(ENCODER.voxel_grid(VoxelGrid(SPEC, STAMP_NS, labels)))).T_odom_grid is None


def test_labels_lie_in_the_message_with_x_fastest():
    labels = np.zeros(SPEC.shape, np.uint8)
    labels[3, 1, 2] = 7
    message = ENCODER.voxel_grid(VoxelGrid(SPEC, STAMP_NS, labels))
    nx, ny, _ = SPEC.shape
    assert np.flatnonzero(message.labels).tolist() == [3 + nx * (1 + ny * 2)]
    assert message.shape.tolist() == [4, 4, 6]
    assert (message.origin.y, message.cell_size.z) == (-1.0, 0.25)


@pytest.mark.parametrize("field", ["labels", "confidence", "instance_rows"])
def test_a_grid_whose_arrays_do_not_fit_is_refused(field):
    message = ENCODER.voxel_grid(VoxelGrid(SPEC, STAMP_NS, np.zeros(SPEC.shape, np.uint8)))
    setattr(message, field, np.zeros(5, getattr(message, field).dtype))
    with pytest.raises(BadMessage, match=field) as caught:
        d.decode_voxel_grid(message)
    assert caught.value.reason == "wrong_size"


def test_a_flow_field_comes_back_and_bad_indices_are_refused():
    rng = np.random.default_rng(0)
    cells = SPEC.unflatten(rng.choice(SPEC.size, 20, replace=False))
    flow = FlowField(SPEC, STAMP_NS, cells, rng.normal(size=(20, 3)).astype(np.float32),
                     rng.random(20).astype(np.float32))
    message = sent(ENCODER.flow_field(flow))
    assert_same(d.decode_flow_field(message), flow)
    message.cell_index = np.full(20, SPEC.size, np.uint32)
    with pytest.raises(BadMessage):
        d.decode_flow_field(message)
    message.cell_index = np.zeros(19, np.uint32)
    with pytest.raises(BadMessage):
        d.decode_flow_field(message)


def test_an_empty_flow_field_comes_back():
    none = np.zeros(0, np.float32)
    flow = FlowField(SPEC, STAMP_NS, np.zeros((0, 3), np.int64), none.reshape(0, 3), none)
    assert_same(d.decode_flow_field(sent(ENCODER.flow_field(flow))), flow)


TRAJECTORY = Trajectory(STAMP_NS, np.array([[1, 0], [2, 0], [2, 1]], np.float32), np.array([0.5, 1, 1.5], np.float32))


def test_a_trajectory_comes_back_and_looks_along_its_way():
    message = sent(ENCODER.planned_trajectory(TRAJECTORY, model_id="m"))
    assert_same(d.decode_trajectory(message), TRAJECTORY)
    assert message.status == message.STATUS_UNCHECKED
    last = message.poses[2].orientation
    assert se3.yaw_of(se3.from_quaternion((last.x, last.y, last.z, last.w))) == pytest.approx(np.pi / 2)
    message.times_s = message.times_s[:2]
    with pytest.raises(BadMessage):
        d.decode_trajectory(message)


def headings(*waypoints_m):
    """Yaw at each waypoint of the message, and its quaternions' lengths."""
    times_s = np.arange(1, len(waypoints_m) + 1, dtype=np.float32)
    message = sent(ENCODER.planned_trajectory(Trajectory(STAMP_NS, np.array(waypoints_m, np.float32), times_s)))
    quaternions = [(o.x, o.y, o.z, o.w) for o in (pose.orientation for pose in message.poses)]
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1.0)
    return [se3.yaw_of(se3.from_quaternion(q)) for q in quaternions]


def test_a_robot_that_stands_holds_its_heading_and_one_that_creeps_turns():
    np.testing.assert_allclose(headings((-0.001, 0.002), (0.001, -0.003)), 0.0)
    np.testing.assert_allclose(headings((0, 1), (0.003, 0.995), (-0.004, 1.001)), np.pi / 2)
    creeping = headings((0, 1), (-0.015, 1), (-0.030, 1), (-0.045, 1))
    np.testing.assert_allclose(creeping, [np.pi / 2, np.pi / 2, np.pi, np.pi], atol=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_waypoint_that_is_no_number_has_a_heading_all_the_same(broken):
    np.testing.assert_allclose(headings((0, 1), (broken, 1), (0, 2)), [np.pi / 2, 0, np.pi / 2])


def test_a_checked_trajectory_comes_back_with_what_was_found():
    check = PathCheck(np.array([np.inf, 0.3, 0.0], np.float32), np.array([2, 2, 11], np.uint8),
                      np.array([0, WaypointFlag.TIGHT, WaypointFlag.BLOCKED], np.uint8))
    checked = replace(TRAJECTORY, check=check)
    message = sent(ENCODER.planned_trajectory(checked))
    assert_same(d.decode_trajectory(message), checked)
    assert (message.status, message.taxonomy) == (message.STATUS_BLOCKED, "sidewalk14")
    assert message.waypoint_flags.tolist() == [0, message.WAYPOINT_TIGHT, message.WAYPOINT_BLOCKED]
    message.waypoint_flags = message.waypoint_flags[:2]
    with pytest.raises(BadMessage, match="path check"):
        d.decode_trajectory(message)


def test_flags_and_status_are_those_of_the_message():
    constants = make("occ_perception_msgs/msg/PlannedTrajectory")
    for prefix, values in (("WAYPOINT_", WaypointFlag), ("STATUS_", PathStatus)):
        declared = {name: getattr(constants, name) for name in dir(constants) if name.startswith(prefix)}
        assert declared == {prefix + value.name: value.value for value in values}


def test_a_path_stamps_each_pose_with_its_time():
    message = sent(ENCODER.path(TRAJECTORY))
    assert [d.stamp_ns(pose.header) - STAMP_NS for pose in message.poses] == [500_000_000, 10**9, 1_500_000_000]
    assert [(p.pose.position.x, p.pose.position.y) for p in message.poses] == [(1, 0), (2, 0), (2, 1)]


def test_tracked_instances_come_back():
    instances = [TrackedInstance(2**63 + 5, 11, 0.5, POSE, np.array([1.0, 2, 3]), np.array([0.5, 0.6, 1.7]), 2.5, 0.0),
                 TrackedInstance(7, 7, 1.0, np.eye(4), np.zeros(3), np.ones(3), 1.0, 0.5)]
    message = sent(ENCODER.tracked_instances(STAMP_NS, instances, taxonomy="sidewalk14", model_id="truth"))
    back = d.decode_tracked_instances(message)
    np.testing.assert_allclose(back[0].T_grid_object, POSE, atol=1e-12)
    assert [(i.track_id, i.label, i.score, i.age_s, i.unseen_s) for i in back] == [
        (2**63 + 5, 11, 0.5, 2.5, 0.0), (7, 7, 1.0, 1.0, 0.5)]
    np.testing.assert_array_equal(back[0].velocity_mps, [1, 2, 3])
    np.testing.assert_array_equal(back[0].size_m, [0.5, 0.6, 1.7])
    assert [i.state for i in message.instances] == [message.instances[0].STATE_CONFIRMED,
                                                    message.instances[0].STATE_COASTING]


def test_odometry_comes_back():
    odometry = Odometry(STAMP_NS, POSE, np.array([1.0, 0.1, 0]), np.array([0, 0, 0.5]))
    message = sent(ENCODER.odometry(odometry))
    back = d.decode_odometry(message)
    np.testing.assert_allclose(back.T_odom_base, POSE, atol=1e-12)
    np.testing.assert_array_equal(back.linear_mps, odometry.linear_mps)
    np.testing.assert_array_equal(back.angular_radps, odometry.angular_radps)
    assert (message.header.frame_id, message.child_frame_id, back.stamp_ns) == ("odom", "base_link", STAMP_NS)


@pytest.mark.parametrize(("part", "value"), [("x", np.nan), ("w", np.nan)])
def test_odometry_that_is_no_number_is_refused(part, value):
    message = ENCODER.odometry(Odometry(STAMP_NS, POSE))
    setattr(message.pose.pose.position if part == "x" else message.pose.pose.orientation, part, value)
    with pytest.raises(BadMessage) as caught:
        d.decode_odometry(message)
    assert caught.value.reason == "bad_pose"


def test_odometry_with_an_all_zero_quaternion_is_refused():
    with pytest.raises(BadMessage, match="quaternion"):
        d.decode_odometry(make("nav_msgs/msg/Odometry"))


def test_images_and_clouds_come_back():
    rng = np.random.default_rng(1)
    image = CameraImage("front", STAMP_NS, rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    message = sent(ENCODER.image(image, frame="front_optical"))
    np.testing.assert_array_equal(d.decode_image(message), image.pixels)
    assert (message.header.frame_id, d.stamp_ns(message.header)) == ("front_optical", STAMP_NS)
    smooth = np.full((64, 64, 3), (200, 40, 90), np.uint8)
    jpeg = sent(ENCODER.compressed_image(CameraImage("front", 1, smooth), quality=95))
    np.testing.assert_allclose(d.decode_image(jpeg).astype(int), smooth, atol=3)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    for intensity, time_ns in ((None, None), (points[:, 0].copy(), np.linspace(-5e7, 5e7, 50).astype(np.int64))):
        cloud = PointCloud("top", STAMP_NS, points, intensity, time_ns)
        assert_same(d.decode_points(sent(ENCODER.point_cloud(cloud)), "top"), cloud)


def camera(model, parameters):
    return RigCamera(name="front", frame="front_optical", width=64, height=48, model=model, parameters=parameters,
                     T_base_camera=POSE)


@pytest.mark.parametrize(("model", "parameters", "ros_model", "distortion"), [
    ("equidistant", (20, 21, 31, 23, 0.1, 0.02, 0, 0), "equidistant", [0.1, 0.02, 0, 0]),
    ("pinhole", (50, 51, 31, 23), "plumb_bob", [0, 0, 0, 0, 0]),
    ("pinhole", (50, 51, 31, 23, 0.1, 0.2, 0.01, 0.02, 0.3), "plumb_bob", [0.1, 0.2, 0.01, 0.02, 0.3]),
    ("pinhole", (50, 51, 31, 23, 0.1, 0.2, 0, 0, 0.3, 0.1, 0.05, 0.02), "rational_polynomial",
     [0.1, 0.2, 0, 0, 0.3, 0.1, 0.05, 0.02]),
])
def test_camera_info_speaks_the_models_that_ros_knows(model, parameters, ros_model, distortion):
    info = sent(ENCODER.camera_info(camera(model, parameters), STAMP_NS))
    assert info.distortion_model == ros_model
    np.testing.assert_allclose(info.d, distortion)
    fx, fy, cx, cy = parameters[:4]
    np.testing.assert_array_equal(info.k, [fx, 0, cx, 0, fy, cy, 0, 0, 1])
    np.testing.assert_array_equal(info.p, [fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0])
    assert (info.width, info.height, info.header.frame_id) == (64, 48, "front_optical")


def test_camera_info_of_a_lens_without_a_ros_name_claims_nothing():
    info = sent(ENCODER.camera_info(camera("mei", (50, 50, 31, 23, 0.8))))
    assert info.distortion_model == ""
    assert info.d.size == 0
    assert not info.k.any()


def test_static_transforms_place_every_sensor_on_the_base():
    rig = Rig(name="r", cameras=(camera("pinhole", (50, 50, 31, 23)),),
              lidars=(RigLidar(name="top", frame="top_lidar", T_base_lidar=np.eye(4)),))
    front, top = sent(ENCODER.static_transforms(rig)).transforms
    assert [(t.header.frame_id, t.child_frame_id) for t in (front, top)] == [
        ("base_link", "front_optical"), ("base_link", "top_lidar")]
    q, p = front.transform.rotation, front.transform.translation
    np.testing.assert_allclose(se3.from_quaternion((q.x, q.y, q.z, q.w), (p.x, p.y, p.z)), POSE, atol=1e-12)


def test_imu_without_orientation_says_so():
    message = sent(ENCODER.imu(STAMP_NS, (0.1, 0.2, 0.3), (0, 0, 9.81), frame="imu"))
    assert message.orientation_covariance[0] == -1
    assert (message.angular_velocity.z, message.linear_acceleration.z) == (0.3, 9.81)
    assert sent(ENCODER.imu(0, (0, 0, 0), (0, 0, 0), orientation_xyzw=(0, 0, 1, 0))).orientation_covariance[0] == 0


def one_voxel(label, cell=(2, 1, 3), **extra):
    labels = np.zeros(SPEC.shape, np.uint8)
    labels[cell] = label
    return VoxelGrid(SPEC, STAMP_NS, labels, **extra)


VOXEL_POINT = np.dtype({"names": ["x", "y", "z", "b", "g", "r", "label", "instance"],
                        "formats": ["f4", "f4", "f4", "u1", "u1", "u1", "u1", "u4"],
                        "offsets": [0, 4, 8, 12, 13, 14, 16, 20], "itemsize": 24})


def test_labelled_points_hold_centre_colour_label_and_instance():
    rows = np.zeros(SPEC.shape, np.uint16)
    rows[2, 1, 3] = 2
    grid = one_voxel(Sidewalk.PERSON, instance_rows=rows, track_ids=np.array([9, 1234], np.uint64))
    grid.labels[0, 0, 0] = UNKNOWN
    message = sent(ENCODER.labelled_points(grid))
    assert [(f.name, f.offset, f.datatype) for f in message.fields] == [
        ("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7), ("label", 16, 2), ("instance", 20, 6)]
    [point] = np.frombuffer(message.data, VOXEL_POINT)
    np.testing.assert_allclose([point["x"], point["y"], point["z"]], SPEC.centre_of([2, 1, 3]))
    assert (point["r"], point["g"], point["b"]) == SIDEWALK.colours[Sidewalk.PERSON]
    assert (point["label"], point["instance"]) == (Sidewalk.PERSON, 1234)
    assert message.width * message.point_step == message.row_step == message.data.size


def test_labelled_points_of_an_empty_grid_are_an_empty_cloud():
    message = sent(ENCODER.labelled_points(one_voxel(0)))
    assert (message.width, message.data.size) == (0, 0)


@settings(deadline=None)
@given(grids())
def test_labelled_points_are_the_occupied_cells(grid):
    points = np.frombuffer(ENCODER.labelled_points(grid).data, VOXEL_POINT)
    cells, inside = grid.spec.index(np.stack([points[a] for a in "xyz"], -1))
    assert inside.all()
    back = np.zeros(grid.spec.shape, np.uint8)
    back[tuple(cells.T)] = points["label"]
    np.testing.assert_array_equal(back, np.where(grid.labels == UNKNOWN, 0, grid.labels))


@pytest.mark.parametrize(("label", "cost"), [
    (0, 0), (Sidewalk.SIDEWALK, 0), (Sidewalk.CROSSWALK, 0), (Sidewalk.ROAD, 50), (Sidewalk.GRASS, 50),
    (Sidewalk.PERSON, 100), (Sidewalk.WALL, 100), (OCCUPIED, 100), (UNKNOWN, -1),
])
def test_the_grid_for_nav2_costs_what_the_column_holds(label, cost):
    labels = np.full(SPEC.shape, UNKNOWN, np.uint8)
    labels[3, 1, :] = label
    message = sent(ENCODER.occupancy_grid(VoxelGrid(SPEC, STAMP_NS, labels)))
    data = message.data.reshape(message.info.height, message.info.width)  # rows along y
    expected = np.full((4, 4), -1)
    expected[1, 3] = cost
    np.testing.assert_array_equal(data, expected)
    assert (message.info.resolution, message.info.origin.position.y) == (0.5, -1.0)


def test_an_obstacle_beats_ground_and_one_above_the_robot_does_not_count():
    labels = np.full(SPEC.shape, Sidewalk.SIDEWALK, np.uint8)
    labels[0, 0, 4] = Sidewalk.PERSON
    labels[1, 0, 5] = Sidewalk.TREES  # centre at 0.875 m
    message = ENCODER.occupancy_grid(VoxelGrid(SPEC, STAMP_NS, labels), height_m=(-0.5, 0.8))
    assert message.data[:3].tolist() == [100, 0, 0]


def test_markers_are_the_nearest_cubes_and_no_more_than_asked():
    labels = np.full(SPEC.shape, Sidewalk.ROAD, np.uint8)
    [marker] = sent(ENCODER.markers(VoxelGrid(SPEC, STAMP_NS, labels), max_cubes=10)).markers
    assert len(marker.points) == len(marker.colors) == 10
    distances = np.linalg.norm(SPEC.centres().reshape(-1, 3), axis=1)
    found = [np.hypot(np.hypot(p.x, p.y), p.z) for p in marker.points]
    np.testing.assert_allclose(sorted(found), np.sort(distances)[:10])
    assert marker.colors[0].r == pytest.approx(SIDEWALK.colours[Sidewalk.ROAD][0] / 255)


def test_label_names_are_json_of_all_labels():
    content = json.loads(sent(ENCODER.label_names(SIDEWALK)).data)
    assert content["taxonomy"] == "sidewalk14"
    assert content["labels"]["11"] == "person"
    assert content["labels"]["255"] == "unknown"
    assert content["colours"]["11"] == list(SIDEWALK.colours[11])
