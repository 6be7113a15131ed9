"""How fast the variants of a model run, measured side by side so that a busy machine slows them alike."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np

from occ_perception.engines.load import load_engine
from occ_perception.engines.manifest import Manifest


def bench_engines(manifest: Manifest, *, runs: int = 30, threads: int | None = None) -> list[dict[str, object]]:
    """Latency of every variant that suits the CPU, one camera, random inputs; the variants take turns.

    Returns:
        Per variant its description, `median_ms`, `p95_ms`, `minimum_ms`, and `speed_up` against the last variant
        in the manifest (ratio of medians).
    """
    names = [name for name, variant in manifest.variants.items() if "cpu" in variant.devices]
    engines = {name: load_engine(manifest, device="cpu", variant=name, threads=threads) for name in names}
    inputs = random_inputs(manifest)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for engine in engines.values():
        engine.run(inputs, engine.new_state())
    for _ in range(runs):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.run(inputs, engine.new_state())
            seconds[name].append(time.perf_counter() - began)
    reference = float(np.median(seconds[names[-1]]))
    return [
        {
            **asdict(engines[name].describe()),
            "median_ms": 1e3 * float(np.median(taken)),
            "p95_ms": 1e3 * float(np.percentile(taken, 95)),
            "minimum_ms": 1e3 * min(taken),
            "speed_up": reference / float(np.median(taken)),
        }
        for name, taken in seconds.items()
    ]


def random_inputs(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of one camera and one hit: a random image, a random but valid table, and ranges where they are taken."""
    rng = np.random.default_rng(seed)
    samples = manifest.lift_grid.spec().size
    pixels = manifest.feature_size[0] * manifest.feature_size[1]
    inputs: dict[str, np.ndarray] = {
        "images": rng.integers(0, 256, (1, *manifest.image_size, 3), dtype=np.uint8),
        "rows": rng.integers(0, pixels, (1, samples), dtype=np.int32),
        "bins": rng.integers(0, manifest.range_bins.bins().count, (1, samples), dtype=np.int32),
        "weights": np.ones((1, samples), np.float32),
    }
    if manifest.takes_ranges:
        ranges_m = rng.uniform(0, manifest.range_bins.maximum_m, (1, *manifest.feature_size))
        inputs["ranges"] = ranges_m.astype(np.float32)
    return inputs
