"""What a frame costs outside the engine: decoding, tables and coverage anew, and what follows the engine."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.engines import EngineDescription, Manifest, State
from occ_perception.geometry import se3
from occ_perception.pipelines.frames import FrameAssembler, synchroniser_for
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.pipelines.occupancy import OccupancyPipeline
from occ_perception.recordings import MessageEncoder, make
from occ_perception.types import Odometry, PointCloud

_PERIOD_NS = 100_000_000


def bench_outside_engine(manifest: Manifest, rig: Rig, *, frames: int = 60, swaying: bool = True) -> dict[str, float]:
    """Median milliseconds per frame of each stage, with an engine that costs nothing and JPEG images at 10 Hz.

    A model that reads LiDAR ranges is given a scan of 65,536 points, undecoded, with every image.

    Args:
        swaying: the body tilts by a degree and more from frame to frame, so that tables and coverage are made anew
            for every frame; else they are made once.

    Returns:
        `synchronise`, `assemble` (decoding, pose), the stages of the pipeline but the engine, and `outside_engine`,
        the sum of all per frame.
    """
    engine = InstantEngine(manifest)
    odometry = OdometryBuffer()
    assembler, pipeline = FrameAssembler(rig, odometry), OccupancyPipeline(engine, manifest, rig)
    synchroniser = synchroniser_for(rig, lidars=pipeline.lidars)
    messages: dict[str, Any] = {name: _scan(name) for name in pipeline.lidars}
    messages |= {camera.name: _jpeg(camera.height, camera.width) for camera in rig.cameras}
    taken: dict[str, list[float]] = {}
    for i in range(1, frames + 3):
        stamp_ns = i * _PERIOD_NS
        tilt = np.sin(0.7 * i) if swaying else 0.0
        odometry.push(Odometry(stamp_ns, se3.from_euler(0.04 * tilt, 0.03 * tilt, 0.01 * i, (0.1 * i, 0.0, 0.0))))
        began = perf_counter()
        complete = [out for name, message in messages.items()
                    for out in synchroniser.push(name, stamp_ns, copy(message))]  # another one for every frame
        synchronised = perf_counter()
        frame = assembler.assemble(complete[0])
        assembled = perf_counter()
        timings_ms = pipeline.step(frame).timings_ms
        stages = {"synchronise": 1e3 * (synchronised - began), "assemble": 1e3 * (assembled - synchronised)}
        stages |= {name: value for name, value in timings_ms.items() if name not in ("engine", "total")}
        if i > 2:  # the first frames compile
            for name, value in [*stages.items(), ("outside_engine", sum(stages.values()))]:
                taken.setdefault(name, []).append(value)
    return {name: float(np.median(values)) for name, values in taken.items()}


class InstantEngine:
    """An engine that answers at once with free space: for measuring what is around it, and for tests."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._shape = manifest.output_grid.spec().shape[::-1]

    def bind(self, constants: Mapping[str, NDArray[Any]]) -> None:
        """Takes nothing."""

    def new_state(self) -> State:
        """No memory."""
        return State()

    def run(self, inputs: Mapping[str, NDArray[Any]], state: State) -> tuple[dict[str, NDArray[Any]], State]:
        """Free space everywhere."""
        return {
            "labels": np.zeros(self._shape, np.uint8), "confidence": np.zeros(self._shape, np.uint8),
            "waypoints": np.zeros((len(self.manifest.waypoint_times_s), 2), np.float32),
        }, state

    def warm_up(self, **lengths: int) -> float:
        """Nothing to warm up."""
        return 0.0

    def describe(self) -> EngineDescription:
        """An engine that is none."""
        return EngineDescription(self.manifest.model_id, "none", "none", "cpu", "fp32", "none", 0.0)


def _scan(lidar: str) -> Any:
    """A message with a sweep of 64 x 1024 points of a room."""
    azimuth, sine = np.meshgrid(np.linspace(-np.pi, np.pi, 1024, endpoint=False), np.linspace(-0.4, 0.3, 64))
    rays = np.stack([np.cos(azimuth), np.sin(azimuth), sine], axis=-1).reshape(-1, 3)
    points_m = (rays * np.random.default_rng(0).uniform(1.0, 10.0, (len(rays), 1))).astype(np.float32)
    times_ns = np.linspace(-_PERIOD_NS, 0, len(points_m)).astype(np.int64)
    return MessageEncoder(make).point_cloud(PointCloud(lidar, _PERIOD_NS, points_m, time_ns=times_ns))


def _jpeg(height: int, width: int) -> SimpleNamespace:
    """A message with a JPEG of soft random texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return SimpleNamespace(format="jpeg", data=cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
