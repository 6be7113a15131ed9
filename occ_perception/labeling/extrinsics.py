"""Whether a camera and the LiDARs agree: edges of depth must lie on edges of the image (Levinson and Thrun 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from occ_perception.calibration import RigCamera
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.labeling.clip import LabelFrame
from occ_perception.replay.overlay import draw_points, range_colours

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

HEALTHY = 1.0
"""No turn of `_TURN_DEG` makes the alignment better."""
EDGE_RGB = (255, 255, 255)

_NEAREST_M, _FARTHEST_M = 1.0, 25.0
_JUMP_M, _JUMP_SHARE = 0.4, 0.06  # to the surface behind, at least the larger of both
_NEIGHBOURS = 16  # enough to hold the next on all four sides where rings are three times as far apart as columns
_GAP_DEG = 3.0
_SLOPE_SHARE = 0.3
_MOST_POINTS = 6000
_FEWEST_POINTS = 200
_TURN_DEG = 1.25  # more than twice what the spacing of a LiDAR's rings leaves open
_NOTICEABLE = 0.04  # of the score: leaves change it by less whichever way one turns, an error of a degree by more
_FEWEST_WORSE = 4  # of six turns: where fewer matter, a wrong camera would look as good as a right one
_REACH_DEG = (1.6, 1.0, 0.6)  # of an image edge, from coarse to fine
_SEARCH_DEG, _SEARCH_M = 3.0, 0.1


@dataclass(frozen=True)
class ExtrinsicHealth:
    """How well a camera's extrinsics fit.

    Attributes:
        camera: its name.
        score: mean nearness of depth edges to image edges, 0..1; comparable for the same frames only.
        health: share of six turns by 1.25 degrees (about each axis, back and forth) that do not raise the score
            noticeably, by 4 %: 1 where the extrinsics are right; each axis about which they are wrong costs a sixth.
            NaN where these frames cannot tell: with too few depth edges, or if turns hardly change the score.
        points: number of depth edges in view.
    """

    camera: str
    score: float
    health: float
    points: int

    @property
    def warning(self) -> str:
        """What is wrong and what to do, or an empty text."""
        if np.isnan(self.health) and self.points >= _FEWEST_POINTS:
            return (f"camera {self.camera}: its extrinsics cannot be judged, since image edges are everywhere (as in "
                    "leaves) or nowhere; take frames with posts, corners and parked cars")
        if np.isnan(self.health):
            return (f"camera {self.camera}: only {self.points} depth edges in view, too few to judge its extrinsics; "
                    "take frames with more structure")
        if self.health < HEALTHY:
            return (f"camera {self.camera}: depth edges miss image edges (health {self.health:.2f} of 1); "
                    "refine its extrinsics or calibrate anew")
        return ""


@dataclass(frozen=True, eq=False)
class Refinement:
    """A camera put where edges meet best, with its health before and after, and how far it moved."""

    camera: RigCamera
    before: ExtrinsicHealth
    after: ExtrinsicHealth
    turned_deg: float
    moved_m: float


def depth_edges(points_m: NDArray[np.float32], sensor_m: Array) -> Array:
    """Where surfaces end in front of others, as points [E, 3] in the frame of the returns [P, 3] of one LiDAR.

    Found in the LiDAR's own view from `sensor_m` [3], so that a camera's extrinsics have no part in it: to the left,
    right, above or below the next return is from far behind, while on the other side it goes on, or is from far behind
    too (a pole). A slope, such as the ground seen flatly, has its next return nearer on the other side. The edge is
    laid half way to the return behind, since a surface ends anywhere between two beams.
    """
    from_sensor = points_m.astype(float) - sensor_m
    range_m = np.linalg.norm(from_sensor, axis=1)
    near = np.flatnonzero((range_m > _NEAREST_M) & np.isfinite(range_m))
    if len(near) <= _NEIGHBOURS:
        return np.zeros((0, 3))
    direction, range_m = from_sensor[near] / range_m[near, None], range_m[near]
    found = cKDTree(direction).query(direction, _NEIGHBOURS + 1)[1][:, 1:]
    azimuth, elevation = np.arctan2(direction[:, 1], direction[:, 0]), np.arcsin(np.clip(direction[:, 2], -1.0, 1.0))
    aside = (azimuth[found] - azimuth[:, None] + np.pi) % (2 * np.pi) - np.pi
    aside *= np.cos(elevation)[:, None]
    up = elevation[found] - elevation[:, None]
    far_behind = np.maximum(_JUMP_M, _JUMP_SHARE * range_m)
    rows, edges = np.arange(len(near)), [np.zeros((0, 3))]
    for along, across in ((aside, up), (up, aside)):
        sides = []
        for sign in (-1.0, 1.0):
            # behind a gap in the returns (sky, glass) nothing is known
            beside = (sign * along > np.abs(across)) & (np.abs(along) < np.radians(_GAP_DEG))
            apart = np.where(beside, np.abs(along), np.inf)
            nearest = apart.argmin(axis=1)
            following, known = found[rows, nearest], np.isfinite(apart[rows, nearest])
            sides.append((following, np.where(known, range_m[following] - range_m, -np.inf)))
        for (following, behind), (_, other) in (sides, sides[::-1]):
            ends = (behind > far_behind) & (other > -_SLOPE_SHARE * behind) & (range_m < _FARTHEST_M)
            middle = direction[ends] + direction[following[ends]]
            middle /= np.linalg.norm(middle, axis=1, keepdims=True)
            edges.append(sensor_m + range_m[ends, None] * middle)
    return np.concatenate(edges)


def check_extrinsics(frames: Sequence[LabelFrame], camera: RigCamera) -> ExtrinsicHealth:
    """Health of a camera's extrinsics over some frames; ten with structure all around are enough."""
    return _Scene(frames, camera).health(np.zeros(6))


