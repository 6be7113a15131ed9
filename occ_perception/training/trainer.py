"""One step of any training, and everything that a checkpoint holds: network, average, optimiser, place in the schedule.

What is trained comes from outside: a network, and a module that gives the losses of its outputs. Which batches are
made, what is validated and when checkpoints are written is decided by `runner.run`.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from occ_perception.errors import TrainingError
from occ_perception.training import distributed
from occ_perception.training.checkpoint import (
    NETWORK,
    differences,
    load_tensors,
    load_weights,
    part,
    save_tensors,
    with_defaults,
)
from occ_perception.training.config import RunConfig
from occ_perception.training.precision import bfloat16_products
from occ_perception.training.schedule import learning_rate_factor

Tensors = dict[str, Tensor]
Batch = tuple[Tensors, Tensors]
"""Inputs (the network's arguments by name) and targets (what the losses take)."""
WEIGHTS, LOSS, OPTIMISER = "weights/", "loss/", "optimiser/"
"""Prefixes of a checkpoint's tensors, beside `NETWORK` for the average."""
REMEMBERED = 0.98
"""Decay of the running losses: they are means over about the last 50 steps."""
START_ANEW = "Resume with the configuration of the first run, or name another output folder"


class NotFinite(TrainingError):  # noqa: N818  (a loss is not finite; the runner says for which samples)
    """A loss or a gradient that is not finite; parameters are as before the step."""


class Trainer:
    """AdamW with warm-up, clipping and mixed precision on a network, and the running average of its weights.

    Args:
        network: its arguments are a batch's inputs; the average starts as its copy.
        loss: called with (outputs, targets), gives losses by name with the one to minimise under `total`. Its buffers
            are in the checkpoint. Of several processes each must divide by counts averaged with `distributed.average`.
        config: of the training; `config.to_dict()["network"]` goes into the checkpoint as the sizes of the network.
        data: by name of a split or file what identifies it, such as version and content hash.
        commit: of the code at the start.

    Attributes:
        step, elapsed_s: place in the schedule.
        recent: the running losses, by name.
    """

    def __init__(self, network: nn.Module, loss: nn.Module, config: RunConfig, *,
                 data: Mapping[str, Mapping[str, Any]] | None = None, commit: str | None = None) -> None:
        self.config, self.device = config, distributed.own_device(config.device)
        self.data, self.commit = dict(data or {}), commit
        self.step, self.elapsed_s = 0, 0.0
        self.recent: dict[str, float] = {}
        self.network = _channels_last(network.to(self.device))
        self.loss = loss.to(self.device)
        self.average = copy.deepcopy(self.network).eval()
        distributed.synchronise(self.network)
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.AdamW(
            [{"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": config.weight_decay},
             {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0}],
            lr=config.learning_rate, fused=True,
        )

    @property
    def progress(self) -> float:
        """Part of the schedule that is done, 0 to 1."""
        parts = [0.0]
        if self.config.steps is not None:
            parts.append(self.step / self.config.steps)
        if self.config.max_minutes is not None:
            parts.append(self.elapsed_s / (60.0 * self.config.max_minutes))
        return min(1.0, max(parts))

    def train_step(self, inputs: Tensors, targets: Tensors) -> dict[str, float]:
        """One step of the optimiser; the losses before it, over the batches of all processes.

        Raises:
            NotFinite: the loss or its gradient is not finite; parameters are as before the step.
        """
        self.network.train()
        rate = self.config.learning_rate * learning_rate_factor(
            self.progress, self.config.warmup, self.config.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with bfloat16_products(self.device.type, self.config.bfloat16):
            outputs = self.network(**self._here(inputs))
        losses = self.loss(outputs, self._here(targets))
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        distributed.average_gradients(self.parameters)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip))
        means = distributed.average(torch.stack([value.detach().float() for value in losses.values()]))
        values: dict[str, float] = dict(zip(losses, means.tolist(), strict=True))
        if not math.isfinite(values["total"]) or not math.isfinite(norm):
            raise NotFinite(f"losses {values}, gradient norm {norm}", where=f"step {self.step}")
        self.optimiser.step()
        self.step += 1
        self._update_average()
        values |= {"gradient_norm": norm, "learning_rate": rate}
        self.recent = {name: REMEMBERED * self.recent.get(name, value) + (1 - REMEMBERED) * value
                       for name, value in values.items()}
        return values

    def _here(self, tensors: Tensors) -> Tensors:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}

    def _update_average(self) -> None:
        # Early weights are forgotten fast, else the average would drag the initialisation along.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
            for kept, new in pairs:
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from: the data, the commit at which the training began, configuration and steps."""
        return {"data": self.data, "commit": self.commit, "steps": self.step, "seed": self.config.seed,
                "training": self.config.to_dict()}

    def save(self, path: Path) -> None:
        """Write everything to `path`; see `restore`. Of several processes the first one writes.

        Raises:
            TrainingError: the disk does not take it; a checkpoint that was there stays whole.
        """
        if distributed.rank() != 0:
            return
        tensors = {NETWORK + name: value for name, value in self.average.state_dict().items()}
        tensors |= {WEIGHTS + name: value for name, value in self.network.state_dict().items()}
        tensors |= {LOSS + name: value for name, value in self.loss.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{OPTIMISER}{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        settings = self.config.to_dict()
        save_tensors(path, tensors, {
            "network": settings["network"], "training": settings, "step": self.step, "elapsed_s": self.elapsed_s,
            "recent": self.recent, "provenance": self.provenance(),
        })

    def restore(self, path: Path) -> None:
        """Go on where the training that wrote `path` was.

        Raises:
            TrainingError: it was another training, of another network, or on other data: what differs is named.
        """
        tensors, header = load_tensors(path)
        self._require_same_training(header, path)
        for prefix, module in ((NETWORK, self.average), (WEIGHTS, self.network), (LOSS, self.loss)):
            load_weights(module, part(tensors, prefix), where=str(path), fix=START_ANEW)
        state = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        state["state"] = {
            index: {key: self._like(parameter, tensors[f"{OPTIMISER}{index}/{key}"])
                    for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, parameter in enumerate(parameters) if f"{OPTIMISER}{index}/step" in tensors
        }
        self.optimiser.load_state_dict(state)
        self.step, self.elapsed_s = int(header["step"]), float(header["elapsed_s"])
        self.recent = dict(header.get("recent", {}))  # older checkpoints have none
        self.commit = header.get("provenance", {}).get("commit") or self.commit

    @staticmethod
    def _like(parameter: Tensor, value: Tensor) -> Tensor:
        # In the memory format of its parameter; the count of steps is a number.
        return torch.empty_like(parameter).copy_(value) if value.ndim else value

    def _require_same_training(self, header: Mapping[str, Any], path: Path) -> None:
        if "training" not in header:
            raise TrainingError("is no checkpoint of a training", where=str(path), fix=START_ANEW)
        defaults = type(self.config)(data=self.config.data, output=self.config.output, steps=1).to_dict()
        mine, theirs = ({key: value for key, value in settings.items() if key not in self.config.FREE}
                        for settings in (json.loads(json.dumps(self.config.to_dict())),
                                         with_defaults(header["training"], json.loads(json.dumps(defaults)))))
        if different := differences(theirs, mine):
            raise TrainingError(f"was written with another configuration: {'; '.join(different)}", where=str(path),
                                fix=START_ANEW)
        stored, own = ({name: about for name, about in data.items() if name not in self.config.watched}
                       for data in (header.get("provenance", {}).get("data", {}), self.data))
        if different := differences(stored, json.loads(json.dumps(own))):
            raise TrainingError(f"was trained on other data: {'; '.join(different)}", where=str(path),
                                fix="Resume with the data of the first run, or name another output folder")


def _channels_last(network: nn.Module) -> nn.Module:
    """Weights of 2D convolutions in the memory format that processors convolve fastest in."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
