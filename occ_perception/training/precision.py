"""bfloat16 on every processor: by its instructions or, on a CPU that has none, in float32 with the same rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset({
    torch.conv2d, torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__,
})
"""What autocast multiplies in bfloat16, as far as the networks use it."""


def has_bfloat16_instructions(device_type: str) -> bool:
    """Whether products in bfloat16 are fast there; on a CPU without them they are several times slower than in float32,
    also where oneDNN offers them by way of AVX-512."""
    return device_type != "cpu" or any(
        present for name, present in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


@contextmanager
def bfloat16_products(device_type: str, enabled: bool) -> Iterator[None]:
    """Within it products of matrices and convolutions are taken in bfloat16, as by `torch.autocast`.

    A CPU without the instructions computes them in float32 from operands rounded to bfloat16, and rounds the result:
    equal up to the order of summation, in the time of float32. Backward passes follow.

    Args:
        device_type: of torch, `cpu` or `cuda`.
        enabled: False changes nothing.
    """
    with torch.autocast(device_type, torch.bfloat16, enabled=enabled):
        if enabled and not has_bfloat16_instructions(device_type):
            with RoundedProducts():
                yield
        else:
            yield


class RoundedProducts(TorchFunctionMode):
    """Products of float32 arithmetic whose operands and results are rounded to bfloat16."""

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        """`func`, if it is a product with rounding."""
        kwargs = kwargs or {}
        if func not in _PRODUCTS:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            result = func(*map(_rounded, args), **{name: _rounded(value) for name, value in kwargs.items()})
        return result.to(torch.bfloat16)


def _rounded(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(torch.bfloat16).float()
    return value
