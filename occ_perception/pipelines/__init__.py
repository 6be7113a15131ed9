"""From sensor messages to results: synchroniser, odometry, deskew, frames, and the occupancy pipeline. No ROS."""

from __future__ import annotations

from occ_perception.pipelines.deskew import deskew
from occ_perception.pipelines.frames import FrameAssembler, synchroniser_for
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.pipelines.occupancy import OccupancyPipeline, OccupancyResult
from occ_perception.pipelines.synchroniser import SyncedSet, Synchroniser

__all__ = [
    "FrameAssembler",
    "OccupancyPipeline",
    "OccupancyResult",
    "OdometryBuffer",
    "SyncedSet",
    "Synchroniser",
    "deskew",
    "synchroniser_for",
]
