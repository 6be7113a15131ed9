"""Whether an exported graph answers as the network does: floats, labels and confidence on the same inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from occ_perception.errors import EngineError
from occ_perception.export.onnx import OUTPUTS, TABLE, save_model
from occ_perception.export.quantise import Feeds
from occ_perception.networks.walkocc import WalkOcc

FLOAT_TOLERANCE = 1e-4
EQUAL_LABELS = 0.999


@dataclass(frozen=True)
class Parity:
    """Differences between network and graph over `frames` inputs.

    `margin_error` and `waypoint_error_m` are the largest absolute differences of the logits (each minus that of free)
    and of the waypoints; `equal_labels` a fraction; `confidence_error` the largest difference in 255ths.
    """

    frames: int
    margin_error: float
    waypoint_error_m: float
    equal_labels: float
    confidence_error: int

    def require(self) -> None:
        """Raise EngineError unless floats agree to 1e-4 and 99.9 % of the labels are equal."""
        faults = []
        largest = _larger(self.margin_error, self.waypoint_error_m)
        if not largest <= FLOAT_TOLERANCE:
            faults.append(f"floats differ by {largest:.2g}")
        if self.equal_labels < EQUAL_LABELS:
            faults.append(f"only {100 * self.equal_labels:.3f} % of the labels are equal")
        if self.confidence_error > 1:
            faults.append(f"confidence differs by {self.confidence_error} of 255")
        if faults:
            raise EngineError("; ".join(faults), where="parity of network and exported graph")


def measure_parity(network: WalkOcc, model: Path, inputs: Iterable[Feeds]) -> Parity:
    """Run the network (unfolded, as trained) and the graph at `model` on the same inputs (at least one)."""
    with tempfile.TemporaryDirectory() as folder:
        session = ort.InferenceSession(str(_with_margins(model, Path(folder))), providers=["CPUExecutionProvider"])
    margin_error = waypoint_error = 0.0
    confidence_error = frames = equal = cells = 0
    network.eval()
    for feeds in inputs:
        labels, confidence, waypoints, margins = session.run(None, feeds)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
            rows, bins, weights = (tensors[name][None] for name in TABLE)
            occupancy, expected_waypoints = network.infer(
                tensors["images"], rows, bins, weights, tensors.get("ranges")
            )
        logits = occupancy[0].double()
        expected = (logits - logits[:1]).permute(2, 3, 0, 1).numpy()
        expected_confidence = (255 * (1 - logits.softmax(0)[0])).round().numpy().astype(int)
        margin_error = _larger(margin_error, _error(margins, expected))
        waypoint_error = _larger(waypoint_error, _error(waypoints, expected_waypoints[0].numpy()))
        confidence_error = max(confidence_error, int(np.abs(confidence - expected_confidence).max()))
        equal += int((labels == occupancy[0].argmax(0).numpy()).sum())
        cells += labels.size
        frames += 1
    return Parity(frames, margin_error, waypoint_error, equal / cells, confidence_error)


def _larger(a: float, b: float) -> float:
    """The larger of two numbers; of one that is none, that: `max` may lose it."""
    return float(np.maximum(a, b))


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def _with_margins(model: Path, folder: Path) -> Path:
    """A copy of the graph that also gives the floats from which labels are taken."""
    proto = onnx.load(model)
    decide = next(node for node in proto.graph.node if node.op_type == "ArgMax")
    assert [output.name for output in proto.graph.output] == list(OUTPUTS)
    proto.graph.output.append(onnx.helper.make_tensor_value_info(decide.input[0], onnx.TensorProto.FLOAT, None))
    save_model(proto, folder / model.name)
    return folder / model.name
