"""A hand-made yard whose every surface is known, a small rig, and one real street."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from occ_perception.calibration import Rig, load_rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.geometry import se3
from occ_perception.simulation.ground import Ground
from occ_perception.simulation.scene import Actor, Lighting, Motion, RobotTrack, World
from occ_perception.simulation.solids import Solid, Texture, pose
from occ_perception.simulation.world import make_world
from occ_perception.taxonomy import Sidewalk

RIGS = Path(__file__).resolve().parents[2] / "calibration"
BOX = Solid("box", (1.0, 1.0, 1.0), pose(5.0, 2.0, 0.5), Sidewalk.OBSTACLE, (0.8, 0.7, 0.2))
WALL = Solid("box", (0.4, 10.0, 2.0), pose(8.2, 0.0, 1.0), Sidewalk.WALL, (0.5, 0.3, 0.2), Texture.BRICK)
KERB_D_M = -2.0


def flat_ground(kerb_m: float = 0.12) -> Ground:
    """Sidewalk at z = 0 to the left of y = -2, behind a kerb face of 2 cm a road lower by `kerb_m`."""
    s, d = np.array([-30.0, 60.0]), np.array([-30.0, KERB_D_M - 0.02, KERB_D_M, KERB_D_M + 0.15, 30.0])
    z = np.zeros((2, 5))
    z[:, :2] = -kerb_m
    labels = np.array([[Sidewalk.ROAD, Sidewalk.CURB, Sidewalk.CURB, Sidewalk.SIDEWALK]], np.uint8)
    colours = np.full((1, 4, 3), 0.5, np.float32)
    return Ground(s, d, np.zeros(2), z, labels, colours, np.zeros((1, 4), np.uint8))


def walker(track_id: int, start: Sequence[float], end: Sequence[float], seconds: float = 10.0,
           yaw: tuple[float, float] = (0.0, 0.0)) -> Actor:
    """A person of one cylinder, 0.5 m wide and 1.7 m high."""
    body = Solid("cylinder", (0.5, 0.5, 1.7), pose(0.0, 0.0, 0.85), Sidewalk.PERSON, (0.2, 0.2, 0.8))
    motion = Motion(np.array([0.0, seconds]), np.array([[*start, 0.0], [*end, 0.0]]), np.array(yaw))
    return Actor(track_id, Sidewalk.PERSON, (body,), (0.5, 0.5, 1.7), motion)


def yard_of(static: Sequence[Solid] = (BOX, WALL), actors: Sequence[Actor] = (), *, night: bool = False,
            speed_mps: float = 0.0, turn_radps: float = 0.0, heading: float = 0.0, seconds: float = 12.0,
            lamps_m: Sequence[Sequence[float]] = (), ground: Ground | None = None) -> World:
    """A world of flat ground with these things; the robot drives an arc from the origin."""
    times = np.linspace(0.0, seconds, 241)
    yaw = heading + turn_radps * times
    step = speed_mps * np.diff(times)
    xy = np.zeros((len(times), 2))
    xy[1:] = np.cumsum(step[:, None] * np.column_stack([np.cos(yaw), np.sin(yaw)])[:-1], axis=0)
    track = RobotTrack("wheeled", Motion(times, np.column_stack([xy, np.zeros(len(times))]), yaw),
                       np.zeros(len(times)), np.zeros(len(times)))
    sun = np.array([0.6, -0.3, 0.74])
    light = ((0.02, 0.02, 0.03), (0.03, 0.03, 0.04), (0.01, 0.01, 0.03)) if night else (
        (0.9, 0.9, 0.85), (0.4, 0.42, 0.45), (0.6, 0.7, 0.9))
    lighting = Lighting(night, sun / np.linalg.norm(sun), *light, np.array(lamps_m).reshape(-1, 3),
                        np.full(len(lamps_m), 4.0))
    return World(5, "residential", night, "wheeled", ground or flat_ground(), tuple(static), tuple(actors), track,
                 lighting)


def small_rig_of(model: str = "equidistant", parameters: Sequence[float] = (82.0, 82.0, 119.5, 67.5),
                 max_theta_rad: float | None = 1.4) -> Rig:
    """One camera of 240 x 136 and one LiDAR."""
    T = se3.make(se3.from_euler(0.0, 0.1, 0.0)[:3, :3] @ se3.OPTICAL_IN_BODY, (0.28, 0.0, 0.75))
    camera = {"name": "front", "frame": "camera_front", "width": 240, "height": 136, "model": model,
              "parameters": list(parameters), "T_base_camera": T.tolist()}
    if max_theta_rad is not None:
        camera["max_theta_rad"] = max_theta_rad
    lidar = {"name": "top", "frame": "lidar_top", "T_base_lidar": se3.make(np.eye(3), (0.05, 0.0, 0.95)).tolist()}
    imu = {"frame": "imu", "T_base_imu": se3.make(np.eye(3), (0.0, 0.0, 0.3)).tolist()}
    return rig_from_dict({"name": "small", "cameras": [camera], "lidars": [lidar], "imu": imu}, where="test")


@pytest.fixture(scope="session")
def small_rig() -> Rig:
    return small_rig_of()


@pytest.fixture(scope="session")
def wheeled_rig() -> Rig:
    return load_rig(RIGS / "sidewalk_wheeled.yaml")


@pytest.fixture(scope="session")
def street() -> World:
    return make_world(3_000_000, "touristy", duration_s=17.0)


@pytest.fixture(scope="session")
def make_yard() -> Callable[..., World]:
    return yard_of


@pytest.fixture(scope="session")
def make_walker() -> Callable[..., Actor]:
    return walker


@pytest.fixture(scope="session")
def make_rig() -> Callable[..., Rig]:
    return small_rig_of
