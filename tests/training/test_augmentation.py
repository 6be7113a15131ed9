"""What training changes at random: within what it was told, and nothing where it was told nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.training.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    bev_augmentation,
    photometric,
    worn_scan,
)

LIDAR = se3.from_euler(0.1, -0.3, 2.0, (0.2, -0.1, 0.9))
ELEVATIONS_DEG = np.arange(-45.0, 15.0) + 0.5


def scan() -> NDArray[np.float32]:
    """Sixty rings of 90 points, 5 m about a tilted LiDAR, in the base frame; ring after ring."""
    elevation, azimuth = np.meshgrid(np.radians(ELEVATIONS_DEG), np.radians(np.arange(0, 360, 4)), indexing="ij")
    rays = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
    return se3.apply(LIDAR, 5 * rays.reshape(-1, 3)).astype(np.float32)


def rings_kept(points_m: NDArray[np.float32]) -> list[int]:
    """Indices of the rings of `scan` that have points, each of which must be whole."""
    inside = se3.apply(se3.invert(LIDAR), points_m)
    elevation = np.degrees(np.arctan2(inside[:, 2], np.hypot(inside[:, 0], inside[:, 1])))
    rings, counts = np.unique(np.floor(elevation).astype(int) + 45, return_counts=True)
    assert (counts == 90).all()
    return rings.tolist()


def test_photometric_keeps_the_image_where_nothing_is_asked_and_changes_it_within_range() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert np.array_equal(photometric(image, NO_AUGMENTATION, np.random.default_rng(1)), image)
    config = AugmentationConfig(flip=0, log_gain_low=0, log_gain_high=0, log_gamma=0, log_tint=0, noise=5)
    noisy = photometric(image, config, np.random.default_rng(1)).astype(int)
    assert 0 < np.abs(noisy - image).max() <= 5
    dark = photometric(image, replace(config, log_gain_low=-5, noise=0), np.random.default_rng(1))
    assert np.all(dark <= image)


def test_augmentation_turns_and_scales_as_far_as_configured_and_leaves_heights() -> None:
    rng = np.random.default_rng(0)
    config = replace(NO_AUGMENTATION, rotation_rad=0.2, scale=0.1, flip=0.5)
    drawn = [bev_augmentation(config, rng) for _ in range(300)]
    lengths = np.array([np.linalg.norm(A[:2, 0]) for A, _ in drawn])
    turns = np.array([np.arctan2(A[1, 0], A[0, 0]) for A, _ in drawn])
    assert 0.9 <= lengths.min() < 0.92 < 1.08 < lengths.max() <= 1.1
    assert -0.2 <= turns.min() < -0.18 < 0.18 < turns.max() <= 0.2
    for A, flip in drawn:
        assert (np.linalg.det(A) < 0) == flip
        assert np.array_equal(A[2:], np.eye(4)[2:])
        assert np.array_equal(A[:2, 2:], np.zeros((2, 2)))
    assert 0.4 < np.mean([flip for _, flip in drawn]) < 0.6
    assert np.array_equal(bev_augmentation(NO_AUGMENTATION, rng)[0], np.eye(4))


def test_rows_of_a_scan_are_kept_at_equal_distance_from_a_lowest_one_on() -> None:
    config = replace(NO_AUGMENTATION, lidar_rows=1.0, lidar_row_step=6, lidar_lowest_rad=-0.25)
    rng = np.random.default_rng(0)
    kept = [rings_kept(worn_scan(scan(), LIDAR, config, rng)) for _ in range(100)]
    steps = [np.unique(np.diff(rings)).tolist() for rings in kept]
    assert {tuple(step) for step in steps} == {(step,) for step in range(1, 7)}
    lowest_deg = [ELEVATIONS_DEG[rings[0]] for rings in kept]
    assert min(lowest_deg) == -44.5
    assert -20 < max(lowest_deg) < math.degrees(-0.25) + 7


def test_a_scan_is_moved_as_one_about_its_lidar() -> None:
    config = replace(NO_AUGMENTATION, lidar_turn_rad=0.005, lidar_shift_m=0.02)
    rng = np.random.default_rng(0)
    before = scan().astype(float)
    turns, shifts = [], []
    for _ in range(200):
        after = worn_scan(scan(), LIDAR, config, rng).astype(float)
        assert np.linalg.norm(after[:500] - after[500:1000], axis=1) == pytest.approx(
            np.linalg.norm(before[:500] - before[500:1000], axis=1), abs=1e-5)
        homogeneous = np.column_stack([se3.apply(se3.invert(LIDAR), before), np.ones(len(before))])
        wrong = np.linalg.lstsq(homogeneous, se3.apply(se3.invert(LIDAR), after), rcond=None)[0].T
        turns.append([wrong[2, 1], wrong[0, 2], wrong[1, 0]])
        shifts.append(wrong[:, 3])
    assert np.std(turns, axis=0) == pytest.approx([0.005] * 3, rel=0.2)
    assert np.std(shifts, axis=0) == pytest.approx([0.02] * 3, rel=0.2)


def test_scans_of_several_lidars_have_no_rows_and_move_about_the_base() -> None:
    rng = np.random.default_rng(0)
    rows = replace(NO_AUGMENTATION, lidar_rows=1.0, lidar_row_step=6)
    assert np.array_equal(worn_scan(scan(), None, rows, rng), scan())
    turned = worn_scan(scan(), None, replace(NO_AUGMENTATION, lidar_turn_rad=0.1), rng)
    assert np.linalg.norm(turned, axis=1) == pytest.approx(np.linalg.norm(scan(), axis=1), abs=1e-4)
    assert np.abs(turned - scan()).max() > 0.1


def test_nothing_asked_leaves_a_scan_as_it_is_and_one_that_dropped_out_is_empty() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(worn_scan(scan(), LIDAR, NO_AUGMENTATION, rng), scan())
    assert worn_scan(scan(), LIDAR, replace(NO_AUGMENTATION, lidar_dropout=1.0), rng).shape == (0, 3)
    broken = np.vstack([scan(), np.float32([[np.nan, 0, 0], [0, np.inf, 0]])])
    rows = replace(NO_AUGMENTATION, lidar_rows=1.0, lidar_row_step=1, lidar_lowest_rad=-math.pi / 2)
    assert np.array_equal(worn_scan(broken, LIDAR, rows, rng), scan())
    assert worn_scan(scan()[:0], LIDAR, AugmentationConfig(lidar_dropout=0.0, lidar_rows=1.0), rng).shape == (0, 3)


def test_an_augmentation_lists_its_faults() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AugmentationConfig(flip=1.5, log_gain_low=0.1, lidar_dropout=-1.0, scale=1.0, rotation_rad=-0.1,
                           lidar_row_step=0, lidar_lowest_rad=0.1)
    assert len(caught.value.faults) == 7
