"""A model folder with a tiny graph whose answers are known: labels are the table's rows, waypoints the image's mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from occ_perception.engines import Manifest, save_manifest, sha256_of

LIFT = OUTPUT = {"minimum_m": [0.0, 0.0, 0.0], "maximum_m": [4.0, 3.0, 2.0], "cell_m": 1.0}


def tensor(name: str, shape: list[int | str], dtype: str) -> dict[str, object]:
    return {"name": name, "shape": shape, "dtype": dtype, "meaning": "for a test"}


def manifest_values(file: str, sha256: str) -> dict[str, object]:
    table = ["hits", 24]
    return {
        "name": "tiny", "version": "1.0.0", "tasks": ["occupancy", "trajectory"], "taxonomy": "sidewalk14",
        "output_grid": OUTPUT, "lift_grid": LIFT,
        "range_bins": {"minimum_m": 0.0, "maximum_m": 4.0, "step_m": 1.0},
        "image_size": [8, 12], "feature_size": [4, 6], "waypoint_times_s": [0.5, 1.0],
        "inputs": [
            tensor("images", ["cameras", 8, 12, 3], "uint8"), tensor("rows", table, "int32"),
            tensor("bins", table, "int32"), tensor("weights", table, "float32"),
        ],
        "outputs": [
            tensor("labels", [2, 3, 4], "uint8"), tensor("confidence", [2, 3, 4], "uint8"),
            tensor("waypoints", [2, 2], "float32"),
        ],
        "variants": {"fp32": {"file": file, "sha256": sha256, "precision": "fp32", "devices": ["cpu", "cuda"]}},
        "training": {"data": "none", "data_version": "0", "data_hash": "0", "commit": "0", "seed": 0, "steps": 0},
        "licence": "Apache-2.0",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """labels = sum of rows over the hits, confidence = 255 where a weight is positive, waypoints = mean of images."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> object:
        return helper.make_node(kind, inputs, [output], **attributes)

    def constant(name: str, values: list[int]) -> object:
        return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)

    graph = helper.make_graph(
        [
            node("ReduceSum", ["rows", "zero"], "row", keepdims=0),
            node("ReduceSum", ["bins", "zero"], "bin", keepdims=0),
            node("Sub", ["bin", "bin"], "nothing"),
            node("Add", ["row", "nothing"], "sum"),
            node("Cast", ["sum"], "byte", to=TensorProto.UINT8),
            node("Reshape", ["byte", "grid"], "labels"),
            node("ReduceMax", ["weights", "zero"], "weight", keepdims=0),
            node("Ceil", ["weight"], "seen"),
            node("Mul", ["seen", "full"], "scaled"),
            node("Cast", ["scaled"], "scaled_byte", to=TensorProto.UINT8),
            node("Reshape", ["scaled_byte", "grid"], "confidence"),
            node("Cast", ["images"], "float", to=TensorProto.FLOAT),
            node("ReduceMean", ["float"], "mean", keepdims=0),
            node("Expand", ["mean", "two_by_two"], "waypoints"),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("images", TensorProto.UINT8, ["cameras", 8, 12, 3]),
            helper.make_tensor_value_info("rows", TensorProto.INT32, ["hits", 24]),
            helper.make_tensor_value_info("bins", TensorProto.INT32, ["hits", 24]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["hits", 24]),
        ],
        [
            helper.make_tensor_value_info("labels", TensorProto.UINT8, [2, 3, 4]),
            helper.make_tensor_value_info("confidence", TensorProto.UINT8, [2, 3, 4]),
            helper.make_tensor_value_info("waypoints", TensorProto.FLOAT, [2, 2]),
        ],
        [constant("zero", [0]), constant("grid", [2, 3, 4]), constant("two_by_two", [2, 2]),
         helper.make_tensor("full", TensorProto.FLOAT, [1], [255.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path = tmp_path / "tiny_fp32.onnx"
    path.write_bytes(model.SerializeToString())
    save_manifest(Manifest.model_validate(manifest_values(path.name, sha256_of(path))), tmp_path)
    return tmp_path
