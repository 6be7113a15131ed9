"""Does a camera's own camera_info say what the rig says? Differences are named, never silently taken over."""

from __future__ import annotations

from typing import Any

import numpy as np

_FIELDS = {"k": ("intrinsics", 0.5), "d": ("distortion", 1e-4)}
"""Field of CameraInfo: what it is called, and the difference that is still rounding (pixels; no unit)."""


def differences(expected: Any, given: Any) -> str | None:
    """What a camera_info message says differently from the one made from the rig, or None.

    A lens model that ROS has no name for is compared by image size only.
    """
    found = []
    if (given.width, given.height) != (expected.width, expected.height):
        found.append(f"size {given.width} x {given.height} (rig: {expected.width} x {expected.height})")
    if expected.distortion_model and given.distortion_model != expected.distortion_model:
        found.append(f"model {given.distortion_model!r} (rig: {expected.distortion_model!r})")
    elif expected.distortion_model:
        for name, (meaning, tolerance) in _FIELDS.items():
            theirs, ours = np.asarray(getattr(given, name), float), np.asarray(getattr(expected, name), float)
            if theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=0.0, atol=tolerance):
                found.append(f"{meaning} {np.round(theirs, 4).tolist()} (rig: {np.round(ours, 4).tolist()})")
    return f"camera_info differs from the rig: {'; '.join(found)}" if found else None
