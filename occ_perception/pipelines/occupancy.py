"""The occupancy pipeline: a sensor frame to a labelled grid and the checked waypoints of the trajectory head."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.engines import Engine, Manifest
from occ_perception.errors import BadMessage, ManifestError
from occ_perception.geometry import MountedCamera, ProjectionTable, coverage, projection_table, se3
from occ_perception.geometry.lens import jit
from occ_perception.geometry.range_image import range_image
from occ_perception.pipelines.planning import PathChecker, PathCheckSettings
from occ_perception.taxonomy import UNKNOWN, get_taxonomy
from occ_perception.types import CameraImage, PointCloud, SensorFrame, Trajectory, VoxelGrid

NO_ODOMETRY = "no_odometry"
"""Flag: there was no pose, so the tilt of the base is taken as none."""
CAMERA_MISSING = "camera_missing:"
"""Flag, followed by the camera's name: it gave no image for this frame."""
NO_LIDAR = "no_lidar"
"""Flag: the model reads LiDAR ranges and is to be given some, but no LiDAR gave a scan for this frame."""
LIDAR_MISSING = "lidar_missing:"
"""Flag, followed by the LiDAR's name: it gave no scan for this frame, but another one did."""

# Tables round to a feature pixel (about 24 mrad) and a range bin (0.2 m); a fifth of a pixel is below what they resolve
# and above what the body of a wheeled robot trembles.
_TABLE_TOLERANCE_RAD, _TABLE_TOLERANCE_M = 0.005, 0.01
# Coverage is tested in blocks of 0.2 m: at the far end of the grid 20 mrad are one of them.
_COVERAGE_TOLERANCE_RAD, _COVERAGE_TOLERANCE_M = 0.02, 0.1

_Value = TypeVar("_Value")
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class OccupancyResult:
    """What one frame gave.

    `timings_ms` has `tables`, `ranges` (only of models that read them), `engine`, `post`, `path` (only of models that
    give one), and `total`.
    """

    grid: VoxelGrid
    trajectory: Trajectory | None
    timings_ms: dict[str, float]


