"""The engine benchmark compares variants by ratios."""

from __future__ import annotations

from pathlib import Path

import pytest

from occ_perception.engines import load_manifest
from occ_perception.engines.bench import bench_engines


def test_every_variant_is_measured_and_the_last_is_the_reference(folder: Path) -> None:
    (row,) = bench_engines(load_manifest(folder), runs=5, threads=1)
    assert (row["variant"], row["provider"], row["threads"]) == ("fp32", "CPUExecutionProvider", 1)
    assert row["speed_up"] == pytest.approx(1.0)
    assert 0 < row["minimum_ms"] <= row["median_ms"] <= row["p95_ms"]  # type: ignore[operator]
