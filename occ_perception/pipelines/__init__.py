"""From sensor messages to results: synchroniser, odometry, deskew, frames, occupancy, check of paths. No ROS."""

from __future__ import annotations

from occ_perception.pipelines.deskew import deskew
from occ_perception.pipelines.frames import FrameAssembler, synchroniser_for
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.pipelines.occupancy import OccupancyPipeline, OccupancyResult
from occ_perception.pipelines.planning import PathChecker, PathCheckSettings
from occ_perception.pipelines.synchroniser import SyncedSet, Synchroniser

__all__ = [
    "FrameAssembler",
    "OccupancyPipeline",
    "OccupancyResult",
    "OdometryBuffer",
    "PathCheckSettings",
    "PathChecker",
    "SyncedSet",
    "Synchroniser",
    "deskew",
    "synchroniser_for",
]
