"""Clouds are thinned to one point per voxel; planes take the noise away and rods have none."""

from __future__ import annotations

import numpy as np

from occ_perception.labeling.surfels import surfels, thin
from occ_perception.taxonomy import Sidewalk


def test_a_voxel_becomes_its_centroid_with_its_most_frequent_class() -> None:
    points = np.array([[0.01, 0.01, 0.01], [0.03, 0.01, 0.01], [0.02, 0.04, 0.01], [0.26, 0.01, -0.01]], np.float32)
    labels = np.array([Sidewalk.ROAD, Sidewalk.CURB, 0, 0], np.uint8)
    cloud = thin(points, labels, 0.05)
    order = np.argsort(-cloud.returns)
    assert np.allclose(cloud.points_m[order], [[0.02, 0.02, 0.01], [0.26, 0.01, -0.01]])
    assert cloud.returns[order].tolist() == [3, 1]
    assert cloud.labels[order].tolist() == [Sidewalk.CURB, 0]  # ties go to the higher id; without a class it is 0


def test_a_noisy_slope_becomes_a_plane() -> None:
    rng = np.random.default_rng(0)
    normal = np.array([0.6, 0.0, 0.8])
    flat = rng.uniform(-1.0, 1.0, (20_000, 2)) @ np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0]])
    points = (flat + np.outer(rng.normal(0, 0.01, len(flat)), normal) + [50.0, -30.0, 1.0]).astype(np.float32)
    cloud = thin(points, np.full(len(points), Sidewalk.WALL, np.uint8), 0.05)
    discs = surfels(cloud, 0.1)
    inner = np.abs(discs.points_m[:, 1] + 30.0) < 0.8
    off = (discs.points_m - [50.0, -30.0, 1.0]) @ normal
    assert np.median(np.abs(discs.normals[inner] @ normal)) > 0.99
    assert off[inner].std() < 0.5 * ((cloud.points_m - [50.0, -30.0, 1.0]) @ normal)[inner].std()


def test_a_rod_has_no_plane_and_stays_where_it_is() -> None:
    points = np.column_stack([np.full(100, 1.02), np.full(100, 2.02), np.linspace(0, 2, 100)]).astype(np.float32)
    cloud = thin(points, np.full(100, Sidewalk.OBSTACLE, np.uint8), 0.05)
    discs = surfels(cloud, 0.1)
    assert not discs.normals.any()
    assert np.allclose(discs.points_m, cloud.points_m, atol=1e-6)


def test_an_empty_cloud_stays_empty() -> None:
    assert len(surfels(thin(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8), 0.05), 0.1).points_m) == 0
