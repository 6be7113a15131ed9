"""What a bag holds near a given stamp: the ground truth, and the images and poses that belong to a result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage
from occ_perception.pipelines import OdometryBuffer
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import (
    decode_image,
    decode_odometry,
    decode_trajectory,
    decode_voxel_grid,
    stamp_ns,
)
from occ_perception.recordings.frames import (
    TRUTH_OCCUPANCY_TOPIC,
    TRUTH_TRAJECTORY_TOPIC,
    sensor_events,
)
from occ_perception.types import Trajectory, VoxelGrid

TOLERANCE_S = 0.01
"""Truth this near to a result's stamp describes it: a tenth of the time between frames at 10 Hz."""


@dataclass(frozen=True)
class Truth:
    """What is known to be right at one instant."""

    grid: VoxelGrid
    trajectory: Trajectory | None

    @property
    def visible(self) -> NDArray[np.bool_] | None:
        """bool [nx, ny, nz]: cells that the sensors saw; None where the recording does not tell."""
        return None if self.grid.confidence is None else self.grid.confidence > 127


class TruthStream:
    """Walks through the ground truth of a bag. Ask for stamps in rising order: what lies behind is forgotten.

    Raises:
        RecordingError: the bag has no ground truth; the message lists the topics it has.
    """

    def __init__(self, reader: BagReader, tolerance_s: float = TOLERANCE_S) -> None:
        reader.require([TRUTH_OCCUPANCY_TOPIC])
        topics = [TRUTH_OCCUPANCY_TOPIC, *({TRUTH_TRAJECTORY_TOPIC} & reader.topics.keys())]
        self._messages = reader.messages(topics)
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._grids: deque[Any] = deque()
        self._paths: dict[int, Any] = {}

    def at(self, stamp: int) -> Truth | None:
        """The truth nearest to `stamp` within the tolerance, or None."""
        self._advance(stamp + self._tolerance_ns)
        while self._grids and stamp_ns(self._grids[0].header) < stamp - self._tolerance_ns:
            self._paths.pop(stamp_ns(self._grids.popleft().header), None)
        near = [message for message in self._grids if stamp_ns(message.header) <= stamp + self._tolerance_ns]
        if not near:
            return None
        message = min(near, key=lambda candidate: abs(stamp_ns(candidate.header) - stamp))
        path = self._paths.get(stamp_ns(message.header))
        return Truth(decode_voxel_grid(message), None if path is None else decode_trajectory(path))

    def _advance(self, until_ns: int) -> None:
        """Read on until a grid later than `until_ns` is at hand, so that what was logged beside earlier ones is too."""
        while not self._grids or stamp_ns(self._grids[-1].header) <= until_ns:
            item = next(self._messages, None)
            if item is None:
                return
            topic, _, message = item
            if topic == TRUTH_OCCUPANCY_TOPIC:
                self._grids.append(message)
            else:
                self._paths[stamp_ns(message.header)] = message


class SensorStream:
    """Images and poses of a recording at the stamps of results. Ask for stamps in rising order."""

    def __init__(self, reader: BagReader, rig: Rig, tolerance_s: float = TOLERANCE_S) -> None:
        self._events: Iterator[Any] = sensor_events(reader, rig)
        self._offsets_ns = {camera.name: round(camera.time_offset_s * 1e9) for camera in rig.cameras}
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._images: dict[str, deque[tuple[int, Any]]] = {camera.name: deque() for camera in rig.cameras}
        self._odometry = OdometryBuffer()
        self._read_ns = 0

    def at(self, stamp: int) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float64] | None]:
        """Images by camera (RGB, those that decode) and the pose of the base, at `stamp`."""
        ahead_ns = stamp + 10 * self._tolerance_ns  # so that the pose lies between two samples
        while self._read_ns <= ahead_ns and (event := next(self._events, None)) is not None:
            self._take(event)
        images = {}
        for name, queue in self._images.items():
            while queue and queue[0][0] < stamp - self._tolerance_ns:
                queue.popleft()
            if queue and queue[0][0] <= stamp + self._tolerance_ns:
                try:
                    images[name] = decode_image(queue[0][1])
                except BadMessage:
                    continue
        return images, self._odometry.pose_at(stamp)

    def _take(self, event: Any) -> None:
        if event.kind == "image":
            corrected_ns = event.stamp_ns + self._offsets_ns[event.sensor]
            self._images[event.sensor].append((corrected_ns, event.message))
            self._read_ns = max(self._read_ns, corrected_ns)
        elif event.kind == "odometry":
            try:
                self._odometry.push(decode_odometry(event.message))
            except BadMessage:
                return
