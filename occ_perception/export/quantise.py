"""An int8 variant for onnxruntime on a CPU: QDQ, uint8 activations, int8 weights per channel."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from occ_perception.export.onnx import save_model

Feeds = dict[str, NDArray[Any]]

QUANTISED = ("Conv", "Relu", "Add", "MaxPool", "Resize")
"""Convolutions, and what stands between them so that they hand on integers. Depth softmax, lifting and waypoints
stay float: together they take a tenth of the time."""


def quantise(source: Path, target: Path, calibration: Iterable[Feeds]) -> None:
    """Write the int8 variant of the graph at `source` to `target`.

    Args:
        calibration: inputs of real frames; ranges of activations are the largest that occur in them.
    """
    beside = target.with_name(f"{target.name}.unfinished")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that the exporter has done already
    try:
        quantize_static(
            str(source), str(beside), _Reader(iter(calibration)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(QUANTISED),
        )
        save_model(onnx.load(beside), target)
    finally:
        root.setLevel(level)
        beside.unlink(missing_ok=True)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


