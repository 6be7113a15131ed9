"""What a simulated street is made of: solids, the ground, actors, the robot's track, light, the world.

This is the contract between the builder of worlds and the sensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from occ_perception.simulation.ground import Ground
from occ_perception.simulation.solids import Array, Solid, pose

District = Literal["touristy", "residential", "commercial"]
Embodiment = Literal["wheeled", "quadruped", "wheelchair", "humanoid"]
DISTRICTS: tuple[District, ...] = ("touristy", "residential", "commercial")
EMBODIMENTS: tuple[Embodiment, ...] = ("wheeled", "quadruped", "wheelchair", "humanoid")


@dataclass(frozen=True, eq=False)
class Motion:
    """A path over time on the ground: samples at `times_s` [N] (increasing), position [N, 3] and yaw [N] (unwrapped).

    Between samples it is linear; before the first and after the last it stands still.
    """

    times_s: Array
    xyz_m: Array
    yaw_rad: Array

    def sample(self, t_s: float) -> tuple[float, float, float, float]:
        """x, y, z, yaw at t_s."""
        i, alpha = self._bracket(t_s)
        p = self.xyz_m[i] + alpha * (self.xyz_m[i + 1] - self.xyz_m[i]) if alpha else self.xyz_m[i]
        yaw = self.yaw_rad[i] + alpha * (self.yaw_rad[i + 1] - self.yaw_rad[i]) if alpha else self.yaw_rad[i]
        return float(p[0]), float(p[1]), float(p[2]), float(yaw)

    def velocity_mps(self, t_s: float) -> Array:
        """World velocity [3]."""
        if len(self.times_s) < 2 or not self.times_s[0] <= t_s < self.times_s[-1]:
            return np.zeros(3)
        i, _ = self._bracket(t_s)
        return np.asarray((self.xyz_m[i + 1] - self.xyz_m[i]) / (self.times_s[i + 1] - self.times_s[i]))

    def _bracket(self, t_s: float) -> tuple[int, float]:
        times = self.times_s
        if len(times) < 2 or t_s <= times[0]:
            return 0, 0.0
        if t_s >= times[-1]:
            return len(times) - 1, 0.0
        i = int(np.searchsorted(times, t_s, side="right")) - 1
        return i, float((t_s - times[i]) / (times[i + 1] - times[i]))


@dataclass(frozen=True, eq=False)
class Actor:
    """A countable thing, standing or moving.

    Attributes:
        track_id: unique in the world, > 0.
        label: class id (person, vehicle, cyclist, animal).
        solids: parts; their `T_parent_solid` is the pose at rest in the actor's frame (origin on the ground below
            its centre, x forward, y left, z up).
        size_m: length, width, height of its upright box.
        motion: path of its origin.
        swing: for each solid, (amplitude rad, phase rad, pivot height m above the part's centre) of a limb that
            swings about the actor's y axis, or None when the actor is rigid; [n, 3].
        cadence_hz: swing periods per second at walking speed.
        headlights_m: lamps in the actor's frame, [K, 3]; empty when off.
    """

    track_id: int
    label: int
    solids: tuple[Solid, ...]
    size_m: tuple[float, float, float]
    motion: Motion
    swing: Array | None = None
    cadence_hz: float = 0.9
    headlights_m: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def pose_at(self, t_s: float) -> Array:
        """T_world_actor [4, 4]."""
        return pose(*self.motion.sample(t_s))

    def velocity_at(self, t_s: float) -> Array:
        """Velocity of the origin in the world, m/s, [3]."""
        return self.motion.velocity_mps(t_s)

    @property
    def moves(self) -> bool:
        """Whether it is ever anywhere else."""
        return len(self.motion.times_s) > 1

    def part_poses(self, t_s: float) -> Array:
        """T_actor_solid of every part at t_s, [n, 4, 4]; the shapes of the parts never change."""
        parts = np.stack([solid.T_parent_solid for solid in self.solids])
        if self.swing is None:
            return parts
        speed = float(np.hypot(*self.velocity_at(t_s)[:2]))
        angle = self.swing[:, 0] * min(1.0, speed) * np.sin(2.0 * np.pi * self.cadence_hz * t_s + self.swing[:, 1])
        c, s, lever = np.cos(angle), np.sin(angle), self.swing[:, 2]
        turn = np.tile(np.eye(4), (len(parts), 1, 1))
        turn[:, 0, 0], turn[:, 0, 2], turn[:, 2, 0], turn[:, 2, 2] = c, s, -s, c
        # About the pivot (0, 0, lever) of the part: p -> R (p - pivot) + pivot.
        turn[:, 0, 3], turn[:, 2, 3] = -s * lever, lever - c * lever
        return np.asarray(parts @ turn)


@dataclass(frozen=True, eq=False)
class RobotTrack:
    """The robot's way through the world.

    Attributes:
        embodiment: which body (the camera's height, pitch and lens come from its rig).
        motion: path of the base on the ground, on a fine and even grid of times from 0 to duration_s.
        pitch_rad, roll_rad: sway of the body at the same times, [N].
        footprint_radius_m: disc that never meets a solid.
    """

    embodiment: Embodiment
    motion: Motion
    pitch_rad: Array
    roll_rad: Array
    footprint_radius_m: float = 0.4

    @property
    def duration_s(self) -> float:
        """Length of the track; it starts at 0."""
        return float(self.motion.times_s[-1])

    def pose_at(self, t_s: float) -> Array:
        """T_world_base [4, 4], the body's pitch and roll included."""
        x, y, z, yaw = self.motion.sample(t_s)
        times = self.motion.times_s
        return pose(x, y, z, yaw, float(np.interp(t_s, times, self.pitch_rad)),
                    float(np.interp(t_s, times, self.roll_rad)))

    def velocity_at(self, t_s: float) -> Array:
        """Velocity of the base in the world, m/s, [3]."""
        return self.motion.velocity_mps(t_s)

    def future_waypoints(self, t_s: float, n: int = 10, hz: float = 2.0) -> Array | None:
        """The next n positions, [n, 2] metres in the gravity-aligned base frame at t_s.

        The first lies 1/hz seconds ahead. None when the track ends before the last.
        """
        if t_s + n / hz > self.duration_s + 1e-9:
            return None
        ahead = np.array([self.motion.sample(t_s + (k + 1) / hz)[:2] for k in range(n)])
        x, y, _, yaw = self.motion.sample(t_s)
        c, s = np.cos(yaw), np.sin(yaw)
        return np.asarray((ahead - (x, y)) @ np.array([[c, -s], [s, c]]))


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light of the world. Headlights belong to the vehicles (`Actor.headlights_m`).

    Attributes:
        night: whether lamps matter.
        sun_direction: unit vector from the ground towards the sun (or moon), [3].
        sun_colour: RGB irradiance, 1 is full daylight.
        ambient: RGB of the light from everywhere.
        sky_colour: RGB 0..1 of the sky.
        lamps_m: lamp heads in the world, [N, 3].
        lamp_power: irradiance of each at 1 m, as a multiple of daylight, [N].
        lamp_colour: RGB of the lamps.
    """

    night: bool
    sun_direction: Array
    sun_colour: tuple[float, float, float]
    ambient: tuple[float, float, float]
    sky_colour: tuple[float, float, float]
    lamps_m: Array
    lamp_power: Array
    lamp_colour: tuple[float, float, float] = (1.0, 0.85, 0.6)


@dataclass(frozen=True, eq=False)
class World:
    """A street with everything in it, from t = 0 to the end of the robot's track."""

    seed: int
    district: District
    night: bool
    embodiment: Embodiment
    ground: Ground
    static: tuple[Solid, ...]
    actors: tuple[Actor, ...]
    robot: RobotTrack
    lighting: Lighting

    def description(self) -> dict[str, Any]:
        """Everything that decides what sensors see, as JSON-able data rounded to 0.1 mm."""
        seconds = np.arange(0.0, self.robot.duration_s + 1e-9, 1.0)
        return {
            "seed": self.seed, "district": self.district, "night": self.night, "embodiment": self.embodiment,
            "ground": {"s_m": _rounded(self.ground.s_m), "d_m": _rounded(self.ground.d_m),
                       "bend_m": _rounded(self.ground.bend_m), "z_m": _rounded(self.ground.z_m),
                       "labels": self.ground.labels.tolist(), "colours": _rounded(self.ground.colours),
                       "textures": self.ground.textures.tolist()},
            "static": [_describe(solid) for solid in self.static],
            "actors": [{"track_id": actor.track_id, "label": actor.label, "size_m": _rounded(actor.size_m),
                        "solids": [_describe(solid) for solid in actor.solids],
                        "swing": None if actor.swing is None else _rounded(actor.swing),
                        "headlights_m": _rounded(actor.headlights_m),
                        "poses": _rounded([actor.motion.sample(t) for t in (seconds if actor.moves else (0.0,))])}
                       for actor in self.actors],
            "robot": _rounded([self.robot.pose_at(t)[:3] for t in seconds]),
            "lighting": {name: _rounded(getattr(self.lighting, name)) for name in (
                "sun_direction", "sun_colour", "ambient", "sky_colour", "lamps_m", "lamp_power", "lamp_colour")},
        }

    def content_hash(self) -> str:
        """SHA-256 of the description."""
        text = json.dumps(self.description(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _rounded(values: ArrayLike) -> Any:
    # Adding 0 turns -0.0 into 0.0, which prints alike everywhere.
    return (np.round(np.asarray(values, float), 4) + 0.0).tolist()


def _describe(solid: Solid) -> list[Any]:
    return [solid.kind, _rounded(solid.size_m), _rounded(solid.T_parent_solid[:3]), int(solid.label),
            _rounded(solid.colour), int(solid.texture), solid.glow]
