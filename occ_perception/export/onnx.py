"""Writes the deployed graph as one self-contained ONNX file, the same bytes for the same weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from occ_perception.export.graph import WalkOccGraph
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig

OPSET = 20
"""The newest that TensorRT's parser of the JetPack releases takes."""
TABLE = ("rows", "bins", "weights")
OUTPUTS = ("labels", "confidence", "waypoints")


def export_onnx(network: WalkOcc, path: Path) -> None:
    """Write the graph of `network` to `path` (beside it first, then renamed), checked by onnx.

    `cameras` (1..16) and `hits` (1..2) stay free. The network is left as it is.
    """
    graph = WalkOccGraph(network).eval()
    cameras, hits = torch.export.Dim("cameras", min=1, max=16), torch.export.Dim("hits", min=1, max=2)
    names = input_names(network.config)
    dynamic_shapes = tuple({0: hits if name in TABLE else cameras} for name in names)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph, example_inputs(network.config), dynamo=True, opset_version=OPSET, input_names=names,
            output_names=OUTPUTS, dynamic_shapes=dynamic_shapes, external_data=False, verbose=False,
        )
    if program is None:
        raise AssertionError("torch.onnx.export(dynamo=True) without a file returns a program")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    save_model(model, path)


def input_names(config: WalkOccConfig) -> tuple[str, ...]:
    """Inputs of the graph, in their order."""
    return ("images", *TABLE, "ranges") if config.lidar else ("images", *TABLE)


def example_inputs(config: WalkOccConfig) -> tuple[torch.Tensor, ...]:
    """Inputs of the graph's shapes with two cameras and two hits, seeded; half of the pixels have a range."""
    generator = torch.Generator().manual_seed(0)
    table, pixels = (2, config.lift_grid.size), config.feature_size[0] * config.feature_size[1]
    ranges_m = config.bins.maximum_m * (2 * torch.rand((2, *config.feature_size), generator=generator) - 1).relu()
    inputs = (
        torch.randint(0, 256, (2, *config.image_size, 3), generator=generator, dtype=torch.uint8),
        torch.randint(0, 2 * pixels, table, generator=generator, dtype=torch.int32),
        torch.randint(0, config.bins.count, table, generator=generator, dtype=torch.int32),
        torch.rand(table, generator=generator),
    )
    return (*inputs, ranges_m) if config.lidar else inputs


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model in one file, at once or not at all."""
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        beside.write_bytes(model.SerializeToString(deterministic=True))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names the machine it was made on: stack traces and comments."""
    del model.metadata_props[:]
    for part in [model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info,
                 *model.graph.initializer]:
        part.doc_string = ""
        del part.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about packages that are not needed and about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
