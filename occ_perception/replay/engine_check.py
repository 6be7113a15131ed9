"""How fast an engine runs by itself, on empty images of one camera."""

from __future__ import annotations

import time

import numpy as np

from occ_perception.engines import Engine


def timed(engine: Engine, runs: int) -> tuple[float, float]:
    """Median and 95th percentile of `runs` runs after a warm-up, milliseconds."""
    inputs = {spec.name: np.zeros([1 if isinstance(n, str) else n for n in spec.shape], spec.dtype)
              for spec in engine.manifest.inputs}
    engine.warm_up()
    state, times_ms = engine.new_state(), []
    for _ in range(runs):
        began_s = time.perf_counter()
        _, state = engine.run(inputs, state)
        times_ms.append(1e3 * (time.perf_counter() - began_s))
    p50, p95 = np.percentile(times_ms, (50, 95))
    return float(p50), float(p95)
