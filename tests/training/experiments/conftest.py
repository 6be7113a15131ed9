"""Invented results of runs, with counts that are known, so that tables can be checked without any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from occ_perception.training.experiments.rows import PATHS, WITH_LIDAR
from occ_perception.training.experiments.runs import Result, Run

SCENES = 6
Quality = Callable[[Run, str], float]
"""Mean IoU over the classes of a run on a split."""


def ious(quality: float, all_classes: float) -> list[float]:
    """IoU by entry, all of them different: `all_classes` times the quality at 0, then 0.7 to 1.3 times of it."""
    return [all_classes * quality, *(quality * (1 + 0.05 * (label - 7)) for label in range(1, 14))]


def counts(by_entry: list[float]) -> list[list[int]]:
    """Hits and unions of one scene; no two unions are alike."""
    unions = [100_000 * (1 + entry) for entry in range(len(by_entry))]
    return [[round(union * iou) for union, iou in zip(unions, by_entry, strict=True)], unions]


def invented(run: Run, quality: Quality, sha256: str = "one") -> Result:
    """A result of `SCENES` scenes a split: voxels of the given mIoU and 1.2 times the IoU, pixels of 0.8 and 0.9."""
    evaluations: dict[str, Any] = {}
    for split in run.row.splits:
        name, q = split.removesuffix(WITH_LIDAR), quality(run, split)
        collisions = 10 * (0.04 if run.row.trajectory_only else 0.02) * np.arange(1, SCENES + 1) / 3.5
        grass = np.full(SCENES, 0.03)
        evaluations[split] = {
            "data": {"version": "1", "content_hash": f"hash of {name}", "frames": 10 * SCENES},
            "scenes": [f"scene {i}" for i in range(SCENES)],
            "navigation": np.stack([np.full(SCENES, 10), collisions, grass, 10 - collisions], 1).tolist(),
            "standing": [[10, 0.05, 0.01, 9.9]] * SCENES, "true_navigation": [[10, 0.1, 0.02, 9.8]] * SCENES,
            "true_standing": [[10, 0.04, 0.06, 9.7]] * SCENES, "waypoints": [[5.0, 10]] * SCENES,
            **({"voxels": [counts(ious(q, 1.2))] * SCENES} if name != PATHS else {}),
            **({"pixels": [counts([0.9 * q, *ious(0.8 * q, 1.0)[1:]])] * SCENES} if name == "embodiments" else {}),
        }
    return {
        "name": run.name, "row": run.row.name, "title": run.row.title, "seed": run.seed, "key": "0123456789abcdef",
        "steps": 600, "minutes": 12.5, "commit": "c0ffee" * 6, "torch": "2.0", "evaluations": evaluations,
        "data": {"train": {"version": "1", "content_hash": "hash of train", "samples": 1800},
                 "trunk-0.safetensors": {"sha256": sha256}},
    }


@pytest.fixture
def invent() -> Callable[[Run, Quality], Result]:
    return invented
