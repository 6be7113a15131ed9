"""Images of the simulated cameras with their truth: class, range and track id of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.geometry.cameras import Camera
from occ_perception.simulation import shading
from occ_perception.simulation.scene import Actor, Lighting
from occ_perception.simulation.surfaces import Instant
from occ_perception.taxonomy import OCCLUSION

_LAMPS = 12
_LAMP_REACH_M = 30.0
_DAY_GREY, _NIGHT_GREY = 0.30, 0.09  # mean linear light an exposure aims at
_GAIN = (0.35, 9.0)
_CURVE = np.clip(255.0 * np.linspace(0.0, 1.0, 4096) ** (1 / 2.2), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class CameraView:
    """What one camera sees.

    Attributes:
        image: uint8 RGB [H, W, 3], black outside the field of view.
        semantics: uint8 [H, W], classes; 0 background (sky), 14 outside the field of view.
        range_m: float32 [H, W] along the ray, 0 where nothing returns.
        track_ids: uint32 [H, W], 0 where no countable thing is.
    """

    image: NDArray[np.uint8]
    semantics: NDArray[np.uint8]
    range_m: NDArray[np.float32]
    track_ids: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels of a camera that have a ray."""

    rows: NDArray[np.int64]  # [M] flat pixel
    rays: NDArray[np.float32]  # [M, 3] optical frame
    vignette: NDArray[np.float32]  # [M]
    coarse: NDArray[np.int64]  # [C] those (of M) on even rows and columns
    nearest: NDArray[np.int64]  # [M] coarse one beside each
    pixel_rad: float


def _pixels(camera: Camera) -> _Pixels:
    rays = camera.rays().reshape(-1, 3)
    rows = np.flatnonzero(np.isfinite(rays[:, 0]))
    inside = np.ascontiguousarray(rays[rows])
    v, u = np.divmod(rows, camera.width)
    coarse = np.flatnonzero((v % 2 == 0) & (u % 2 == 0))
    place = np.zeros((camera.height // 2 + 1, camera.width // 2 + 1), np.int64)
    place[v[coarse] // 2, u[coarse] // 2] = np.arange(len(coarse))
    vignette = 0.35 + 0.65 * np.clip(inside[:, 2], 0, 1) ** 0.6
    rim = np.clip((camera.max_theta_rad - np.arccos(np.clip(inside[:, 2], -1, 1))) / 0.02, 0.05, 1.0)
    return _Pixels(rows, inside, (vignette * rim).astype(np.float32), coarse, place[v // 2, u // 2],
                   1.0 / float(camera.parameters[0]))


class Renderer:
    """Takes the pictures of one camera; what depends on the lens alone is computed once."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._pixels = _pixels(camera)

    def render(self, T_world_camera: NDArray[np.float64], instant: Instant, lighting: Lighting,
               actors: tuple[Actor, ...], time_s: float, rng: np.random.Generator) -> CameraView:
        """One picture of `instant`, taken from `T_world_camera` (optical frame).

        `actors` (at `time_s`) bring their headlights; `rng` makes the sensor noise.
        """
        camera, pixels = self.camera, self._pixels
        rotation, origin = T_world_camera[:3, :3], T_world_camera[:3, 3]
        rays = shading.turned(pixels.rays, rotation)
        origins = np.broadcast_to(origin.astype(np.float32), rays.shape)
        origins = np.ascontiguousarray(origins)
        range_m, index = instant.cast(origins, rays)
        lit = _sunlight(instant, lighting, pixels, rays, origin, range_m, index)
        surfaces = instant.surfaces
        lamps, lamp_colour = _lamps(lighting, actors, origin, time_s)
        linear = np.empty((len(rays), 3), np.float32)
        shading.radiance(
            shading.NOISE_TILE, origin, rays, range_m, index, lit, surfaces.label, surfaces.texture, surfaces.colour,
            surfaces.glow, surfaces.frame, surfaces.triangles, surfaces.to_solid, surfaces.kind, surfaces.half_m,
            pixels.pixel_rad, lighting.night, lighting.sun_direction, np.asarray(lighting.sun_colour, float),
            np.asarray(lighting.ambient, float), np.asarray(lighting.sky_colour, float), lamps, lamp_colour, linear)
        image = np.zeros((camera.height * camera.width, 3), np.uint8)
        brightness = float(np.mean(np.minimum(linear[::37], 2.0)))
        grey = _NIGHT_GREY if lighting.night else _DAY_GREY
        gain = float(np.clip(grey / max(brightness, 1e-3), *_GAIN))
        noise = 0.025 if lighting.night else 0.010
        shading.develop(linear, pixels.rows, pixels.vignette, gain, noise, shading.GRAIN,
                        int(rng.integers(len(shading.GRAIN))), _CURVE, image)
        shape = camera.height, camera.width
        semantics = np.full(shape, OCCLUSION, np.uint8)
        ranges, track_ids = np.zeros(shape, np.float32), np.zeros(shape, np.uint32)
        shading.seen_by(pixels.rows, range_m, index, surfaces.label, surfaces.track_id, semantics.reshape(-1),
                        ranges.reshape(-1), track_ids.reshape(-1))
        return CameraView(image.reshape(*shape, 3), semantics, ranges, track_ids)


def _sunlight(instant: Instant, lighting: Lighting, pixels: _Pixels, rays: NDArray[np.float32],
              origin: NDArray[np.float64], range_m: NDArray[np.float32], index: NDArray[np.int32]
              ) -> NDArray[np.uint8]:
    """Direct light of each pixel, 255 in the sun: one shadow ray for every two by two pixels."""
    coarse = pixels.coarse
    lit = np.full(len(coarse), 255, np.uint8)
    hit = np.flatnonzero(index[coarse] >= 0)
    rows = coarse[hit]
    sun = lighting.sun_direction.astype(np.float32)
    # step back along the view ray, so that the surface does not shade itself
    points = origin.astype(np.float32) + rays[rows] * (range_m[rows, None] - np.float32(0.01))
    points += np.float32(0.01) * sun
    blocked = instant.blocked(points, np.ascontiguousarray(np.broadcast_to(sun, points.shape)))
    lit[hit[blocked]] = 0
    return lit[pixels.nearest]


def _lamps(lighting: Lighting, actors: tuple[Actor, ...], origin: NDArray[np.float64], time_s: float
           ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The nearest lamps: position, power, beam direction (0: all around) [L, 7], and their colours [L, 3]."""
    rows, colours = [], []
    if lighting.night:
        for position, power in zip(lighting.lamps_m, lighting.lamp_power, strict=True):
            rows.append([*position, power, 0.0, 0.0, 0.0])
            colours.append(lighting.lamp_colour)
        for actor in actors:
            if len(actor.headlights_m):
                T = actor.pose_at(time_s)
                for lamp in actor.headlights_m:
                    rows.append([*(T[:3, :3] @ lamp + T[:3, 3]), 6.0, *(T[:3, 0] - 0.06 * T[:3, 2])])
                    colours.append((1.0, 0.97, 0.9))
    if not rows:
        return np.zeros((0, 7)), np.zeros((0, 3))
    lamps, colour = np.array(rows), np.array(colours)
    distance = np.linalg.norm(lamps[:, :3] - origin, axis=1)
    nearest = np.argsort(distance)[:_LAMPS]
    nearest = nearest[distance[nearest] < _LAMP_REACH_M]
    return lamps[nearest], colour[nearest]
