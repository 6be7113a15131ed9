"""Weights on disk: safetensors with a JSON header, written beside their place and renamed, so none is ever half."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from occ_perception.datasets.files import new_file
from occ_perception.errors import OccPerceptionError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig

HEADER = "occ_perception"
FEW = 4
"""So many differences are named; the rest is counted."""
DIRTY = "-dirty"
"""Ends the commit of code that was changed since."""
NETWORK = "network/"
"""Prefix of the tensors that make up the deployable network."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, at once or not at all.

    Raises:
        TrainingError: it could not be written, such as on a full disk; a file that was at `path` is as it was.
    """
    # Channels-last and shared tensors are brought into the plain layout that safetensors asks for.
    plain = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    kept = "What was there before is whole; m" if path.is_file() else "M"
    with new_file(path, TrainingError, f"{kept}ake room on the disk, then go on with --resume") as beside:
        try:
            save_file(plain, beside, metadata={HEADER: json.dumps(header)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


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


def load_json(path: Path) -> dict[str, Any] | None:
    """A JSON file with one object, or None where there is none."""
    return dict(json.loads(path.read_text())) if path.is_file() else None


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str, fix: str = "") -> None:
    """Fill `module` with exactly its own tensors.

    Raises:
        TrainingError: names or shapes differ; says which, of many the first few. `module` is unchanged.
    """
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    faults += [f"{name} is not in the network" for name in tensors.keys() - own.keys()]
    faults += [f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
               for name in own.keys() & tensors.keys() if tensors[name].shape != own[name].shape]
    if faults:
        more = f", and {len(faults) - FEW} more" if len(faults) > FEW else ""
        raise TrainingError(f"does not fit the network: {', '.join(sorted(faults)[:FEW])}{more}", where=where, fix=fix)
    module.load_state_dict(tensors)


def differences(theirs: Any, mine: Any, name: str = "") -> list[str]:
    """Each value in which two configurations of plain values differ, as `section.field theirs, not mine`."""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [text for key in keys
                for text in differences(theirs.get(key), mine.get(key), f"{name}.{key}" if name else str(key))]
    return [] if theirs == mine else [f"{name} {_plain(theirs)}, not {_plain(mine)}"]


def with_defaults(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with today's defaults for the fields, also of its sections, that it is older than."""
    sections = {key: with_defaults(stored[key], value) for key, value in defaults.items()
                if isinstance(value, Mapping) and isinstance(stored.get(key), Mapping)}
    return {**defaults, **stored, **sections}


def _plain(value: Any) -> str:
    return "absent" if value is None else value if isinstance(value, str) else json.dumps(value)


def source_commit() -> str | None:
    """The commit this package is checked out at, or None where it is no checkout.

    It ends in `-dirty` where files that git knows are not as they were committed.
    """
    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True,
                                timeout=10, check=False)
        return answer.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + DIRTY * bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
    except (OSError, subprocess.TimeoutExpired):
        return None


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
        load_weights(network, part(tensors, NETWORK), where=str(path))
    except (KeyError, TypeError, OccPerceptionError) as error:
        raise TrainingError(f"holds no WalkOCC network of this version ({error})", where=str(path)) from error
    return network.eval(), dict(header.get("provenance", {}))
