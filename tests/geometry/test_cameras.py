"""Each lens model: inverse to itself over its field of view, equal to OpenCV, honest about what it does not see."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import CalibrationError
from occ_perception.geometry import make_camera

LENSES = {
    "pinhole": [500, 505, 480, 270, -0.2268, 0.0716, -7e-5, 6.9e-5, 0.0],
    "rational": [600, 600, 480, 270, 0.8, 0.3, 1e-4, -2e-4, 0.02, 1.1, 0.5, 0.06],
    "equidistant": [330, 330, 479.5, 271.5, -0.012, 0.004, -0.0015, 0.0002],
    "mei": [640, 640, 479.5, 271.5, 0.95, -0.04, 0.01, 1e-3, -1e-3],
    "double_sphere": [290, 290, 479.5, 271.5, -0.12, 0.58],
}


def lens(name: str, max_theta_rad: float | None = None):
    return make_camera("pinhole" if name == "rational" else name, 960, 544, LENSES[name], max_theta_rad)


@pytest.mark.parametrize("name", LENSES)
def test_pixel_to_ray_to_pixel_is_exact_over_the_whole_image(name):
    camera = lens(name)
    u, v = np.meshgrid(np.linspace(-0.49, 959.49, 97), np.linspace(-0.49, 543.49, 55))
    pixels = np.stack([u.ravel(), v.ravel()], 1)
    rays = camera.unproject(pixels)
    inside = ~np.isnan(rays[:, 0])
    assert inside.mean() > 0.7
    again, valid = camera.project(rays[inside] * 7.3)
    assert valid.all()
    assert np.abs(again - pixels[inside]).max() < 1e-6
    assert np.allclose(np.linalg.norm(rays[inside], axis=1), 1, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(LENSES)), theta=st.floats(0, math.pi), phi=st.floats(-math.pi, math.pi),
       range_m=st.floats(0.05, 80))
def test_ray_to_pixel_to_ray_or_honestly_invalid(name, theta, phi, range_m):
    camera = lens(name)
    ray = np.array([math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)])
    pixel, valid = camera.project(ray[None] * range_m)
    if valid[0]:
        assert theta <= camera.max_theta_rad + 1e-6
        assert np.abs(camera.unproject(pixel)[0] - ray).max() < 1e-6


def test_equidistant_agrees_with_opencv():
    K, k = np.array([[330, 0, 479.5], [0, 340, 271.5], [0, 0, 1.0]]), np.array([-0.012, 0.004, -0.0015, 0.0002])
    points = np.random.default_rng(1).normal(size=(500, 3)) + [0, 0, 3]
    points = points[points[:, 2] > 0.2]
    expected = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), K, k)[0][:, 0]
    pixels, _ = make_camera("equidistant", 960, 544, [330, 340, 479.5, 271.5, *k]).project(points)
    assert np.abs(pixels - expected).max() < 1e-6


@pytest.mark.parametrize("terms", [5, 8])
def test_plumb_bob_and_rational_polynomial_agree_with_opencv(terms):
    K = np.array([[1179.4, 0, 983.9], [0, 1178.9, 596.7], [0, 0, 1.0]])
    D = np.array([-0.2268, 0.0716, -7e-5, 6.9e-5, 0.01, 0.1, -0.02, 0.003])[:terms]
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.uniform(-0.7, 0.7, (500, 2)), np.ones((500, 1))], 1) * rng.uniform(0.5, 30, (500, 1))
    expected = cv2.projectPoints(points[:, None], np.zeros(3), np.zeros(3), K, D)[0][:, 0]
    pixels, _ = make_camera("pinhole", 1920, 1200, [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *D]).project(points)
    assert np.abs(pixels - expected).max() < 1e-6


def test_a_polynomial_that_folds_back_gives_no_pixel_beyond_the_fold():
    # r (1 - 0.2268 r^2 + 0.0716 r^4) rises everywhere, with k1 alone it folds at r = 1.21
    camera = make_camera("pinhole", 4000, 4000, [500, 500, 2000, 2000, -0.2268])
    points = np.array([[1.1, 0, 1.0], [1.3, 0, 1.0], [3.0, 0, 1.0]])
    assert camera.project(points)[1].tolist() == [True, False, False]


def test_points_behind_and_outside_have_no_pixel():
    camera = lens("equidistant", 1.4)
    points = np.array([[0, 0, 1.0], [0, 0, -1.0], [0, 0, 0.0], [math.sin(1.39), 0, math.cos(1.39)],
                       [math.sin(1.41), 0, math.cos(1.41)], [np.nan, 0, 1]])
    assert camera.project(points)[1].tolist() == [True, False, False, True, False, False]


def test_a_190_degree_lens_sees_behind_its_plane():
    camera = make_camera("equidistant", 1280, 1080, [300, 300, 639.5, 539.5], math.radians(95))
    theta = math.radians(94)
    pixel, valid = camera.project([[math.sin(theta), 0, math.cos(theta)]])
    assert valid[0]
    assert pixel[0] == pytest.approx([639.5 + 300 * theta, 539.5], abs=1e-9)


@pytest.mark.parametrize(("arguments", "words"), [
    (("fisheye624", 10, 10, [1, 1, 1, 1]), "unknown camera model"),
    (("pinhole", 10, 10, [0, 1, 1, 1]), "singular"),
    (("pinhole", 10, 10, [1, 1, 1]), "takes fx fy cx cy"),
    (("equidistant", 10, 10, [1, 1, 1, np.nan]), "finite"),
    (("double_sphere", 0, 10, [1, 1, 1, 1, 0, 1.5]), "2 faults"),
])
def test_a_wrong_lens_is_refused_with_every_fault(arguments, words):
    with pytest.raises(CalibrationError, match=words):
        make_camera(*arguments)
