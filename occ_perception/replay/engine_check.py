"""How fast an engine runs by itself, on empty images of one camera."""

from __future__ import annotations

import time

import numpy as np
from rich.table import Table

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


def engine_table(engine: Engine, runs: int) -> Table:
    """What really runs, and how fast."""
    p50_ms, p95_ms = timed(engine, runs)
    about = engine.describe()
    table = Table(title=about.model_id, show_header=False)
    for name in ("backend", "provider", "device", "variant", "precision", "threads"):
        table.add_row(name, str(getattr(about, name)))
    table.add_row("loaded in", f"{about.build_s:.2f} s")
    table.add_row("one image", f"{p50_ms:.1f} ms (95 %: {p95_ms:.1f} ms) of {runs} runs")
    table.add_row("files", ", ".join(f"{name}: {item.file}" for name, item in engine.manifest.variants.items()))
    return table
