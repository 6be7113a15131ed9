"""Functions of the step alone: the learning rate, and which samples a step takes."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

Schedule = Literal["cosine", "step"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def learning_rate_factor(progress: float, warmup: float, schedule: Schedule = "cosine") -> float:
    """Linear warm-up, then a cosine to zero or steps of x0.1 at 2/3 and 8/9 of the rest; `progress` from 0 to 1.

    The steps are where detectors of 24 epochs have them, after epochs 16 and 22 (rounded: MMDetection's `2x`).
    """
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / (1.0 - warmup))
    if schedule == "step":
        return 1.0 if rest < 2 / 3 else 0.1 if rest < 8 / 9 else 0.01
    return 0.5 * (1.0 + math.cos(math.pi * rest))


def batch_indices(step: int, count: int, batch_size: int, seed: int, stream: int = 0) -> list[int]:
    """Samples of one step: every epoch is a permutation of all `count`, drawn from (seed, epoch, stream).

    Args:
        stream: tells apart the orders of several data sets that are mixed.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {epoch: np.random.default_rng([seed, epoch, 0, stream]).permutation(count)
              for epoch in {p // count for p in positions}}
    return [int(orders[p // count][p % count]) for p in positions]
