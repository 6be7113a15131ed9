"""What is drawn lies where the geometry says, near things over far ones, and the given image stays untouched."""

import numpy as np
import pytest

from occ_perception.geometry import MountedCamera, VoxelGridSpec, make_camera, se3
from occ_perception.replay import overlay
from occ_perception.taxonomy import SIDEWALK, UNKNOWN, Sidewalk
from occ_perception.types import PointCloud, VoxelGrid

BLACK = np.zeros((80, 120, 3), np.uint8)
EYE_M = (0.0, 0.0, 1.0)
CAMERA = MountedCamera(make_camera("pinhole", 120, 80, (100, 100, 60, 40)), se3.make(se3.OPTICAL_IN_BODY, EYE_M))
RED, BLUE = (255, 0, 0), (0, 0, 255)


def painted(image):
    """(u, v) of all pixels that are not black."""
    v, u = np.nonzero(image.any(-1))
    return set(zip(u.tolist(), v.tolist(), strict=True))


def test_a_point_is_one_disc_at_its_pixel():
    image = overlay.draw_points(BLACK, CAMERA, [[10.0, 1.0, 2.0]], [RED], radius_px=0)  # left of and above the axis
    assert painted(image) == {(50, 30)}
    assert tuple(image[30, 50]) == RED
    assert not BLACK.any()


def test_near_points_cover_far_ones_whatever_their_order():
    points, colours = np.array([[5.0, 0, 1], [10.0, 0, 1]]), np.array([RED, BLUE])
    for order in ([0, 1], [1, 0]):
        image = overlay.draw_points(BLACK, CAMERA, points[order], colours[order], radius_px=2)
        assert tuple(image[40, 60]) == RED


def test_points_behind_or_beside_the_view_are_not_drawn():
    image = overlay.draw_points(BLACK, CAMERA, [[-10.0, 0, 1], [5, 50, 1], [5, 0, 40]], [RED] * 3)
    assert painted(image) == set()


def test_a_cloud_goes_through_the_lidars_mount_and_is_coloured_by_range():
    T_base_lidar = se3.from_euler(0, 0, np.pi / 2, (0, 0, 1))
    cloud = PointCloud("top", 0, np.array([[0, -4, 0], [0.8, -8, 0]], np.float32))  # straight ahead, and to the left
    image = overlay.draw_cloud(BLACK, CAMERA, cloud, T_base_lidar, maximum_m=8.0, radius_px=0)
    assert painted(image) == {(60, 40), (50, 40)}
    near, far = image[40, 60].astype(int), image[40, 50].astype(int)
    assert near[0] > near[2]  # red near
    assert far[2] > far[0]  # blue far


def test_the_ground_lattice_lies_on_the_floor_and_below_the_horizon():
    spec = VoxelGridSpec((0, -2, -1), (8, 2, 1), 0.5)
    image = overlay.draw_ground(BLACK, CAMERA, spec)
    v = np.array([v for _, v in painted(image)])
    assert v.min() >= 40 + 100 / 8 - 3  # the far end, 8 m ahead and 1 m below the lens; lines have a width
    assert image[79, 60].any()  # the line straight ahead leaves through the lower edge
    row = 40 + 100 // 5  # 5 m ahead
    assert image[row, 30:91].any(axis=-1).all()  # the line across, from 1.5 m left to 1.5 m right
    lifted = overlay.draw_ground(BLACK, CAMERA, spec, height_m=0.5)
    assert min(v for _, v in painted(lifted)) < v.min()


def test_a_tilted_base_moves_the_lattice():
    spec = VoxelGridSpec((0, -2, -1), (8, 2, 1), 0.5)
    level = overlay.draw_ground(BLACK, CAMERA, spec)
    nose_down = overlay.draw_ground(BLACK, CAMERA, spec, T_base_grid=se3.invert(se3.from_euler(0, 0.1, 0)))
    assert min(v for _, v in painted(nose_down)) < min(v for _, v in painted(level)) - 5


def test_voxels_are_drawn_in_the_colours_of_their_classes_and_unknown_ones_not_at_all():
    spec = VoxelGridSpec((0, -2, 0), (8, 2, 2), 0.5)
    labels = np.zeros(spec.shape, np.uint8)
    labels[10, 4, 2] = Sidewalk.PERSON  # centre 5.25, 0.25, 1.25
    labels[15, 0, 0] = UNKNOWN
    image = overlay.draw_voxels(BLACK, CAMERA, VoxelGrid(spec, 0, labels))
    u, v = round(60 - 100 * 0.25 / 5.25), round(40 - 100 * 0.25 / 5.25)
    assert tuple(image[v, u]) == SIDEWALK.colours[Sidewalk.PERSON]
    assert all(abs(x - u) <= 3 and abs(y - v) <= 3 for x, y in painted(image))


def test_an_empty_grid_draws_nothing():
    spec = VoxelGridSpec((0, -2, 0), (8, 2, 2), 0.5)
    image = overlay.draw_voxels(BLACK, CAMERA, VoxelGrid(spec, 0, np.zeros(spec.shape, np.uint8)))
    assert painted(image) == set()


@pytest.mark.parametrize(("count", "shape"), [(1, (40, 120, 3)), (2, (40, 120, 3)), (3, (80, 120, 3))])
def test_tiles_stand_side_by_side(count, shape):
    sheet = overlay.tile([np.full((80, 120, 3), 10 * i + 10, np.uint8) for i in range(count)], width_px=60)
    assert sheet.shape == shape
    assert sheet[20, 30, 0] == 10
    if count == 3:
        assert sheet[60, 30, 0] == 30
        assert not sheet[60, 90].any()


def test_the_edges_of_a_box_span_its_silhouette():
    box = se3.make(np.eye(3), (10.0, 0.0, 1.0))
    image = overlay.draw_box(BLACK, CAMERA, box, (2.0, 4.0, 2.0), RED)
    u, v = np.array(sorted(painted(image))).T
    near = 100 / 9  # pixels per metre at the face towards the camera
    assert (u.min(), u.max()) == pytest.approx((60 - 2 * near, 60 + 2 * near), abs=1.5)
    assert (v.min(), v.max()) == pytest.approx((40 - near, 40 + near), abs=1.5)
    assert not image[36:45, 45:55].any()  # edges only
    assert not overlay.draw_box(BLACK, CAMERA, se3.make(np.eye(3), (-10.0, 0.0, 1.0)), (2.0, 4.0, 2.0), RED).any()
