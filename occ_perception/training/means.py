"""Means over what counts, alike whether a batch lies in one process or is spread over several."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Average = Callable[[Tensor], Tensor]
"""Gives the mean of a count over all processes. Gradients are averaged over them too, so each total divided by this
mean gives the gradient of one mean over everything that counts anywhere."""

SMALLEST_COUNT = 1e-6
"""Below any mean of counts but 0, whose total is 0 as well."""


def own(count: Tensor) -> Tensor:
    """The count as it is: there is one process."""
    return count


def mean_over(total: Tensor, counted: Tensor, average: Average = own) -> Tensor:
    """`total` by the number of true entries of `counted` (bool, any shape); 0 where nothing counts."""
    return total / average(counted.sum().to(total.dtype)).clamp(min=SMALLEST_COUNT)
