"""Calibration from a ChArUco board with a ring of reflective tape: a camera's lens, and its place beside a LiDAR.

The board shows its corners to the camera and its plane and ring to the LiDAR (WalkOCC F.3). Points of the board are in
OpenCV's frame of it: origin at the outer corner of the pattern, x along its columns, y along its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from occ_perception.calibration import Rig, RigCamera
from occ_perception.errors import CalibrationError, ConfigurationError
from occ_perception.geometry import make_camera, se3
from occ_perception.types import PointCloud

Array = NDArray[np.float64]
LensModel = Literal["pinhole", "equidistant"]

_FEWEST_VIEWS = 5
_FEWEST_CORNERS = 8
_FEWEST_RETURNS = 12
_PLANE_M = 0.04  # how far returns of a plane may lie beside it: three deviations of a LiDAR's range
_TRIALS = 400
_BRIGHT_PLATE, _ROUND = 0.2, 0.7
"""A ring's plate has few bright returns, at most this share, and the ring goes most of the way round."""
_FEWEST_TILT_DEG = 15.0
"""Boards that all face one way leave the turn about it, and the shift along them, to noise."""


@dataclass(frozen=True)
class Board:
    """A board: a ChArUco pattern, and round its middle a ring of reflective tape.

    Attributes:
        columns, rows: squares of the pattern.
        square_m, marker_m: sides of a square and of a marker.
        ring_radius_m: of the middle of the tape, round the middle of the pattern.
        tape_m: width of the tape.
        dictionary: name of OpenCV's marker dictionary.

    Raises:
        ConfigurationError: a board that cannot be; all faults listed.
    """

    columns: int = 7
    rows: int = 5
    square_m: float = 0.08
    marker_m: float = 0.06
    ring_radius_m: float = 0.42
    tape_m: float = 0.05
    dictionary: str = "DICT_5X5_100"

    def __post_init__(self) -> None:
        faults = []
        if self.columns < 3 or self.rows < 3:
            faults.append(f"needs at least 3 x 3 squares, got {self.columns} x {self.rows}")
        if not 0 < self.marker_m < self.square_m:
            faults.append(f"0 < marker_m < square_m must hold, got {self.marker_m} and {self.square_m}")
        if not 0 < self.tape_m < self.ring_radius_m:
            faults.append(f"0 < tape_m < ring_radius_m must hold, got {self.tape_m} and {self.ring_radius_m}")
        if not hasattr(cv2.aruco, self.dictionary):
            faults.append(f"unknown dictionary {self.dictionary!r}")
        if faults:
            raise ConfigurationError(faults, where="board")

    @cached_property
    def pattern(self) -> Any:
        """OpenCV's board."""
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)

    @property
    def centre_m(self) -> Array:
        """Middle of the pattern and of the ring in the board's frame, [3]."""
        return np.array([0.5 * self.columns * self.square_m, 0.5 * self.rows * self.square_m, 0.0])


@dataclass(frozen=True, eq=False)
class BoardView:
    """Corners found in one image: their places on the board [K, 3] m, and pixels [K, 2]."""

    corners_m: Array
    pixels: Array


@dataclass(frozen=True, eq=False)
class BoardReturns:
    """A board in a scan, in the LiDAR's frame: middle and unit normal towards the LiDAR [3]; returns [K, 3], [M, 3]."""

    centre_m: Array
    normal: Array
    ring_m: Array
    plate_m: Array


@dataclass(frozen=True, eq=False)
class LensCalibration:
    """A lens: parameters in `make_camera`'s order, root mean square reprojection error, T_camera_board by view."""

    model: LensModel
    parameters: tuple[float, ...]
    rms_px: float
    T_camera_board: list[Array]


@dataclass(frozen=True, eq=False)
class RigCalibration:
    """What a calibration of one camera and one LiDAR gives.

    Attributes:
        rig: with the new lens and the new place of the camera; the LiDAR stays where it was.
        rms_px: reprojection error of the corners.
        rms_m: of the board's returns beside the plane and the ring that the camera sees.
        used: indices of the pairs used for the place.
        skipped: by index of the pair, why it was not used.
    """

    rig: Rig
    rms_px: float
    rms_m: float
    used: tuple[int, ...]
    skipped: dict[int, str]


