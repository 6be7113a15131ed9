"""Clock offsets between camera and IMU: exact on clean motion, milliseconds on noisy, refused where unknowable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from occ_perception.errors import ConfigurationError, RecordingError
from occ_perception.geometry import make_camera
from occ_perception.labeling.ego import ImuSamples
from occ_perception.labeling.time_offset import (
    CameraTurns,
    estimate_time_offset,
    turns_of_images,
    turns_of_poses,
)

START_NS = 10**18
R_IMU_CAMERA = Rotation.from_euler("xyz", [-90.0, 5.0, -85.0], degrees=True)


def attitude(seconds: np.ndarray, size: float = 1.0) -> Rotation:
    """World from IMU: a drive that winds, and sways."""
    yaw = 0.6 * np.sin(0.9 * seconds) + 0.2 * np.sin(2.3 * seconds + 1.0)
    pitch, roll = 0.03 * np.sin(7.0 * seconds), 0.04 * np.sin(5.0 * seconds + 0.5)
    return Rotation.from_euler("zyx", size * np.column_stack([yaw, pitch, roll]))


def gyro(rate_hz: float = 200.0, seconds: float = 22.0, size: float = 1.0, sigma: float = 0.0,
         bias: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> ImuSamples:
    t = np.arange(-1.0, seconds - 1.0, 1.0 / rate_hz)
    h = 1e-4
    rates = (attitude(t - h, size).inv() * attitude(t + h, size)).as_rotvec() / (2 * h)
    rates += np.asarray(bias) + sigma * np.random.default_rng(0).standard_normal(rates.shape)
    return ImuSamples(START_NS + np.rint(t * 1e9).astype(np.int64), rates, np.zeros_like(rates))


def camera_poses(offset_s: float, rate_hz: float = 10.0, size: float = 1.0, sigma: float = 0.0,
                 seconds: float = 19.0) -> tuple[np.ndarray, np.ndarray]:
    """Stamps that must be moved by `offset_s`, and R_world_camera; its world is another one than the IMU's."""
    t = np.arange(0.6, seconds, 1.0 / rate_hz)
    noise = Rotation.from_rotvec(sigma * np.random.default_rng(1).standard_normal((len(t), 3)))
    other = Rotation.from_euler("xyz", [0.4, -1.0, 2.0])
    R = other * attitude(t, size) * R_IMU_CAMERA * noise
    return START_NS + np.rint((t - offset_s) * 1e9).astype(np.int64), R.as_matrix()


@settings(deadline=None, max_examples=4)
@given(offset_s=st.floats(-0.3, 0.3))
def test_clean_motion_gives_the_offset_exactly(offset_s: float) -> None:
    found = estimate_time_offset(turns_of_poses(*camera_poses(offset_s)), gyro(bias=(0.02, -0.01, 0.005)),
                                 R_IMU_CAMERA.as_matrix())
    assert found.offset_s == pytest.approx(offset_s, abs=2e-4)
    np.testing.assert_allclose(found.gyro_bias_radps, [0.02, -0.01, 0.005], atol=2e-3)
    assert found.residual_rad < 1e-3


def test_noise_costs_less_than_five_milliseconds() -> None:
    turns = turns_of_poses(*camera_poses(0.042, sigma=0.002))
    found = estimate_time_offset(turns, gyro(rate_hz=40.0, sigma=0.005), R_IMU_CAMERA.as_matrix())
    assert found.offset_s == pytest.approx(0.042, abs=0.005)
    assert abs(found.offset_s - 0.042) < 5 * found.sigma_s + 1e-4
    assert 1e-5 < found.sigma_s < 0.005


def test_wrong_poses_among_good_ones_do_not_sway_it() -> None:
    stamps, R = camera_poses(-0.03)
    R[::17] = R[::17] @ Rotation.from_euler("x", 0.3).as_matrix()
    found = estimate_time_offset(turns_of_poses(stamps, R), gyro(), R_IMU_CAMERA.as_matrix())
    assert found.offset_s == pytest.approx(-0.03, abs=0.005)


