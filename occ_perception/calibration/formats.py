"""Rigs of other conventions as ours: ROS camera_info, Kalibr camera chains, KITTI and nuScenes calibrations.

Each converter takes the already parsed content, so that a file, a message and a test all go the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration.rig import RigCamera, RigLidar
from occ_perception.errors import CalibrationError
from occ_perception.geometry import se3

Matrix = NDArray[np.float64]

_ROS_MODELS = {"plumb_bob": ("pinhole", 5), "rational_polynomial": ("pinhole", 8), "equidistant": ("equidistant", 4)}


def from_camera_info(info: Any, name: str, T_base_camera: Matrix, *, frame: str | None = None) -> RigCamera:
    """A camera from ROS calibration: the YAML of `camera_calibration` (a mapping) or a CameraInfo message.

    Raises CalibrationError for a distortion model other than plumb_bob, rational_polynomial or equidistant.
    """
    where = f"camera_info of {name}"
    try:
        if isinstance(info, Mapping):
            width, height = int(info["image_width"]), int(info["image_height"])
            model, K = str(info["distortion_model"]), info["camera_matrix"]["data"]
            D = info["distortion_coefficients"]["data"]
            frame = frame or f"{info.get('camera_name', name)}_optical"
        else:
            width, height, model = int(info.width), int(info.height), str(info.distortion_model)
            K, D = (info.k, info.d) if hasattr(info, "k") else (info.K, info.D)
            frame = frame or info.header.frame_id
    except (KeyError, TypeError, AttributeError) as error:
        raise CalibrationError([f"missing or malformed entry: {error}"], where=where) from None
    if model not in _ROS_MODELS:
        raise CalibrationError([f"unknown distortion model {model!r}"], where=where,
                               fix=f"Known: {', '.join(_ROS_MODELS)}")
    ours, terms = _ROS_MODELS[model]
    K, D = np.asarray(K, float).ravel(), np.asarray(D, float).ravel()
    if K.shape != (9,) or len(D) > terms:
        raise CalibrationError([f"K must hold 9 numbers and D at most {terms}, got {len(K)} and {len(D)}"], where=where)
    return _camera(name, frame, width, height, ours, [K[0], K[4], K[2], K[5], *D], T_base_camera)


def from_kalibr(chain: Mapping[str, Any], T_base_cam0: Matrix) -> tuple[RigCamera, ...]:
    """Cameras of a Kalibr `camchain.yaml`. `T_cn_cnm1` maps points of camera n-1 into camera n."""
    cameras: list[RigCamera] = []
    T_base_camera = np.asarray(T_base_cam0, float)
    for name in sorted(chain, key=lambda key: int(key.removeprefix("cam"))):
        cam = chain[name]
        if "T_cn_cnm1" in cam:
            T_base_camera = T_base_camera @ se3.invert(np.asarray(cam["T_cn_cnm1"], float))
        elif cameras:
            raise CalibrationError(["T_cn_cnm1 is missing"], where=f"kalibr {name}")
        values = [float(v) for v in cam["intrinsics"]]
        distortion, terms = str(cam.get("distortion_model", "none")), list(cam.get("distortion_coeffs", []))
        lens = (str(cam["camera_model"]), distortion)
        if lens == ("pinhole", "radtan") or lens == ("pinhole", "none"):
            model, parameters = "pinhole", [*values, *terms]
        elif lens == ("pinhole", "equidistant"):
            model, parameters = "equidistant", [*values, *terms]
        elif lens[0] == "omni" and distortion in ("radtan", "none"):
            model, parameters = "mei", [*values[1:], values[0], *terms]
        elif lens == ("ds", "none"):
            model, parameters = "double_sphere", [*values[2:], *values[:2]]
        else:
            raise CalibrationError([f"unknown lens: camera_model {lens[0]!r} with distortion_model {distortion!r}"],
                                   where=f"kalibr {name}",
                                   fix="Known: pinhole with radtan, equidistant or none; omni with radtan; ds")
        width, height = (int(v) for v in cam["resolution"])
        cameras.append(_camera(name, f"{name}_optical", width, height, model, parameters, T_base_camera))
    return tuple(cameras)


def from_kitti(calibration: Mapping[str, Sequence[float]], image_size: tuple[int, int], T_base_lidar: Matrix,
               ) -> tuple[tuple[RigCamera, ...], RigLidar]:
    """Cameras P0..P3 and the LiDAR of a KITTI object or odometry calibration (`key: numbers` lines, parsed).

    Args:
        calibration: with P0..P3 [12] and Tr or Tr_velo_to_cam [12], optionally R0_rect [9].
        image_size: (H, W) of the rectified images, which the file does not tell.
        T_base_lidar: KITTI's vehicle frame is not given; place its LiDAR (1.73 m above ground) on the base.
    """
    key = "Tr_velo_to_cam" if "Tr_velo_to_cam" in calibration else "Tr"
    if key not in calibration:
        raise CalibrationError(["neither Tr nor Tr_velo_to_cam is there"], where="KITTI calibration")
    T_cam0_lidar = np.vstack([np.reshape(calibration[key], (3, 4)), [0, 0, 0, 1]])
    rectification = np.eye(4)
    if "R0_rect" in calibration:
        rectification[:3, :3] = np.reshape(calibration["R0_rect"], (3, 3))
    T_lidar_rect = np.linalg.inv(rectification @ T_cam0_lidar)
    cameras = []
    for name in sorted(k for k in calibration if len(k) == 2 and k[0] == "P" and k[1].isdigit()):
        P = np.reshape(np.asarray(calibration[name], float), (3, 4))
        T_camera_rect = se3.make(np.eye(3), np.linalg.solve(P[:, :3], P[:, 3]))
        T_base_camera = _orthonormal(T_base_lidar @ T_lidar_rect @ se3.invert(T_camera_rect))
        cameras.append(_camera(f"image_{name[1]}", f"image_{name[1]}", image_size[1], image_size[0], "pinhole",
                               [P[0, 0], P[1, 1], P[0, 2], P[1, 2]], T_base_camera))
    return tuple(cameras), RigLidar(name="velodyne", frame="velodyne", T_base_lidar=T_base_lidar)


def from_nuscenes(sensors: Sequence[Mapping[str, Any]]) -> tuple[tuple[RigCamera, ...], tuple[RigLidar, ...]]:
    """Cameras and LiDARs from nuScenes `calibrated_sensor` records joined with their channel and image size.

    Each record: channel, translation [3], rotation wxyz [4] (sensor in the ego frame, which is our base),
    camera_intrinsic 3x3 (empty for a LiDAR), width and height for cameras. Radars are passed over.
    """
    cameras, lidars = [], []
    for record in sensors:
        channel = str(record["channel"])
        w, x, y, z = record["rotation"]
        T = se3.from_quaternion((x, y, z, w), record["translation"])
        if channel.startswith("CAM"):
            K = np.asarray(record["camera_intrinsic"], float)
            if K.shape != (3, 3):
                raise CalibrationError([f"camera_intrinsic must be 3x3, got {K.shape}"], where=f"nuScenes {channel}")
            cameras.append(_camera(channel, channel, int(record["width"]), int(record["height"]), "pinhole",
                                   [K[0, 0], K[1, 1], K[0, 2], K[1, 2]], T))
        elif channel.startswith("LIDAR"):
            lidars.append(RigLidar(name=channel, frame=channel, T_base_lidar=T))
    return tuple(cameras), tuple(lidars)


def _camera(name: str, frame: str, width: int, height: int, model: str, parameters: Sequence[float],
            T_base_camera: Matrix) -> RigCamera:
    try:
        return RigCamera(name=name, frame=frame, width=width, height=height, model=model,
                         parameters=tuple(float(v) for v in parameters), T_base_camera=T_base_camera)
    except ValueError as error:
        raise CalibrationError([str(error)], where=f"camera {name}") from None


def _orthonormal(T: Matrix) -> Matrix:
    """T with its rotation replaced by the nearest true one (calibration files round to few digits)."""
    u, _, vt = np.linalg.svd(T[:3, :3])
    return se3.make(u @ vt, T[:3, 3])
