"""Weights on disk: safetensors with a JSON header, written beside their place and renamed, so none is ever half."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from occ_perception.errors import OccPerceptionError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig

HEADER = "occ_perception"
NETWORK = "network/"
"""Prefix of the tensors that make up the deployable network."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    # Channels-last and shared tensors are brought into the plain layout that safetensors asks for.
    plain = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    try:
        save_file(plain, beside, metadata={HEADER: json.dumps(header)})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of `save_tensors`.

    Raises:
        TrainingError: no such file, no safetensors file, or one that something else wrote.
    """
    if not path.is_file():
        raise TrainingError("no such checkpoint", where=str(path), fix="Train first, or name another file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise TrainingError(f"is no readable safetensors file ({error})", where=str(path)) from error
    if HEADER not in metadata:
        raise TrainingError("was not written by this package's training", where=str(path))
    return tensors, json.loads(metadata[HEADER])


def save_network(path: Path, network: WalkOcc, provenance: Mapping[str, Any]) -> None:
    """A network alone, with its configuration and what is worth knowing about its training."""
    tensors = {NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    save_tensors(path, tensors, {"network": network.config.to_dict(), "provenance": dict(provenance)})


def load_network(path: Path) -> tuple[WalkOcc, dict[str, Any]]:
    """The network (in evaluation mode) and the provenance of a model file or of a training checkpoint.

    Of a checkpoint the averaged weights are taken.
    """
    tensors, header = load_tensors(path)
    try:
        network = WalkOcc(WalkOccConfig.from_dict(header["network"]))
        network.load_state_dict(
            {name.removeprefix(NETWORK): tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
        )
    except (KeyError, TypeError, RuntimeError, OccPerceptionError) as error:
        raise TrainingError(f"holds no WalkOCC network of this version ({error})", where=str(path)) from error
    return network.eval(), dict(header.get("provenance", {}))