def refine_extrinsics(frames: Sequence[LabelFrame], camera: RigCamera, *, translate: bool = False) -> Refinement:
    """Search within 3 degrees for the turn of the camera with which depth edges lie on image edges.

    Args:
        frames: some tens of frames with structure all around.
        camera: where it is believed to be.
        translate: search within 0.1 m for its place too. A few centimetres hardly show beyond some metres: leave it
            to the board unless the frames are many.

    Raises:
        ConfigurationError: too few depth edges in view.
    """
    scene = _Scene(frames, camera)
    if scene.count < _FEWEST_POINTS:
        raise ConfigurationError([scene.health(np.zeros(6)).warning], where="refine_extrinsics")
    limits = np.array([np.radians(_SEARCH_DEG)] * 3 + [_SEARCH_M] * 3)
    free = 6 if translate else 3
    x = np.zeros(6)
    for reach_deg in _REACH_DEG:
        field = scene.fields(reach_deg)

        def cost(part: Array, field: Sequence[NDArray[np.float32]] = field) -> float:
            moved = np.concatenate([part, np.zeros(6 - free)])
            # a place that explains no more than the believed one is not taken
            return -scene.score(moved, field) + 0.02 * float(np.sum((moved[3:] / _SEARCH_M) ** 2))

        step = np.array([np.radians(reach_deg)] * 3 + [0.02] * 3)[:free]
        simplex = x[:free] + np.concatenate([np.zeros((1, free)), np.diag(step)])
        found = minimize(cost, x[:free], method="Nelder-Mead", bounds=list(zip(-limits[:free], limits[:free])),
                         options={"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-5, "maxfev": 150 * free})
        x = np.concatenate([found.x, np.zeros(6 - free)])
    T = se3.invert(_moved(x) @ se3.invert(camera.T_base_camera))
    refined = RigCamera(**{name: getattr(camera, name) for name in RigCamera.model_fields} | {"T_base_camera": T})
    return Refinement(refined, scene.health(np.zeros(6)), scene.health(x),
                      float(np.degrees(np.linalg.norm(x[:3]))), float(np.linalg.norm(x[3:])))


def alignment_picture(frame: LabelFrame, camera: RigCamera) -> Image:
    """The camera's image with the scan by range (red near, blue at 10 m) and its depth edges in white, uint8 RGB."""
    points, edges = (_at_exposure(frame, camera.name, each) for each in (frame.points_m, _edges_of(frame)))
    radius_px = max(1, camera.width // 640)  # as visible in large images
    drawn = draw_points(frame.images[camera.name], camera.mounted(), points,
                        range_colours(np.linalg.norm(points, axis=1)), radius_px)
    return draw_points(drawn, camera.mounted(), edges, np.tile(EDGE_RGB, (len(edges), 1)), radius_px + 1)


def _moved(x: Array) -> Array:
    """Rotation vector (rad) and translation (m) [6] in the camera as [4, 4]."""
    return se3.make(Rotation.from_rotvec(x[:3]).as_matrix(), x[3:])


def _edges_of(frame: LabelFrame) -> Array:
    """Depth edges [E, 3] of all LiDARs in the base."""
    return np.concatenate([np.zeros((0, 3)), *(depth_edges(frame.points_m[frame.point_sensor == row], sensor_m)
                                               for row, sensor_m in enumerate(frame.sensor_m))])


def _at_exposure(frame: LabelFrame, camera: str, points_m: NDArray[np.floating[Any]]) -> Array:
    """Points [P, 3] of a frame in the base at the camera's exposure."""
    T_anchor_exposure = frame.T_anchor_exposure.get(camera)
    points = points_m.astype(float)
    return points if T_anchor_exposure is None else se3.apply(se3.invert(T_anchor_exposure), points)


class _Scene:
    """Depth edges and image edges of some frames, seen by a camera that can be moved."""

    def __init__(self, frames: Sequence[LabelFrame], camera: RigCamera) -> None:
        self._camera = camera
        self._images = [frame.images[camera.name] for frame in frames if camera.name in frame.images]
        T_camera_base = se3.invert(camera.T_base_camera)
        parts = [se3.apply(T_camera_base, _at_exposure(frame, camera.name, _edges_of(frame)))
                 for frame in frames if camera.name in frame.images]
        points = np.concatenate([np.zeros((0, 3)), *parts])
        image = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        pixels, seen = camera.camera.project(points)
        usable = camera.mounted().usable
        if usable is not None:
            inside = np.flatnonzero(seen)
            u, v = np.rint(pixels[inside]).astype(int).T
            seen[inside] = usable[v, u]
        kept = np.flatnonzero(seen)
        if len(kept) > _MOST_POINTS:
            kept = np.sort(np.random.default_rng(0).choice(kept, _MOST_POINTS, replace=False))
        self._points, self._image = points[kept], image[kept]

    @property
    def count(self) -> int:
        """Depth edges in view."""
        return len(self._points)

    @cached_property
    def _distances(self) -> list[NDArray[np.float32]]:
        """By image, distance of every pixel to the nearest image edge, in pixels."""
        distances = []
        for image in self._images:
            grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
            median = float(np.median(grey))
            edges = cv2.Canny(grey, 0.33 * median + 10.0, 0.67 * median + 30.0)
            distances.append(np.asarray(cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5), np.float32))
        return distances

    def fields(self, reach_deg: float) -> list[NDArray[np.float32]]:
        """By image, nearness to an image edge: 1 on it, 1/e at the reach."""
        reach_px = float(np.radians(reach_deg)) * self._camera.parameters[0]
        return [np.exp(-distance / reach_px) for distance in self._distances]

    def score(self, x: Array, fields: Sequence[NDArray[np.float32]]) -> float:
        """Mean nearness of the depth edges with the camera moved by x; those that leave the image count 0."""
        pixels, seen = self._camera.camera.project(se3.apply(_moved(x), self._points))
        near = np.zeros(len(pixels))
        for row, field in enumerate(fields):
            of_image = np.flatnonzero(seen & (self._image == row))
            near[of_image] = map_coordinates(field, pixels[of_image, ::-1].T, order=1, mode="nearest")
        return float(near.mean())

    def health(self, x: Array) -> ExtrinsicHealth:
        """Health with the camera moved by x."""
        if self.count < _FEWEST_POINTS:
            return ExtrinsicHealth(self._camera.name, float("nan"), float("nan"), self.count)
        fields = self.fields(_REACH_DEG[-1])
        here = self.score(x, fields)
        turns = np.radians(_TURN_DEG) * np.concatenate([np.eye(6)[:3], -np.eye(6)[:3]])
        turned = np.array([self.score(x + turn, fields) for turn in turns])
        better = int((turned > (1 + _NOTICEABLE) * here).sum())
        if not better and (turned < (1 - _NOTICEABLE) * here).sum() < _FEWEST_WORSE:
            return ExtrinsicHealth(self._camera.name, here, float("nan"), self.count)
        return ExtrinsicHealth(self._camera.name, here, 1 - better / len(turns), self.count)
