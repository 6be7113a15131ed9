"""What every metric shares: ratios without division by zero, checks of shapes, and the rule for merging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ConfigurationError, ShapeError

Scores = dict[str, "float | list[float]"]
"""What `compute` returns: fractions in 0..1 unless a unit is in the name; NaN where nothing was measured."""


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """`part / whole`, NaN where `whole` is 0."""
    above, below = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def mean(values: ArrayLike) -> float:
    """Mean of the values that are not NaN; NaN when there are none."""
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if numbers.size else float("nan")


def require_same_shape(where: str, **arrays: NDArray[Any] | None) -> None:
    """Raise ShapeError unless all given arrays have one shape."""
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1:
        raise ShapeError("arrays must have one shape, got " + ", ".join(f"{n} {s}" for n, s in shapes.items()),
                         where=where)


def require_mergeable(one: Any, other: Any, settings: Iterable[str]) -> None:
    """Raise ConfigurationError unless `other` is the same metric with the same settings."""
    if type(one) is not type(other):
        raise ConfigurationError([f"cannot merge {type(other).__name__} into {type(one).__name__}"])
    faults = [f"{name}: {getattr(one, name)} and {getattr(other, name)}"
              for name in settings if getattr(one, name) != getattr(other, name)]
    if faults:
        raise ConfigurationError(faults, where=f"merging {type(one).__name__}",
                                 fix="Merge only scores made with the same settings.")


def require_classes(where: str, num_classes: int, free: int, named: Iterable[int] = ()) -> None:
    """Raise ConfigurationError unless all ids are classes and small enough for a uint8 label."""
    faults = [] if 1 < num_classes <= 254 else [f"num_classes must be 2..254, got {num_classes}"]
    faults += [f"id {i} is outside 0..{num_classes - 1}" for i in (free, *named) if not 0 <= i < num_classes]
    if faults:
        raise ConfigurationError(faults, where=where)


def common_order(*arrays: NDArray[Any]) -> Literal["C", "F"]:
    """The order of elements in which the arrays can be flattened alike, without a copy where that is possible."""
    return "F" if all(array.flags.f_contiguous for array in arrays) else "C"
