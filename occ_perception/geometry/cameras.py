"""Cameras: a lens model, an image size, a field of view. Points are in the optical frame (x right, y down, z forward).

An integer pixel is a pixel's centre. Depth is always range along the ray, so that 190 degree lenses have one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import CalibrationError, ShapeError
from occ_perception.geometry import lens

MODELS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "pinhole": (lens.PINHOLE, ("fx", "fy", "cx", "cy"), ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "equidistant": (lens.EQUIDISTANT, ("fx", "fy", "cx", "cy"), ("k1", "k2", "k3", "k4")),
    "mei": (lens.MEI, ("fx", "fy", "cx", "cy", "xi"), ("k1", "k2", "p1", "p2")),
    "double_sphere": (lens.DOUBLE_SPHERE, ("fx", "fy", "cx", "cy", "xi", "alpha"), ()),
}
"""Model name: kernel number, parameters that must be given, parameters that default to 0."""

_BROWN_AT = {lens.PINHOLE: 4, lens.MEI: 5}
_MIN_SLOPE = 0.02  # of the radial curve; beyond it the lens folds back and pixels no longer have one ray


@lens.jit
def _project_all(model: int, p: Any, points: Any, cos_max: float, width: int, height: int,
                 pixels: Any, valid: Any) -> None:
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        norm = math.sqrt(x * x + y * y + z * z)
        u, v, ok = lens.project_point(model, p, x, y, z)
        ok = ok and norm > 0.0 and z >= cos_max * norm
        valid[i] = ok and -0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5
        pixels[i, 0], pixels[i, 1] = u, v


@lens.jit
def _unproject_all(model: int, p: Any, pixels: Any, cos_max: float, rays: Any) -> None:
    for i in range(len(pixels)):
        x, y, z, ok = lens.unproject_point(model, p, pixels[i, 0], pixels[i, 1])
        if ok and z >= cos_max:
            rays[i, 0], rays[i, 1], rays[i, 2] = x, y, z
        else:
            rays[i, :] = math.nan


@dataclass(frozen=True)
class Camera:
    """One camera. Make it with `make_camera`, which checks the parameters and finds the field of view.

    Attributes:
        model: a key of `MODELS`.
        width, height: image size, pixels.
        parameters: float64, the model's required and optional parameters in their order.
        max_theta_rad: largest angle from the optical axis at which a point has a pixel.
    """

    model: str
    width: int
    height: int
    parameters: NDArray[np.float64]
    max_theta_rad: float

    @property
    def kernel(self) -> int:
        """Number of the lens model in `lens`."""
        return MODELS[self.model][0]

    @property
    def cos_max_theta(self) -> float:
        """Cosine of `max_theta_rad`, with a hair of slack for rounding."""
        return math.cos(self.max_theta_rad) - 1e-12

    @cached_property
    def packed(self) -> NDArray[np.float64]:
        """Parameters padded for the kernels (Mei's radial factor has no higher terms)."""
        return np.concatenate([self.parameters, np.zeros(8)])

    def project(self, points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pixels (u, v) [N, 2] of optical-frame points [N, 3], and which of them this camera really sees."""
        points = np.ascontiguousarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"points must be [N, 3], got {points.shape}", where="Camera.project")
        pixels, valid = np.empty((len(points), 2)), np.empty(len(points), np.bool_)
        _project_all(self.kernel, self.packed, points, self.cos_max_theta, self.width, self.height, pixels, valid)
        return pixels, valid

    def unproject(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Unit rays [N, 3] of pixels [N, 2]; NaN where a pixel lies outside the field of view."""
        pixels = np.ascontiguousarray(pixels, np.float64)
        if pixels.ndim != 2 or pixels.shape[1] != 2:
            raise ShapeError(f"pixels must be [N, 2], got {pixels.shape}", where="Camera.unproject")
        rays = np.empty((len(pixels), 3))
        _unproject_all(self.kernel, self.packed, pixels, self.cos_max_theta, rays)
        return rays

    @property
    def pixel_rad(self) -> float:
        """Angle between two neighbouring pixels in the middle of the image."""
        u, v = 0.5 * self.width, 0.5 * self.height
        one, other = self.unproject([[u, v], [u + 1.0, v]])
        angle = float(np.arccos(np.clip(one @ other, -1.0, 1.0)))
        return angle if angle > 0.0 else 1.0 / float(self.parameters[0])

    def rays(self) -> NDArray[np.float32]:
        """Unit rays of all pixels, float32 [H, W, 3]; NaN outside the field of view. Computed once."""
        return self._rays

    @cached_property
    def _rays(self) -> NDArray[np.float32]:
        u, v = np.meshgrid(np.arange(self.width), np.arange(self.height))
        rays = self.unproject(np.stack([u.ravel(), v.ravel()], axis=1)).astype(np.float32)
        rays = rays.reshape(self.height, self.width, 3)
        rays.setflags(write=False)
        return rays


def make_camera(model: str, width: int, height: int, parameters: Sequence[float],
                max_theta_rad: float | None = None) -> Camera:
    """A checked camera.

    Args:
        model: `pinhole` (fx fy cx cy [k1 k2 p1 p2 [k3 [k4 k5 k6]]], OpenCV's order: plumb_bob and rational_polynomial),
            `equidistant` (fx fy cx cy [k1 k2 k3 k4]), `mei` (fx fy cx cy xi [k1 k2 p1 p2]),
            `double_sphere` (fx fy cx cy xi alpha).
        width, height: image size, pixels.
        parameters: in that order; trailing distortion terms may be left out.
        max_theta_rad: field of view as an angle from the axis; by default as far as the image's corners reach
            and the lens does not fold back.

    Raises:
        CalibrationError: unknown model, wrong number of parameters, or numbers that make no lens; all faults listed.
    """
    if model not in MODELS:
        raise CalibrationError([f"unknown camera model {model!r}"], fix=f"Known models: {', '.join(MODELS)}")
    kernel, required, optional = MODELS[model]
    values = np.asarray(parameters, float).ravel()
    faults = []
    if not len(required) <= len(values) <= len(required) + len(optional):
        faults.append(f"{model} takes {' '.join(required)}" + (f" [{' '.join(optional)}]" if optional else "")
                      + f", got {len(values)} numbers")
    elif not np.isfinite(values).all():
        faults.append(f"parameters must be finite, got {values.tolist()}")
    elif values[0] <= 0 or values[1] <= 0:
        faults.append(f"fx and fy must be positive, got {values[0]} and {values[1]}: the camera matrix is singular")
    elif model == "double_sphere" and not 0 <= values[5] < 1:
        faults.append(f"alpha must be in [0, 1), got {values[5]}")
    if width <= 0 or height <= 0:
        faults.append(f"image size must be positive, got {width} x {height}")
    if max_theta_rad is not None and not 0 < max_theta_rad <= math.pi:
        faults.append(f"max_theta_rad must be in (0, pi], got {max_theta_rad}")
    if faults:
        raise CalibrationError(faults, where=f"camera model {model}")
    padded = np.concatenate([values, np.zeros(len(required) + len(optional) - len(values))])
    domain = _domain_rad(kernel, padded)
    wide = Camera(model, width, height, padded, domain)
    if max_theta_rad is None:
        max_theta_rad = min(domain, _corner_rad(wide))
    return Camera(model, width, height, padded, min(max_theta_rad, domain))


def _domain_rad(kernel: int, parameters: NDArray[np.float64]) -> float:
    """Largest angle up to which the lens curve rises, so that pixel and ray are inverse to each other."""
    p = np.concatenate([parameters, np.zeros(8)])
    thetas = np.linspace(1e-4, math.pi - 1e-4, 4000)
    if kernel == lens.PINHOLE:
        thetas = thetas[thetas < math.radians(89.0)]
    curve = []
    for theta in thetas:
        # focal lengths 1 and centre 0, along x: tangential terms do not decide where a lens folds
        straight = p.copy()
        straight[:4] = 1.0, 1.0, 0.0, 0.0
        if kernel in _BROWN_AT:
            straight[_BROWN_AT[kernel] + 2: _BROWN_AT[kernel] + 4] = 0.0
        u, _, ok = lens.project_point(kernel, straight, math.sin(theta), 0.0, math.cos(theta))
        if not ok:
            break
        curve.append(u)
    slope = np.diff(curve) / np.diff(thetas[: len(curve)])
    fold = np.flatnonzero(slope < _MIN_SLOPE)
    last = int(fold[0]) if len(fold) else len(curve) - 1
    return float(thetas[max(last, 1)])


def _corner_rad(camera: Camera) -> float:
    """Largest angle that any pixel of the image's border sees within the camera's domain."""
    u = np.linspace(-0.5, camera.width - 0.5, 65)
    v = np.linspace(-0.5, camera.height - 0.5, 65)
    border = np.concatenate([
        np.stack([u, np.full_like(u, v[0])], 1), np.stack([u, np.full_like(u, v[-1])], 1),
        np.stack([np.full_like(v, u[0]), v], 1), np.stack([np.full_like(v, u[-1]), v], 1),
    ])
    rays = camera.unproject(border)
    if np.isnan(rays).any():
        return camera.max_theta_rad
    return float(np.arccos(np.clip(rays[:, 2].min(), -1, 1)))
