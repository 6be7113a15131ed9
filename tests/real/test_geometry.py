"""Real images, LiDAR and calibrations: points land on the things they hit, and cameras agree about the ground.

The pixel regions below were read off the images by eye.
"""

import cv2
import numpy as np
import pytest

from occ_perception.geometry import se3
from occ_perception.recordings.cloud_files import read_cloud

pytestmark = pytest.mark.real

# Regions of the tracked robot's left image (u0, v0, u1, v1) that one thing fills, edge to edge.
THINGS_PX = {
    "a man's leg": (420, 300, 530, 450), "his back": (345, 20, 520, 230), "the second person": (1395, 200, 1490, 420),
    "a trunk": (905, 50, 990, 300), "a thin trunk": (1305, 50, 1375, 200),
}
GAP_PX = (720, 60, 880, 300)  # between man and trunk, open to the wood behind


@pytest.fixture(scope="module")
def points_m(tracked_robot):
    """The scan in the robot's footprint frame."""
    [lidar] = tracked_robot.rig.lidars
    return se3.apply(lidar.T_base_lidar, read_cloud(tracked_robot.clouds["top"], "top", 0).points_m)


def ranges_in(region, points, camera, yaw_error_rad=0.0):
    error = se3.from_euler(0.0, yaw_error_rad, 0.0)  # about the optical frame's vertical axis
    in_camera = se3.apply(se3.invert(camera.T_base_camera @ error), points)
    pixels, valid = camera.camera.project(in_camera)
    u0, v0, u1, v1 = region
    inside = valid & (pixels[:, 0] > u0) & (pixels[:, 0] < u1) & (pixels[:, 1] > v0) & (pixels[:, 1] < v1)
    return np.linalg.norm(in_camera[inside], axis=1)


def compactness(ranges):
    """Share of the points that lie on the thing, within arm's length of the middle one."""
    return np.mean(np.abs(ranges - np.median(ranges)) < 0.35)


@pytest.mark.parametrize("thing", THINGS_PX)
def test_lidar_points_fall_onto_the_silhouettes_of_people_and_trunks(tracked_robot, points_m, thing):
    ranges = ranges_in(THINGS_PX[thing], points_m, tracked_robot.rig.camera("left"))
    assert len(ranges) > 50
    assert compactness(ranges) > 0.93
    behind = ranges_in(GAP_PX, points_m, tracked_robot.rig.camera("left"))
    assert np.median(behind) > np.median(ranges) + 3.0


@pytest.mark.parametrize("error_deg", [-2.0, 2.0])
def test_two_degrees_of_error_would_be_noticed(tracked_robot, points_m, error_deg):
    camera = tracked_robot.rig.camera("left")
    shares = [compactness(ranges_in(region, points_m, camera, np.deg2rad(error_deg))) for region in THINGS_PX.values()]
    assert min(shares) < 0.6


def test_the_ground_before_the_robot_lies_at_height_zero(points_m):
    x, y, z = points_m.T
    path = z[(x > 1) & (x < 3) & (np.abs(y) < 0.5)]
    assert abs(np.median(path)) < 0.1


def test_no_point_is_seen_where_the_lens_polynomial_folds_back(tracked_robot, points_m):
    for camera in tracked_robot.rig.cameras:
        in_camera = se3.apply(se3.invert(camera.T_base_camera), points_m)
        _, valid = camera.camera.project(in_camera)
        seen = in_camera[valid]
        assert len(seen) > 5000
        assert (seen[:, 2] > 0).all()
        assert np.abs(seen[:, 0] / seen[:, 2]).max() < 1.1
        assert np.abs(seen[:, 1] / seen[:, 2]).max() < 0.8


def line_across_m(data, name, x_m, y_m):
    """Where the brightest stripe lies across the vehicle (y) as the camera sees the ground, one value per x, metres."""
    camera = data.rig.camera(name)
    image = cv2.imread(str(data.images[name]), cv2.IMREAD_COLOR)[..., 2]  # red: white and yellow are both bright
    ground = np.stack(np.meshgrid(x_m, y_m, [0.0], indexing="ij"), -1).reshape(-1, 3)
    pixels, valid = camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), ground))
    assert valid.all(), f"{name} does not see all of the seam"
    maps = pixels.astype(np.float32).reshape(len(x_m), len(y_m), 2)
    seen = cv2.GaussianBlur(cv2.remap(image, maps, None, cv2.INTER_LINEAR).astype(np.float32), (0, 0), 3)
    return y_m[seen.argmax(axis=1)]


RIGHT_LINE_M = np.arange(-3.4, -2.3, 0.02)
LEFT_LINE_M = np.arange(0.9, 1.7, 0.02)


@pytest.mark.parametrize(("cameras", "x_m", "y_m"), [
    (("front", "right"), (1.5, 4.5), RIGHT_LINE_M),
    (("right", "back"), (-5.0, -2.5), RIGHT_LINE_M),
    (("front", "left"), (4.3, 5.5), LEFT_LINE_M),
    (("left", "back"), (-2.6, -2.0), LEFT_LINE_M),
], ids=lambda value: "-".join(value) if isinstance(value[0], str) else "")
def test_neighbouring_fisheyes_see_the_lane_lines_at_the_same_place(fisheye_vehicle, cameras, x_m, y_m):
    x_m = np.arange(*x_m, 0.05)
    first, second = (line_across_m(fisheye_vehicle, name, x_m, y_m) for name in cameras)
    assert np.median(np.abs(first - second)) < 0.08


def test_the_right_lane_line_is_straight_and_parallel_to_the_vehicle(fisheye_vehicle):
    x_m = np.arange(-4.0, 5.0, 0.05)
    y_m = line_across_m(fisheye_vehicle, "right", x_m, RIGHT_LINE_M)
    slope, offset = np.polyfit(x_m, y_m, 1)
    assert np.median(np.abs(y_m - (slope * x_m + offset))) < 0.05
    assert abs(np.rad2deg(np.arctan(slope))) < 1.5


def test_a_pedestrian_is_as_tall_as_a_person_where_his_foot_stands(fisheye_vehicle):
    """The unit of this calibration is inferred (about 0.1 m), so only the order is checked."""
    camera = fisheye_vehicle.rig.camera("right")
    foot_px, crown_px = (777.0, 462.0), (791.0, 299.0)
    foot_ray, crown_ray = camera.camera.unproject(np.array([foot_px, crown_px])) @ camera.T_base_camera[:3, :3].T
    eye = camera.T_base_camera[:3, 3]
    foot = eye - foot_ray * eye[2] / foot_ray[2]
    crown = eye + crown_ray * np.linalg.norm((foot - eye)[:2]) / np.linalg.norm(crown_ray[:2])
    assert foot[1] < -2.9  # beyond the right lane line, before the kerb
    assert foot[1] > -4.5
    assert 1.3 < crown[2] < 1.9
