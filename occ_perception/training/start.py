"""A training that starts from an exported model: shipped weights go on learning, on other data or by other losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from occ_perception.engines.manifest import Manifest, load_manifest
from occ_perception.errors import TrainingError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.tables import RangeBins
from occ_perception.networks.walkocc import WalkOcc
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.checkpoint import differences, load_weights
from occ_perception.training.trainer import Tensors

PREFIXES = {"network.": "", "head.": "occupancy."}
"""What names of tensors begin with in an exported graph (`export.graph.WalkOccGraph`) and in the network."""
LIFT_FEATURES, LIFT_TERMS, LIFT_BIAS = "of_features", "of_depth", "bias"
"""What the lift's linear layer is parted into there."""
FIX = "Name a model whose network has these sizes"


def start_from_model(network: WalkOcc, folder: Path, inputs: Tensors) -> None:
    """Give `network` the weights of an exported model.

    Graphs hold no batch normalisation: it is folded into the convolutions. It is put back with the statistics of
    `inputs`, such that the network answers in evaluation mode as the graph does, and nearly so in its first steps. The
    head of image classes, which is not exported, stays as it is; ranges that the model does not take have no say yet.

    Args:
        folder: of the model; its manifest names a variant in float32.
        inputs: of the network, of some samples of the training.

    Raises:
        ManifestError: no readable model is there.
        TrainingError: the model has no float32 variant or is of another network; what differs is named.
    """
    manifest = load_manifest(folder)
    config = network.config
    if manifest.taxonomy != SIDEWALK.name:
        raise TrainingError(f"is a model of the classes {manifest.taxonomy}, not {SIDEWALK.name}", where=str(folder))
    theirs = _sizes(manifest.image_size, manifest.feature_size, manifest.output_grid.spec(), manifest.lift_grid.spec(),
                    manifest.range_bins.bins())
    mine = _sizes(config.image_size, config.feature_size, config.output_grid, config.lift_grid, config.bins)
    if different := differences(theirs, mine):
        raise TrainingError(f"is a model of another network: {'; '.join(different)}", where=str(folder), fix=FIX)
    tensors = _graph_tensors(manifest)
    untouched = ["semantics."]
    if not any(name.startswith("ranges.") for name in tensors):
        untouched.append("ranges.")
    names = {layer: norm for layer, norm in _normalised(network).items() if not layer.startswith(tuple(untouched))}
    norms = {norm: cast(nn.BatchNorm2d, network.get_submodule(norm)) for norm in names.values()}
    weights = {name: tensor for name, tensor in network.state_dict().items()
               if name.startswith(tuple(untouched)) or name.endswith("num_batches_tracked")}
    for layer, norm in names.items():
        if (bias := tensors.pop(f"{layer}.bias", None)) is not None:
            weights |= {f"{norm}.weight": torch.ones_like(bias), f"{norm}.bias": bias,
                        f"{norm}.running_mean": torch.zeros_like(bias),
                        f"{norm}.running_var": torch.full_like(bias, 1 - norms[norm].eps)}
    load_weights(network, weights | tensors, where=str(folder), fix=FIX)
    if "ranges." in untouched and network.ranges is not None:
        nn.init.zeros_(cast(nn.BatchNorm2d, network.ranges.layers[-1][-1]).weight)  # type: ignore[index]
    _take_statistics(network, list(norms.values()), inputs)


def about_model(folder: Path) -> dict[str, Any]:
    """What identifies a model that a training starts from, and all data that it was trained on."""
    manifest = load_manifest(folder)
    training = manifest.training
    data = training.settings.get("data") or {training.data: {"version": training.data_version,
                                                             "content_hash": training.data_hash}}
    return {"version": manifest.version, "sha256": manifest.variants[_float32(manifest)].sha256,
            "commit": training.commit, "steps": training.steps, "data": data}


def _float32(manifest: Manifest) -> str:
    for name, variant in manifest.variants.items():
        if variant.precision == "fp32":
            return name
    raise TrainingError("has no variant in float32 to start from", where=str(manifest.folder),
                        fix="Export the model with it, or start from another")


def _graph_tensors(manifest: Manifest) -> Tensors:
    """The float32 graph's tensors by the network's names; folded normalisation is the `bias` of the layer before it."""
    graph = onnx.load(manifest.path(_float32(manifest))).graph
    found = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    tensors = {own + name.removeprefix(prefix): tensor for prefix, own in PREFIXES.items()
               for name, tensor in found.items() if name.startswith(prefix) and name.endswith((".weight", ".bias"))}
    for name in found:
        if name.endswith(LIFT_FEATURES):
            lift = name.removesuffix(LIFT_FEATURES)
            bias = tensors["lift.collapse.bias"] = found[lift + LIFT_BIAS]
            by_height = [found[lift + part].t().reshape(len(bias), manifest.lift_grid.spec().shape[2], -1)
                         for part in (LIFT_FEATURES, LIFT_TERMS)]
            tensors["lift.collapse.weight"] = torch.cat(by_height, 2).flatten(1)
    return tensors


def _normalised(network: WalkOcc) -> dict[str, str]:
    """By name every layer that batch normalisation follows, and that normalisation."""
    pairs = {"lift.collapse": "lift.norm.0"}
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            pairs |= {f"{name}.{before}": f"{name}.{after}"
                      for (before, layer), (after, norm) in pairwise(module.named_children())
                      if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)}
    return pairs


def _take_statistics(network: WalkOcc, norms: list[nn.BatchNorm2d], inputs: Mapping[str, Tensor]) -> None:
    """Give normalisations that only add a bias the statistics of what they get; what they answer stays the same."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def watch(norm: nn.Module, arguments: tuple[Tensor]) -> None:
        seen[norm] = torch.var_mean(arguments[0], (0, 2, 3), correction=0)

    hooks = [norm.register_forward_pre_hook(watch) for norm in norms]
    mode = network.training
    with torch.no_grad():
        network.eval()(**inputs)
        for norm in norms:
            variance, mean = seen[norm]
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)
            cast(Tensor, norm.running_mean).copy_(mean)
            cast(Tensor, norm.running_var).copy_(variance)
    network.train(mode)
    for hook in hooks:
        hook.remove()


def _sizes(image: tuple[int, int], features: tuple[int, int], output: VoxelGridSpec, lift: VoxelGridSpec,
           bins: RangeBins) -> dict[str, Any]:
    """What tensors do not show, as plain values."""
    return {"image_size": list(image), "feature_size": list(features), "output_grid": asdict(output),
            "lift_grid": asdict(lift), "range_bins": asdict(bins)}