class OccupancyPipeline:
    """Runs one WalkOCC engine over the frames of one stream.

    Cameras of another size than the engine's image are resized. Tables follow the tilt of the base and the motion
    between exposures; they are kept while nothing changed. Cells that no camera of the frame sees become 255.
    Scans of all LiDARs become one range image per camera where the model reads them. Waypoints are laid into the grid
    of their frame.

    Args:
        engine: loaded from `manifest`.
        rig: the robot whose frames are answered.
        path_check: how waypoints are judged; default with the footprint of the rig.
        tasks: what is wanted of what the model answers, default all; without `trajectory` no path is judged.
        lidars: LiDARs of the rig whose scans are wanted, default all; a model that reads no ranges is given none.

    Raises:
        ManifestError: the model answers no occupancy.
        ConfigurationError: `path_check` does not fit the model's grid or taxonomy, or the rig lacks a LiDAR.
    """

    def __init__(self, engine: Engine, manifest: Manifest, rig: Rig, path_check: PathCheckSettings | None = None, *,
                 tasks: Sequence[str] | None = None, lidars: Sequence[str] | None = None) -> None:
        if "occupancy" not in manifest.tasks:
            raise ManifestError([f"{manifest.model_id} has no occupancy task, only {', '.join(manifest.tasks)}"],
                                where=str(manifest.folder))
        self.resets: Counter[str] = Counter()
        self._engine = engine
        self._manifest = manifest
        self._mounted = {camera.name: camera.mounted() for camera in rig.cameras}
        wanted = [lidar.name for lidar in rig.lidars] if lidars is None else lidars
        self._T_base_lidar = {name: rig.lidar(name).T_base_lidar for name in wanted if manifest.takes_ranges}
        self._output_grid = manifest.output_grid.spec()
        self._lift_grid = manifest.lift_grid.spec()
        self._bins = manifest.range_bins.bins()
        self._times_s = np.asarray(manifest.waypoint_times_s, np.float32)
        self._checker = None
        if "trajectory" in manifest.tasks and (tasks is None or "trajectory" in tasks):
            settings = path_check or PathCheckSettings(footprint_radius_m=rig.footprint_radius_m)
            self._checker = PathChecker(self._output_grid, get_taxonomy(manifest.taxonomy), settings)
        self._table: _Kept[ProjectionTable] = _Kept(_TABLE_TOLERANCE_RAD, _TABLE_TOLERANCE_M)
        self._unseen: _Kept[NDArray[np.uint8]] = _Kept(_COVERAGE_TOLERANCE_RAD, _COVERAGE_TOLERANCE_M)
        self._state = engine.new_state()

    @property
    def lidars(self) -> tuple[str, ...]:
        """LiDARs whose scans the model is given; none for a model that reads no ranges."""
        return tuple(self._T_base_lidar)

    def warm_up(self) -> None:
        """Answer a frame without light, so that no later one waits for compilers and allocations; then reset."""
        images = {name: CameraImage(name, 0, np.zeros((m.camera.height, m.camera.width, 3), np.uint8))
                  for name, m in self._mounted.items()}
        clouds = {name: PointCloud(name, 0, np.ones((1, 3), np.float32)) for name in self.lidars}
        self.step(SensorFrame(0, images, clouds, T_odom_base=np.eye(4)))
        self.reset("warm_up")

    def step(self, frame: SensorFrame) -> OccupancyResult:
        """One frame.

        Raises:
            BadMessage: `no_image` where the frame has no image of any camera of the rig.
            EngineError: the engine failed.
        """
        names = [name for name in self._mounted if name in frame.images]
        if not names:
            raise BadMessage("no_image", f"none of {', '.join(self._mounted)} gave an image", where="frame")
        watch = _Stopwatch()
        flags = {CAMERA_MISSING + name for name in self._mounted if name not in names}
        T_odom_grid, T_grid_base = None, np.eye(4)
        if frame.T_odom_base is None:
            flags.add(NO_ODOMETRY)
        else:
            T_odom_grid = se3.gravity_aligned(frame.T_odom_base)
            T_grid_base = se3.invert(T_odom_grid) @ frame.T_odom_base
        exposures = [frame.T_anchor_exposure.get(name) for name in names]
        table, unseen = self._geometry(names, T_grid_base, exposures)
        images = self._images([frame.images[name].pixels for name in names])
        watch.lap("tables")
        inputs: dict[str, NDArray[Any]] = {
            "images": images, "rows": table.rows, "bins": table.bins, "weights": table.weights
        }
        lidars = [name for name in self._T_base_lidar if name in frame.clouds]
        if self._manifest.takes_ranges:
            inputs["ranges"] = self._ranges(names, exposures, [frame.clouds[name] for name in lidars])
            missing = {LIDAR_MISSING + name for name in self._T_base_lidar if name not in lidars}
            flags |= missing if lidars or not missing else {NO_LIDAR}
            watch.lap("ranges")
        outputs, self._state = self._engine.run(inputs, self._state)
        watch.lap("engine")
        labels = outputs["labels"]
        np.bitwise_or(labels, unseen, out=labels)
        grid = VoxelGrid(
            spec=self._output_grid,
            stamp_ns=frame.stamp_ns,
            labels=labels.transpose(),
            confidence=outputs["confidence"].transpose() if "confidence" in outputs else None,
            taxonomy=self._manifest.taxonomy,
            model_id=self._manifest.model_id,
            T_odom_grid=T_odom_grid,
            sensor_stamps_ns={name: stamp_ns for name, stamp_ns in frame.sensor_stamps_ns().items()
                              if name in names or name in lidars},
            flags=frozenset(flags),
        )
        watch.lap("post")
        trajectory = None
        if self._checker is not None:
            waypoints_m = outputs["waypoints"]
            trajectory = Trajectory(frame.stamp_ns, waypoints_m, self._times_s,
                                    self._checker.check(grid.labels, waypoints_m))
            watch.lap("path")
        return OccupancyResult(grid, trajectory, watch.laps_ms | {"total": sum(watch.laps_ms.values())})

    def reset(self, reason: str) -> None:
        """Forget what was kept from frame to frame; counted by reason in `resets`."""
        self.resets[reason] += 1
        self._state = self._engine.new_state()
        self._table.clear()
        self._unseen.clear()

    def _geometry(
        self, names: Sequence[str], T_grid_base: Matrix, exposures: Sequence[Matrix | None]
    ) -> tuple[ProjectionTable, NDArray[np.uint8]]:
        """The projection table, and 255 in every cell (message order) that no camera sees."""
        mounted = [self._mounted[name] for name in names]
        matrices = np.stack([T_grid_base, *[np.eye(4) if motion is None else motion for motion in exposures]])

        def make_table() -> ProjectionTable:
            return projection_table(
                mounted, self._lift_grid, self._bins, self._manifest.feature_size,
                input_size=self._manifest.image_size, T_grid_base=T_grid_base, T_anchor_exposure=exposures,
                hits=min(self._manifest.maximum_hits, len(names)),
            )

        table = self._table.get(tuple(names), matrices, make_table)
        unseen = self._unseen.get(tuple(names), matrices[:1], lambda: self._unseen_cells(mounted, T_grid_base))
        return table, unseen

    def _ranges(self, names: Sequence[str], exposures: Sequence[Matrix | None],
                clouds: Sequence[PointCloud]) -> NDArray[np.float32]:
        """What the scans measured in each feature pixel; zeros without any."""
        if not clouds:
            return np.zeros((len(names), *self._manifest.feature_size), np.float32)
        points_m = np.concatenate([_moved(cloud.points_m, self._T_base_lidar[cloud.lidar]) for cloud in clouds])
        return range_image(points_m, [self._mounted[name] for name in names], self._manifest.feature_size,
                           input_size=self._manifest.image_size, T_anchor_exposure=exposures)

    def _unseen_cells(self, mounted: Sequence[MountedCamera], T_grid_base: Matrix) -> NDArray[np.uint8]:
        seen = coverage(mounted, self._output_grid, T_grid_base).transpose()
        return np.where(seen, np.uint8(0), np.uint8(UNKNOWN))

    def _images(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """uint8 [cameras, H, W, 3] of the engine's size; one image of that size is not copied."""
        height, width = self._manifest.image_size
        fitted = [
            image if image.shape[:2] == (height, width)
            else np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            for image in pixels
        ]
        return np.ascontiguousarray(fitted[0])[None] if len(fitted) == 1 else np.stack(fitted)


@jit
def _moved(points: Any, T: Any) -> Any:
    """`se3.apply` on float32 [N, 3] without BLAS, whose threads cost more than they save where others work too."""
    moved = np.empty_like(points)
    for i in range(len(points)):
        for row in range(3):
            moved[i, row] = (T[row, 0] * points[i, 0] + T[row, 1] * points[i, 1] + T[row, 2] * points[i, 2]
                             + T[row, 3])
    return moved


class _Stopwatch:
    """Milliseconds from lap to lap."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a lap and begin the next one."""
        now_s = time.perf_counter()
        self.laps_ms[name], self._last_s = 1e3 * (now_s - self._last_s), now_s


@dataclass
class _Kept(Generic[_Value]):
    """A value that is made anew once the key differs or a matrix moved by more than the tolerance."""

    tolerance_rad: float
    tolerance_m: float
    made_for: tuple[tuple[str, ...], Matrix] | None = None
    value: _Value | None = field(default=None)

    def get(self, key: tuple[str, ...], matrices: Matrix, make: Callable[[], _Value]) -> _Value:
        """The kept value, or a new one for `matrices` [N, 4, 4]."""
        if self.value is None or self.made_for is None or self.made_for[0] != key or self._moved(matrices):
            self.value, self.made_for = make(), (key, matrices)
        return self.value

    def clear(self) -> None:
        """Forget the value."""
        self.value = self.made_for = None

    def _moved(self, matrices: Matrix) -> bool:
        assert self.made_for is not None
        change = np.abs(matrices - self.made_for[1])
        return bool(change[:, :3, :3].max() > self.tolerance_rad or change[:, :3, 3].max() > self.tolerance_m)
