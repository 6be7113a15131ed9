"""Poisson reconstruction of a whole scene, SurroundOcc's way to surfaces, as an alternative to fusing surfels.

It closes what no ray has met between neighbouring returns, at the price of minutes per scene and of rounded edges.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.labeling.accumulate import Scene
from occ_perception.labeling.ground import SAME_LEVEL_M
from occ_perception.labeling.surfels import Surfels

_DEEPEST = 12


@dataclass(frozen=True, kw_only=True)
class PoissonSettings:
    """How a mesh is made.

    Attributes:
        trimmed: share of the vertices that rest on the fewest points and are cut away: Poisson surfaces are closed
            and bulge where nothing was measured.
        reach_m: samples of the mesh farther than this from every point are dropped, for the same reason.
        seed: of the samples.

    Raises:
        ConfigurationError: all faults listed.
    """

    trimmed: float = 0.05
    reach_m: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.trimmed < 1:
            faults.append(f"trimmed must be in [0, 1), got {self.trimmed}")
        if not 0 < self.reach_m < math.inf:
            faults.append(f"reach_m must be positive, got {self.reach_m}")
        if faults:
            raise ConfigurationError(faults, where="PoissonSettings")


def load_open3d() -> Any:
    """The module; raises OccPerceptionError saying how to get it."""
    try:
        return importlib.import_module("open3d")
    except ImportError as error:
        raise OccPerceptionError(f"Poisson meshing needs open3d, which cannot be imported: {error}", where="mesh",
                                 fix="Install the extra `occ_perception[mesh]`, or fuse surfels instead") from None


def meshed(scene: Scene, settings: PoissonSettings | None = None) -> Scene:
    """The scene with its solids taken from a Poisson mesh through solids and ground; the ground stays a height map.

    Raises:
        OccPerceptionError: open3d is not installed.
    """
    open3d = load_open3d()
    settings = settings or PoissonSettings()
    solids = scene.solids
    flat = (solids.normals != 0).any(axis=1)
    points = np.concatenate([solids.points_m[flat], _ground_points(scene)]).astype(float)
    if not flat.any():
        return scene
    upward = np.tile(np.array([0.0, 0.0, 1.0]), (len(points) - int(flat.sum()), 1))
    normals = np.concatenate([_facing_the_way(scene, solids.points_m[flat], solids.normals[flat]), upward])
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.normals = open3d.utility.Vector3dVector(normals)
    depth = min(_DEEPEST, max(4, math.ceil(math.log2(float(np.ptp(points, axis=0).max()) / scene.cell_m))))
    mesh, density = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth)
    density = np.asarray(density)
    mesh.remove_vertices_by_mask(density < np.quantile(density, settings.trimmed))
    open3d.utility.random.seed(settings.seed)
    count = max(1, round(mesh.get_surface_area() / (0.5 * scene.cell_m) ** 2))
    samples = mesh.sample_points_uniformly(count, use_triangle_normal=True)
    found = _labelled(np.asarray(samples.points), np.asarray(samples.normals), scene, settings.reach_m)
    rods = ~flat  # what has no plane (rods, leaves) is no surface and stays as it was measured
    return replace(scene, solids=Surfels(
        np.concatenate([found.points_m, solids.points_m[rods]]),
        np.concatenate([found.normals, solids.normals[rods]]), np.concatenate([found.labels, solids.labels[rods]])))


def _ground_points(scene: Scene) -> NDArray[np.float64]:
    """Centres of the columns of the height map, [K, 3]."""
    ground = scene.ground
    columns = np.argwhere(np.isfinite(ground.height_m))
    xy = ground.corner_m + (columns + 0.5) * ground.column_m
    return np.column_stack([xy, ground.height_m[tuple(columns.T)]])


def _facing_the_way(scene: Scene, points_m: NDArray[np.float32], normals: NDArray[np.float32]) -> NDArray[np.float64]:
    """Normals [M, 3] turned to where the sensors came nearest, from which a surface was seen."""
    way = np.concatenate([frame.sensor_m for frame in scene.frames])
    towards = way[cKDTree(way).query(points_m)[1]] - points_m
    sign = np.where((towards * normals).sum(axis=1) < 0, -1.0, 1.0)
    return np.asarray(normals * sign[:, None], float)


def _labelled(points_m: NDArray[np.float64], normals: NDArray[np.float64], scene: Scene, reach_m: float) -> Surfels:
    """Samples above the ground and near what was measured, with the label of the nearest surfel."""
    distance, nearest = cKDTree(scene.solids.points_m).query(points_m)
    above = ~(np.abs(points_m[:, 2] - scene.ground.height_at(points_m[:, :2])) < SAME_LEVEL_M)
    kept = (distance <= reach_m) & above
    return Surfels(points_m[kept].astype(np.float32), normals[kept].astype(np.float32),
                   scene.solids.labels[nearest[kept]])