def test_what_cannot_be_known_is_refused() -> None:
    straight = turns_of_poses(*camera_poses(0.02, size=0.0, sigma=0.001))
    with pytest.raises(RecordingError, match="turns too little"):
        estimate_time_offset(straight, gyro(size=0.0, sigma=0.003), R_IMU_CAMERA.as_matrix())
    turns = turns_of_poses(*camera_poses(0.0))
    with pytest.raises(RecordingError, match="only 0 pairs"):
        estimate_time_offset(turns, ImuSamples(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3))), np.eye(3))
    samples = gyro()
    with pytest.raises(RecordingError, match=r"only \d pairs"):
        estimate_time_offset(turns, samples.between(START_NS, START_NS + 2 * 10**9), R_IMU_CAMERA.as_matrix())


def test_an_offset_out_of_reach_is_refused() -> None:
    turns = turns_of_poses(*camera_poses(0.3))
    with pytest.raises(RecordingError, match=r"no offset within 0.1 s fits"):
        estimate_time_offset(turns, gyro(), R_IMU_CAMERA.as_matrix(), reach_s=0.1)


def test_pairs_over_a_gap_of_the_imu_are_left_out() -> None:
    samples = gyro()
    kept = np.abs(samples.stamps_ns - START_NS - 9 * 10**9) > 10**9
    holed = ImuSamples(samples.stamps_ns[kept], samples.angular_radps[kept], samples.force_mps2[kept])
    turns = turns_of_poses(*camera_poses(0.015))
    whole, found = (estimate_time_offset(turns, each, R_IMU_CAMERA.as_matrix()) for each in (samples, holed))
    assert found.pairs < whole.pairs
    assert found.offset_s == pytest.approx(0.015, abs=5e-4)


def test_poses_far_apart_are_no_pair() -> None:
    stamps = np.array([0, 10**8, 5 * 10**9, 5 * 10**9 + 10**8])
    turns = turns_of_poses(stamps, np.tile(np.eye(3), (4, 1, 1)))
    assert turns.from_ns.tolist() == [0, 5 * 10**9]
    with pytest.raises(ConfigurationError, match="the later one"):
        CameraTurns(np.array([2]), np.array([2]), np.zeros((1, 3)))


def room_seen(R_world_camera: np.ndarray, at_m: np.ndarray) -> np.ndarray:
    """A picture from inside a box of 8 x 6 x 4 m with cloudy walls, uint8 RGB [120, 160, 3]."""
    lens = make_camera("pinhole", 160, 120, (110.0, 110.0, 79.5, 59.5))
    rays = lens.rays().reshape(-1, 3).astype(float) @ R_world_camera.T
    half = np.array([4.0, 3.0, 2.0])
    with np.errstate(divide="ignore"):
        distance = (np.sign(rays) * half - at_m) / rays
    wall = distance.argmin(axis=1)
    hit = at_m + rays * distance[np.arange(len(rays)), wall, None]
    across = np.stack([hit[np.arange(len(rays)), (wall + k) % 3] for k in (1, 2)]) * 5.0 + 60.0
    noise = np.random.default_rng(0).uniform(0, 255, (6, 120, 120))
    side = wall + 3 * (hit[np.arange(len(rays)), wall] > 0)
    values = np.zeros(len(rays))
    for face in range(6):
        values[side == face] = map_coordinates(noise[face], across[:, side == face], order=1)
    return np.repeat(values.reshape(120, 160, 1).astype(np.uint8), 3, axis=2)


def test_pictures_tell_how_the_camera_turned() -> None:
    lens = make_camera("pinhole", 160, 120, (110.0, 110.0, 79.5, 59.5))
    into_a_corner = Rotation.from_euler("y", 0.9)  # a single wall would leave two motions possible
    R = into_a_corner * Rotation.from_rotvec([[0.01 * k, 0.03 * k + 0.004 * k**2, -0.01 * k] for k in range(5)])
    images = [(k + 1, room_seen(R[k].as_matrix(), np.array([0.05 * k, 0.02 * k, 0.06 * k]))) for k in range(5)]
    images.insert(2, (99, np.zeros((120, 160, 3), np.uint8)))  # nothing to follow: two pairs are lost
    turns = turns_of_images(images[:2] + images[3:], lens)
    assert turns.from_ns.tolist() == [1, 2, 3, 4]
    expected = (R[:-1].inv() * R[1:]).as_rotvec()
    assert np.degrees(np.linalg.norm(turns.turn_rad - expected, axis=1)).max() < 0.5
    images = [(k, image) for k, (_, image) in enumerate(images)]
    assert turns_of_images(images, lens).from_ns.tolist() == [0, 3, 4]
