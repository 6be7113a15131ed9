"""The generated messages: they survive a round trip over the wire format, and carry the constants readers rely on."""

from array import array

from occ_perception_msgs.msg import FlowField, PlannedTrajectory, TrackedInstance, TrackedInstanceArray, VoxelGrid
from rclpy.serialization import deserialize_message, serialize_message


def round_trip(message):
    return deserialize_message(serialize_message(message), type(message))


def test_a_voxel_grid_survives_the_wire():
    grid = VoxelGrid(
        labels=array("B", [VoxelGrid.LABEL_FREE, 12, VoxelGrid.LABEL_OCCUPIED, VoxelGrid.LABEL_UNKNOWN]),
        confidence=array("B", [0, 200, 130, 128]),
        instance_rows=array("H", [0, 1, 0, 0]),
        track_ids=array("Q", [2**63 + 1]),
        taxonomy="sidewalk14",
        sensor_names=["front"],
        flags=["no_odometry"],
    )
    grid.shape[:] = [2, 2, 1]
    grid.cell_size.x = 0.1
    back = round_trip(grid)
    assert back == grid
    assert list(back.labels) == [0, 12, 254, 255]
    assert back.track_ids[0] == 2**63 + 1


def test_a_flow_field_survives_the_wire():
    field = FlowField(cell_index=array("I", [499_999]), vx=array("f", [1.5]), vy=array("f", [-0.25]))
    assert round_trip(field) == field


def test_instances_survive_the_wire_inside_their_array():
    thing = TrackedInstance(track_id=7, label=11, score=0.5, state=TrackedInstance.STATE_COASTING)
    back = round_trip(TrackedInstanceArray(instances=[thing]))
    assert back.instances == [thing]


def test_waypoint_flags_are_bits_of_one_byte():
    bits = [
        PlannedTrajectory.WAYPOINT_BLOCKED, PlannedTrajectory.WAYPOINT_TIGHT, PlannedTrajectory.WAYPOINT_UNKNOWN,
        PlannedTrajectory.WAYPOINT_OFF_LIMITS, PlannedTrajectory.WAYPOINT_OUTSIDE,
    ]
    assert bits == [1, 2, 4, 8, 16]
    path = PlannedTrajectory(
        times_s=array("f", [0.5, 1.0]),
        waypoint_flags=array("B", [0, bits[1] | bits[2]]),
        status=PlannedTrajectory.STATUS_CAUTION,
    )
    assert round_trip(path) == path