def find_board(image: NDArray[np.uint8], board: Board) -> BoardView | None:
    """The board's corners in an image (uint8 RGB [H, W, 3]), None where fewer than 8 are seen."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners, ids, _, _ = cv2.aruco.CharucoDetector(board.pattern).detectBoard(grey)
    if ids is None or len(ids) < _FEWEST_CORNERS or board.pattern.checkCharucoCornersCollinear(ids):
        return None
    places = np.asarray(board.pattern.getChessboardCorners(), float)[ids.ravel()]
    return BoardView(places, np.asarray(corners, float).reshape(-1, 2))


def calibrate_lens(views: Sequence[BoardView], size: tuple[int, int], model: LensModel) -> LensCalibration:
    """A lens from boards seen all over the image.

    Args:
        size: (width, height), pixels.
        model: `pinhole` (with k1 k2 p1 p2 k3), or `equidistant` for a fisheye.

    Raises:
        CalibrationError: fewer than 5 views, or views that fit no lens.
    """
    if len(views) < _FEWEST_VIEWS:
        raise CalibrationError([f"{len(views)} images show the board, needed are {_FEWEST_VIEWS}"], where="lens",
                               fix="Take more, near and far, in the corners of the image, and tilted. If they show it, "
                                   "it is another board: check its squares and its marker dictionary.")
    places = [view.corners_m.reshape(-1, 1, 3) for view in views]
    pixels = [view.pixels.reshape(-1, 1, 2) for view in views]
    try:
        if model == "equidistant":
            flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW
            rms, K, D, turns, shifts = cv2.fisheye.calibrate(places, pixels, size, np.eye(3), np.zeros((4, 1)),
                                                             flags=flags)
        else:
            rms, K, D, turns, shifts = cv2.calibrateCamera([p.astype(np.float32) for p in places],
                                                           [p.astype(np.float32) for p in pixels], size, None, None)
    except cv2.error as error:
        raise CalibrationError([f"the views fit no {model} lens ({error.err})"], where="lens",
                               fix="Take images with the board tilted and at other distances.") from error
    parameters = (K[0, 0], K[1, 1], K[0, 2], K[1, 2], *np.ravel(D))
    poses = [se3.make(Rotation.from_rotvec(np.ravel(r)).as_matrix(), np.ravel(t)) for r, t in zip(turns, shifts)]
    return LensCalibration(model, tuple(float(value) for value in parameters), float(rms), poses)


def find_board_returns(cloud: PointCloud, board: Board) -> BoardReturns | None:
    """The board in a scan, by its bright ring; None where there is none of its radius.

    Raises:
        CalibrationError: the scan has no intensities.
    """
    if cloud.intensity is None:
        raise CalibrationError(["the scan has no intensities"], where=f"cloud of {cloud.lidar}",
                               fix="Record the LiDAR with its intensity or reflectivity field.")
    points = cloud.points_m.astype(float)
    # tape throws light back: it outshines all else, whatever the scale of the driver
    threshold = 0.6 * float(np.quantile(cloud.intensity, 0.999)) if len(points) else 0.0
    circle = _circle(points[cloud.intensity > threshold], board)
    if circle is None:
        return None
    centre, normal = circle
    across, beside = _cylindrical(points, centre, normal)
    plate = (across < board.ring_radius_m - board.tape_m) & (np.abs(beside) < _PLANE_M)
    shines = cloud.intensity > threshold
    ring = shines & (np.abs(across - board.ring_radius_m) < board.tape_m) & (np.abs(beside) < _PLANE_M)
    if shines[plate].sum() > _BRIGHT_PLATE * plate.sum() or _round(points[ring] - centre, normal) < _ROUND:
        return None
    facing = normal if normal @ centre < 0 else -normal
    return BoardReturns(centre, facing, points[ring], points[plate])


def calibrate_place(T_camera_board: Sequence[Array], returns: Sequence[BoardReturns], board: Board,
                    ) -> tuple[Array, float]:
    """T_camera_lidar [4, 4] from boards that both saw, and the root mean square of what is left, in metres.

    Middles and normals give a first place in closed form. Least squares then brings all returns onto the boards'
    planes, and those of the tape onto the rings, as the camera's corners place them.

    Raises:
        CalibrationError: fewer than 3 boards, or boards that all face one way.
    """
    if len(returns) < 3:
        raise CalibrationError([f"{len(returns)} boards were seen by both, needed are 3"], where="place of the camera",
                               fix="Hold the board where camera and LiDAR see it, at rest, its ring in full. If they "
                                   "do, check the radius of the ring and the width of the tape.")
    in_camera = [se3.apply(T, board.centre_m) for T in T_camera_board]
    normals = [T[:3, 2] if T[:3, 2] @ centre < 0 else -T[:3, 2] for T, centre in zip(T_camera_board, in_camera)]
    tilt_deg = np.degrees(np.arccos(np.clip(np.min(np.stack(normals) @ np.stack(normals).T), -1.0, 1.0)))
    if tilt_deg < _FEWEST_TILT_DEG:
        raise CalibrationError([f"the boards face one way within {tilt_deg:.0f} degrees"], where="place of the camera",
                               fix=f"Tilt the board by {_FEWEST_TILT_DEG:.0f} degrees and more, to all sides.")
    start = _laid_onto(np.concatenate([[board_.centre_m, board_.centre_m + board_.normal] for board_ in returns]),
                       np.concatenate([[c, c + n] for c, n in zip(in_camera, normals)]))
    to_board = [se3.invert(T) for T in T_camera_board]

    def residuals(x: Array) -> Array:
        T_camera_lidar = start @ se3.make(Rotation.from_rotvec(x[:3]).as_matrix(), x[3:])
        parts = []
        for T, seen in zip(to_board, returns):
            ring, plate = (se3.apply(T @ T_camera_lidar, each) - board.centre_m for each in (seen.ring_m, seen.plate_m))
            parts += [plate[:, 2], ring[:, 2], np.linalg.norm(ring[:, :2], axis=1) - board.ring_radius_m]
        return np.concatenate(parts)

    fit = least_squares(residuals, np.zeros(6), loss="soft_l1", f_scale=0.02)
    T_camera_lidar = start @ se3.make(Rotation.from_rotvec(fit.x[:3]).as_matrix(), fit.x[3:])
    return T_camera_lidar, float(np.sqrt(np.mean(residuals(fit.x) ** 2)))


def calibrate_rig(rig: Rig, camera: str, lidar: str, images: Sequence[NDArray[np.uint8]], clouds: Sequence[PointCloud],
                  board: Board, *, model: LensModel | None = None) -> RigCalibration:
    """Calibrate one camera of a rig and its place beside a LiDAR from pairs of an image and a scan, at rest.

    Args:
        rig: its camera tells the image size and the lens model; the LiDAR's place on the base is kept.
        images: uint8 RGB [H, W, 3].
        clouds: in the LiDAR's frame, with intensities, one for each image.
        model: another lens model than the rig's.

    Raises:
        CalibrationError: not as many scans as images, images of another size, a lens model that no board calibrates,
            or too few boards.
    """
    sensor, place = rig.camera(camera), rig.lidar(lidar)
    lens = model or sensor.model
    faults = [f"{len(images)} images but {len(clouds)} scans"] if len(images) != len(clouds) else []
    faults += [f"image {i} is {image.shape[1]} x {image.shape[0]}, the rig says {sensor.width} x {sensor.height}"
               for i, image in enumerate(images) if image.shape[:2] != (sensor.height, sensor.width)]
    if lens not in ("pinhole", "equidistant"):
        faults.append(f"a board calibrates pinhole and equidistant lenses, not {lens}")
    if faults:
        raise CalibrationError(faults, where=f"camera {camera}")
    views = [find_board(image, board) for image in images]
    seen = [i for i, view in enumerate(views) if view is not None]
    calibration = calibrate_lens([view for view in views if view is not None], (sensor.width, sensor.height),
                                 "pinhole" if lens == "pinhole" else "equidistant")
    skipped = {i: "the camera does not see the board" for i in range(len(images)) if i not in seen}
    poses, boards, used = [], [], []
    for i, T_camera_board in zip(seen, calibration.T_camera_board):
        returns = find_board_returns(clouds[i], board)
        if returns is None:
            skipped[i] = "the LiDAR does not see the ring"
            continue
        poses.append(T_camera_board)
        boards.append(returns)
        used.append(i)
    T_camera_lidar, rms_m = calibrate_place(poses, boards, board)
    new = _recalibrated(sensor, calibration, place.T_base_lidar @ se3.invert(T_camera_lidar))
    cameras = tuple(new if each.name == camera else each for each in rig.cameras)
    return RigCalibration(rig.model_copy(update={"cameras": cameras}), calibration.rms_px, rms_m, tuple(used), skipped)


def _recalibrated(sensor: RigCamera, lens: LensCalibration, T_base_camera: Array) -> RigCamera:
    make_camera(lens.model, sensor.width, sensor.height, lens.parameters)  # its error is ours, a rig's is pydantic's
    changed = {"model": lens.model, "parameters": lens.parameters, "T_base_camera": T_base_camera}
    return RigCamera(**{name: getattr(sensor, name) for name in RigCamera.model_fields} | changed)


def _circle(bright: Array, board: Board) -> tuple[Array, Array] | None:
    """Middle and unit normal of the circle of the ring's radius on which most points lie."""
    if len(bright) < _FEWEST_RETURNS:
        return None
    rng = np.random.default_rng(0)
    best: tuple[int, NDArray[np.bool_], Array, Array] | None = None
    for _ in range(_TRIALS):
        a, b, c = bright[rng.choice(len(bright), 3, replace=False)]
        ab, ac = b - a, c - a
        cross = np.cross(ab, ac)
        area = cross @ cross
        if area < (0.2 * board.ring_radius_m**2) ** 2:  # nearly on a line
            continue
        centre = a + (np.cross(cross, ab) * (ac @ ac) + np.cross(ac, cross) * (ab @ ab)) / (2 * area)
        if abs(np.linalg.norm(a - centre) - board.ring_radius_m) > board.tape_m:
            continue
        normal = cross / np.sqrt(area)
        across, beside = _cylindrical(bright, centre, normal)
        on = (np.abs(across - board.ring_radius_m) < board.tape_m) & (np.abs(beside) < _PLANE_M)
        if best is None or on.sum() > best[0]:
            best = int(on.sum()), on, centre, normal
    if best is None or best[0] < _FEWEST_RETURNS:
        return None
    _, on, centre, normal = best
    ring = bright[on]

    def residuals(x: Array) -> Array:
        across, beside = _cylindrical(ring, x[:3], x[3:] / np.linalg.norm(x[3:]))
        return np.concatenate([across - board.ring_radius_m, beside])

    fit = least_squares(residuals, np.concatenate([centre, normal]), loss="soft_l1", f_scale=0.02)
    return fit.x[:3], fit.x[3:] / np.linalg.norm(fit.x[3:])


def _cylindrical(points: Array, centre: Array, normal: Array) -> tuple[Array, Array]:
    """Distance of points from an axis, and along it."""
    offset = points - centre
    along = offset @ normal
    return np.linalg.norm(offset - along[:, None] * normal, axis=1), along


def _round(offsets: Array, normal: Array) -> float:
    """Share of 24 sectors about an axis that hold some of the points, given by their offsets [K, 3] from it."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    angle = np.arctan2(offsets @ np.cross(normal, first), offsets @ first)
    return len(np.unique(np.floor((angle + np.pi) / (2 * np.pi) * 24 - 1e-9))) / 24


def _laid_onto(points: Array, others: Array) -> Array:
    """[4, 4] that brings points [N, 3] nearest to the others (Kabsch 1976)."""
    centre, other = points.mean(axis=0), others.mean(axis=0)
    u, _, vt = np.linalg.svd((others - other).T @ (points - centre))
    R = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return se3.make(R, other - R @ centre)
