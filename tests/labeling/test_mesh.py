"""Poisson meshing is an extra: it says what it lacks, and where open3d is installed it gives back the surfaces."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.labeling.accumulate import Scene, accumulate
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.mesh import PoissonSettings, meshed
from occ_perception.taxonomy import Sidewalk

SPEC = VoxelGridSpec((0.0, -3.0, -1.0), (6.0, 3.0, 2.0), 0.1)


def yard() -> Scene:
    """Ground, and a wall at x = 4 with a hole of 0.3 m that no ray has met."""
    x, y = np.meshgrid(np.arange(0.5, 4.0, 0.05), np.arange(-2.5, 2.5, 0.05))
    ground = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    y, z = np.meshgrid(np.arange(-2.5, 2.5, 0.05), np.arange(0.05, 1.9, 0.05))
    wall = np.column_stack([np.full(y.size, 4.0), y.ravel(), z.ravel()])
    wall = wall[np.abs(wall - [4.0, 0.0, 1.0]).max(axis=1) > 0.15]
    points = np.concatenate([ground, wall]).astype(np.float32)
    labels = np.repeat(np.array([Sidewalk.ROAD, Sidewalk.WALL], np.uint8), [len(ground), len(wall)])
    frame = LabelFrame(stamp_ns=0, images={}, points_m=points, sensor_m=np.array([[0.0, 0.0, 1.0]]),
                       point_sensor=np.zeros(len(points), np.uint8), T_world_base=np.eye(4))
    return accumulate([frame], [labels], SPEC)


def test_without_open3d_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(OccPerceptionError, match=r"occ_perception\[mesh\]"):
        meshed(yard())


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoissonSettings(trimmed=1.0, reach_m=0.0)
    assert len(caught.value.faults) == 2


def test_the_mesh_lies_on_the_wall_and_closes_its_hole() -> None:
    pytest.importorskip("open3d")
    solids = meshed(yard()).solids
    assert np.median(np.abs(solids.points_m[:, 0] - 4.0)) < 0.02
    assert set(solids.labels) == {Sidewalk.WALL}
    assert (np.abs(solids.points_m - [4.0, 0.0, 1.0]).max(axis=1) < 0.1).any()
