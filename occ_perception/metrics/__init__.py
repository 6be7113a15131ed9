"""Scores: one class each with `update`, `merge` and `compute`. Fractions in 0..1; NaN where nothing was measured."""

from occ_perception.geometry.semantic_map import semantic_map
from occ_perception.metrics._common import ratio
from occ_perception.metrics.bootstrap import Bootstrap, Interval, Resampled, interval, mean_iou
from occ_perception.metrics.depth import DepthErrors
from occ_perception.metrics.navigation import NavigationRates
from occ_perception.metrics.occupancy import OccupancyIoU, relative_miou
from occ_perception.metrics.panoptic import PanopticQuality
from occ_perception.metrics.projected import ProjectedSemantics, project_labels
from occ_perception.metrics.rays import RayIoU
from occ_perception.metrics.tracking import OccSTQ

__all__ = [
    "Bootstrap", "DepthErrors", "Interval", "NavigationRates", "OccSTQ", "OccupancyIoU", "PanopticQuality",
    "ProjectedSemantics", "RayIoU", "Resampled", "interval", "mean_iou", "project_labels", "ratio", "relative_miou",
    "semantic_map",
]
