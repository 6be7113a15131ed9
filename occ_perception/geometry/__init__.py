"""Geometry without ROS, torch or sensors: camera models, SE(3), voxel grids, projection tables, ray casting."""

from occ_perception.geometry.cameras import MODELS, Camera, make_camera
from occ_perception.geometry.grid import LIFT_GRID, ROAD_GRID, SIDEWALK_GRID, VoxelGridSpec
from occ_perception.geometry.tables import MountedCamera, ProjectionTable, RangeBins, coverage, projection_table

__all__ = [
    "LIFT_GRID", "MODELS", "ROAD_GRID", "SIDEWALK_GRID", "Camera", "MountedCamera", "ProjectionTable", "RangeBins",
    "VoxelGridSpec", "coverage", "make_camera", "projection_table",
]
