"""The four lens models as numba kernels on one point; `cameras.py` wraps them for arrays.

A model is a number and a flat parameter array, so that one kernel serves every camera of a rig:
pinhole (plumb_bob and rational_polynomial), Kannala-Brandt (ROS `equidistant`), unified omnidirectional (Mei),
and double sphere (Usenko et al. 2018).
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

PINHOLE, EQUIDISTANT, MEI, DOUBLE_SPHERE = 0, 1, 2, 3
Parameters = NDArray[np.float64]


def jit(function: Any) -> Any:
    """Numba in the one way used in this package: cached on disk, without the GIL, division like numpy."""
    return nb.njit(cache=True, nogil=True, error_model="numpy")(function)


@jit
def _radial(p: Parameters, at: int, r2: float) -> tuple[float, float]:
    """Rational radial factor and its derivative by r2; coefficients k1 k2 (p1 p2) k3 k4 k5 k6 from p[at]."""
    k1, k2 = p[at], p[at + 1]
    k3, k4, k5, k6 = p[at + 4], p[at + 5], p[at + 6], p[at + 7]
    above = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
    d_above = k1 + r2 * (2.0 * k2 + 3.0 * r2 * k3)
    d_below = k4 + r2 * (2.0 * k5 + 3.0 * r2 * k6)
    return above / below, (d_above * below - above * d_below) / (below * below)


@jit
def distort(p: Parameters, at: int, x: float, y: float) -> tuple[float, float]:
    """Brown's distortion of a point on the normalised plane."""
    p1, p2 = p[at + 2], p[at + 3]
    r2 = x * x + y * y
    g, _ = _radial(p, at, r2)
    return (x * g + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
            y * g + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y)


@jit
def undistort(p: Parameters, at: int, xd: float, yd: float) -> tuple[float, float, bool]:
    """Inverse of `distort` by Newton's method; false where it does not converge."""
    p1, p2 = p[at + 2], p[at + 3]
    x, y = xd, yd
    for _ in range(40):
        r2 = x * x + y * y
        g, dg = _radial(p, at, r2)
        ex = x * g + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x) - xd
        ey = y * g + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y - yd
        a = g + 2.0 * x * x * dg + 2.0 * p1 * y + 6.0 * p2 * x
        b = 2.0 * x * y * dg + 2.0 * p1 * x + 2.0 * p2 * y
        d = g + 2.0 * y * y * dg + 6.0 * p1 * y + 2.0 * p2 * x
        det = a * d - b * b
        if abs(det) < 1e-12:
            return x, y, False
        dx, dy = (d * ex - b * ey) / det, (a * ey - b * ex) / det
        step = math.sqrt(dx * dx + dy * dy)
        if step > 0.5:  # stay on the branch of the lens: a full step may jump over the fold
            dx, dy = 0.5 * dx / step, 0.5 * dy / step
        x, y = x - dx, y - dy
        if step < 1e-13:
            break
    xr, yr = distort(p, at, x, y)
    return x, y, abs(xr - xd) + abs(yr - yd) < 1e-9


@jit
def kannala_brandt(p: Parameters, theta: float) -> tuple[float, float]:
    """Distorted angle and its derivative by the angle; k1..k4 from p[4]."""
    t2 = theta * theta
    value = theta * (1.0 + t2 * (p[4] + t2 * (p[5] + t2 * (p[6] + t2 * p[7]))))
    slope = 1.0 + t2 * (3.0 * p[4] + t2 * (5.0 * p[5] + t2 * (7.0 * p[6] + t2 * 9.0 * p[7])))
    return value, slope


@jit
def project_point(model: int, p: Parameters, x: float, y: float, z: float) -> tuple[float, float, bool]:
    """Pixel (u, v) of an optical-frame point, and whether it lies in the model's domain."""
    if model == PINHOLE:
        if z <= 1e-9:
            return 0.0, 0.0, False
        mx, my = distort(p, 4, x / z, y / z)
    elif model == EQUIDISTANT:
        r = math.sqrt(x * x + y * y)
        theta_d, _ = kannala_brandt(p, math.atan2(r, z))
        scale = theta_d / r if r > 1e-12 else 1.0 / max(z, 1e-12)
        mx, my = x * scale, y * scale
    elif model == MEI:
        xi = p[4]
        norm = math.sqrt(x * x + y * y + z * z)
        below = z / norm + xi
        if below <= 1e-6 or (xi > 1.0 and z / norm <= -1.0 / xi):
            return 0.0, 0.0, False
        mx, my = distort(p, 5, x / norm / below, y / norm / below)
    else:
        xi, alpha = p[4], p[5]
        d1 = math.sqrt(x * x + y * y + z * z)
        w1 = alpha / (1.0 - alpha) if alpha <= 0.5 else (1.0 - alpha) / alpha
        w2 = (w1 + xi) / math.sqrt(2.0 * w1 * xi + xi * xi + 1.0)
        if z <= -w2 * d1:
            return 0.0, 0.0, False
        zx = xi * d1 + z
        d2 = math.sqrt(x * x + y * y + zx * zx)
        below = alpha * d2 + (1.0 - alpha) * zx
        if below <= 1e-9:
            return 0.0, 0.0, False
        mx, my = x / below, y / below
    return p[0] * mx + p[2], p[1] * my + p[3], True


@jit
def unproject_point(model: int, p: Parameters, u: float, v: float) -> tuple[float, float, float, bool]:
    """Unit ray of a pixel in the optical frame, and whether the model has one."""
    mx, my = (u - p[2]) / p[0], (v - p[3]) / p[1]
    if model == PINHOLE:
        x, y, ok = undistort(p, 4, mx, my)
        z = 1.0
    elif model == EQUIDISTANT:
        r = math.sqrt(mx * mx + my * my)
        if r < 1e-12:
            return 0.0, 0.0, 1.0, True
        theta = min(r, math.pi)
        for _ in range(40):
            value, slope = kannala_brandt(p, theta)
            if slope <= 1e-6:
                return 0.0, 0.0, 1.0, False
            step = (value - r) / slope
            theta = min(max(theta - step, 0.0), math.pi)
            if abs(step) < 1e-14:
                break
        ok = abs(kannala_brandt(p, theta)[0] - r) < 1e-9
        x, y, z = math.sin(theta) * mx / r, math.sin(theta) * my / r, math.cos(theta)
    elif model == MEI:
        x, y, ok = undistort(p, 5, mx, my)
        xi = p[4]
        r2 = x * x + y * y
        inside = 1.0 + (1.0 - xi * xi) * r2
        if inside < 0.0:
            return 0.0, 0.0, 1.0, False
        factor = (xi + math.sqrt(inside)) / (1.0 + r2)
        x, y, z = factor * x, factor * y, factor - xi
    else:
        xi, alpha = p[4], p[5]
        r2 = mx * mx + my * my
        inside = 1.0 - (2.0 * alpha - 1.0) * r2
        if inside < 0.0:
            return 0.0, 0.0, 1.0, False
        mz = (1.0 - alpha * alpha * r2) / (alpha * math.sqrt(inside) + 1.0 - alpha)
        root = mz * mz + (1.0 - xi * xi) * r2
        if root < 0.0:
            return 0.0, 0.0, 1.0, False
        factor = (mz * xi + math.sqrt(root)) / (mz * mz + r2)
        x, y, z, ok = factor * mx, factor * my, factor * mz - xi, True
    norm = math.sqrt(x * x + y * y + z * z)
    return x / norm, y / norm, z / norm, ok
