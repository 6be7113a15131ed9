"""The reference figures of the field's own evaluators, on their seeded scenes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from occ_perception.geometry import ROAD_GRID
from occ_perception.metrics import DepthErrors, OccSTQ, OccupancyIoU, RayIoU

ORACLE = Path(__file__).resolve().parents[2] / ".." / "shared" / "oracle"

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not (ORACLE / "expected.json").exists(), reason="no reference figures beside the repository"),
]


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_scenes", ORACLE / "scenes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["1", "2", "3"])
def seed(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(seed: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ORACLE / "expected.json").read_text())[seed]
    return figures


def close(got: Any, want: Any) -> bool:
    return bool(np.allclose(np.asarray(got, float), np.asarray(want, float), rtol=0, atol=1e-5, equal_nan=True))


@pytest.mark.parametrize("key", ["ssc", "ssc_visible"])
def test_occupancy_iou(scenes: ModuleType, seed: str, expected: dict[str, Any], key: str) -> None:
    target, prediction, visible = scenes.occupancy_pair(int(seed))
    metric = OccupancyIoU(14)
    metric.update(prediction, target, visible if key == "ssc_visible" else None)
    scores, want = metric.compute(), expected[key]
    assert close([scores[k] for k in ("iou", "precision", "recall", "miou")],
                 [want[k] for k in ("iou", "precision", "recall", "iou_ssc_mean")])
    assert close(scores["per_class"], want["iou_ssc"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_ray_iou(scenes: ModuleType, seed: str, expected: dict[str, Any], order: str) -> None:
    scene, want = scenes.ray_pair(int(seed)), expected["ray"]
    metric = RayIoU(ROAD_GRID, 17, 16, range(8))
    grids = [np.asarray(scene[name], order=order) for name in ("prediction", "target")]
    metric.update(*grids, scene["origins"], scene["flow_prediction"], scene["flow_target"])
    scores = metric.compute()
    assert scores["rays"] == want["valid_rays"]
    for name in ("rayiou", "rayiou_1m", "rayiou_2m", "rayiou_4m", "mave", "occ_score", "ave_per_class"):
        assert close(scores[name], want[name]), name
    per_class = scores["per_class_2m"]
    assert isinstance(per_class, list)
    assert close(per_class[:16], want["per_class_2m"])


@pytest.mark.parametrize(("key", "published"), [("occstq", False), ("occstq_published_code", True)])
def test_occstq(scenes: ModuleType, seed: str, expected: dict[str, Any], key: str, published: bool) -> None:
    scene, want = scenes.panoptic_sequence(int(seed)), expected[key]
    metric = OccSTQ(16, (0, 1, 2), 15, published=published)
    for t, visible in enumerate(scene["visible"]):
        metric.update(*(scene[name][t] for name in ("sem_prediction", "ins_prediction", "sem_target", "ins_target")),
                      visible, sequence="only")
    scores = metric.compute()
    for name, value in want.items():
        assert close(scores[name], value), name


def test_depth(scenes: ModuleType, seed: str, expected: dict[str, Any]) -> None:
    target, prediction = scenes.depth_pair(int(seed))
    metric = DepthErrors()
    metric.update(prediction, target)
    scores = metric.compute()
    for name, value in expected["depth"].items():
        assert close(scores[name], value), name
