"""Scores: one class each with `update`, `merge` and `compute`. Fractions in 0..1; NaN where nothing was measured."""

from occ_perception.metrics.depth import DepthErrors
from occ_perception.metrics.navigation import NavigationRates, semantic_map
from occ_perception.metrics.occupancy import OccupancyIoU
from occ_perception.metrics.panoptic import PanopticQuality
from occ_perception.metrics.projected import ProjectedSemantics, project_labels
from occ_perception.metrics.rays import RayIoU
from occ_perception.metrics.tracking import OccSTQ

__all__ = [
    "DepthErrors", "NavigationRates", "OccSTQ", "OccupancyIoU", "PanopticQuality", "ProjectedSemantics", "RayIoU",
    "project_labels", "semantic_map",
]
