"""Drives with known truth: a wheeled robot that stops and turns, felt by its wheels and its IMU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from occ_perception.geometry import se3
from occ_perception.labeling.ego import ImuSamples
from occ_perception.simulation.motion import MotionErrors, imu, odometry
from occ_perception.simulation.scene import Motion, RobotTrack
from occ_perception.types import Odometry

T_BASE_IMU = se3.from_euler(0.02, -0.03, 1.2, (0.0, 0.0, 0.3))
START_NS = 10**18


def drive_of(seconds: float = 34.0, stand_s: float = 3.0, sway_rad: float = 0.01) -> RobotTrack:
    """Stands, then drives bends at about 1 m/s with a short halt on the way; the body sways."""
    t = np.arange(round(seconds * 50) + 1) / 50.0
    speed = 1.1 * np.clip((t - stand_s) / 1.5, 0.0, 1.0) * (1.0 - np.exp(-((t - 18.0) / 1.5) ** 2))
    length = np.cumsum(speed) / 50.0
    yaw = 0.7 * np.sin(length / 5.0) + 0.03 * length
    xy = np.cumsum(speed[:, None] / 50.0 * np.column_stack([np.cos(yaw), np.sin(yaw)]), axis=0)
    active = np.clip(speed, 0.0, 1.0)
    pitch, roll = (sway_rad * active * np.sin(2 * np.pi * f * t) for f in (1.3, 0.7))
    return RobotTrack("wheeled", Motion(t, np.column_stack([xy, np.zeros(len(t))]), yaw), pitch, roll)


def felt(track: RobotTrack, errors: MotionErrors, seed: int) -> tuple[list[Odometry], ImuSamples]:
    """What wheels (50 Hz) and IMU (100 Hz) say of a drive."""
    rng = np.random.default_rng(seed)
    wheels = list(odometry(track, errors, 50.0, rng, START_NS))
    samples = list(imu(track, errors, 100.0, T_BASE_IMU, rng, START_NS))
    return wheels, ImuSamples(np.array([s.stamp_ns for s in samples]), np.stack([s.angular_radps for s in samples]),
                              np.stack([s.force_mps2 for s in samples]))


@pytest.fixture(scope="session")
def drive() -> RobotTrack:
    return drive_of()


@pytest.fixture(scope="session")
def feel() -> Callable[[RobotTrack, MotionErrors, int], tuple[list[Odometry], ImuSamples]]:
    return felt


@pytest.fixture(scope="session")
def make_still() -> Callable[[], RobotTrack]:
    return lambda: drive_of(seconds=6.0, stand_s=100.0, sway_rad=0.0)


@pytest.fixture(scope="session")
def make_late() -> Callable[[], RobotTrack]:
    """A drive that starts after 7 s."""
    return lambda: drive_of(seconds=24.0, stand_s=7.0)


@pytest.fixture(scope="session")
def streets() -> ModuleType:
    """The module `streets`, imported under the name by which workers find it."""
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module("streets")
