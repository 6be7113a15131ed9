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
"""IoU of every class of a run on a split."""


def invented(run: Run, quality: Quality, sha256: str = "one") -> Result:
    """A result of `SCENES` scenes a split, in which all classes have 1000 voxels a scene and the given IoU."""
    evaluations: dict[str, Any] = {}
    for split in run.row.splits:
        name = split.removesuffix(WITH_LIDAR)
        counts = [[[round(1000 * quality(run, split))] * 14, [1000] * 14]] * SCENES
        collisions = 10 * (0.04 if run.row.trajectory_only else 0.02) * np.arange(1, SCENES + 1) / 3.5
        evaluations[split] = {
            "data": {"version": "1", "content_hash": f"hash of {name}", "frames": 10 * SCENES},
            "scenes": [f"scene {i}" for i in range(SCENES)],
            "navigation": np.stack([np.full(SCENES, 10), collisions, 0 * collisions, 10 - collisions], 1).tolist(),
            "standing": [[10, 0.05, 0.0, 9.9]] * SCENES, "true_navigation": [[10, 0.1, 0.0, 9.9]] * SCENES,
            "true_standing": [[10, 0.0, 0.0, 9.9]] * SCENES, "waypoints": [[5.0, 10]] * SCENES,
            **({"voxels": counts} if name != PATHS else {}), **({"pixels": counts} if name == "embodiments" else {}),
        }
    return {
        "name": run.name, "row": run.row.name, "title": run.row.title, "seed": run.seed, "key": "0123456789abcdef",
        "steps": 600, "minutes": 12.5, "commit": "c0ffee" * 6, "evaluations": evaluations,
        "data": {"train": {"version": "1", "content_hash": "hash of train", "samples": 1800},
                 "trunk-0.safetensors": {"sha256": sha256}},
    }


@pytest.fixture
def invent() -> Callable[[Run, Quality], Result]:
    return invented
