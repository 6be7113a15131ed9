"""Several processes as one training, started by `torchrun`: each takes its share of every batch.

Losses, gradients and the statistics of batch normalisation are those of the whole batch, so that N processes train what
one process would on the same batch. Without a process group every function here does what one process needs: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from occ_perception.errors import TrainingError

PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one, which alone validates and writes."""

T = TypeVar("T")


def rank() -> int:
    """Number of this process; 0 alone writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_count() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that `torchrun` started, if it did; `device` as in `own_device`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def own_device(device: str) -> torch.device:
    """The device of this process: of `cuda` the GPU with its number on its machine.

    Raises:
        TrainingError: torch sees no such device.
    """
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        own = torch.device(device)
        torch.empty(0, device=own)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"torch cannot use the device {device!r} ({str(error).splitlines()[0]})", where="device",
                            fix="Name another one, such as cpu, or install torch for it") from error
    if own.type == "cuda":
        torch.cuda.set_device(own)
    return own


def average(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes, of any type; without gradients."""
    if process_count() == 1:
        return value
    total = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
    distributed.all_reduce(total)
    return total / process_count()


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, with one exchange.

    A parameter without gradient counts as zero; where no process has one it stays without.
    """
    if process_count() == 1:
        return
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = average(torch.cat([present, *(gradient.flatten() for gradient in gradients)]))
    wanted, *parts = torch.split(flat, [len(parameters), *(p.numel() for p in parameters)])
    for parameter, gradient, part, there in zip(parameters, gradients, parts, wanted.tolist(), strict=True):
        if there:
            parameter.grad = gradient.copy_(part.view(parameter.shape))


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, which alone calls it, in all of them."""
    if process_count() == 1:
        return make()
    box: list[Any] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(box)
    return cast(T, box[0])


class _Sum(torch.autograd.Function):
    """Sum over the processes. Each process's gradient is that of the sum of all their losses."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        total = upstream[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class SynchronisedBatchNorm(_BatchNorm):
    """Batch normalisation with the mean and variance of the whole batch, as torch's own has for GPUs alone.

    Every process must run the same layers in the same order: each is an exchange.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        x = input.float()
        own = x.new_full((1,), x.numel() / x.shape[1])
        sums: Tensor = _Sum.apply(torch.cat([x.sum(axes), own]))  # type: ignore[no-untyped-call]
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean.view(shape)
        squares: Tensor = _Sum.apply(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        variance = squares / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def synchronise(network: nn.Module) -> None:
    """Let every batch normalisation in `network` see the whole batch; names, weights and statistics stay."""
    if process_count() == 1:
        return
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
                shared = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum, child.affine,
                                               child.track_running_stats)
                shared.__dict__.update({key: vars(child)[key] for key in ("_parameters", "_buffers", "training")})
                setattr(module, name, shared)
