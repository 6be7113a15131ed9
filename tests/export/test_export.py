"""Export: the deployed graph answers as the network does, and the folder says truthfully what it holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.engines import load_engine, load_manifest
from occ_perception.engines.bench import random_inputs
from occ_perception.errors import ConfigurationError, DatasetError, EngineError
from occ_perception.export import build
from occ_perception.export.build import ExportSettings, engine_inputs, export_model
from occ_perception.export.graph import WalkOccGraph, decide
from occ_perception.export.onnx import OUTPUTS, example_inputs, export_onnx, input_names
from occ_perception.export.parity import Parity, measure_parity
from occ_perception.export.quantise import quantise
from occ_perception.export.scores import engine_predictor, sample_clouds
from occ_perception.geometry import se3
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.checkpoint import save_network

pytestmark = pytest.mark.torch
ALSO_LEARNED = {"images_night": {"version": "7", "content_hash": "hash of night", "samples": 480},
                "trunk.safetensors": {"sha256": "ab12", "steps": 400}}


@pytest.fixture(scope="module")
def graph(network: WalkOcc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    export_onnx(network, path)
    return path


@pytest.fixture(scope="module")
def lidar_graph(lidar_network: WalkOcc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "tiny_lidar.onnx"
    export_onnx(lidar_network, path)
    return path


def feeds(network: WalkOcc, cameras: int, hits: int) -> dict[str, np.ndarray]:
    examples = (tensor.numpy() for tensor in example_inputs(network.config))
    inputs = dict(zip(input_names(network.config), examples, strict=True))
    inputs = {name: array[: hits if name in ("rows", "bins", "weights") else cameras] for name, array in inputs.items()}
    return {**inputs, "rows": inputs["rows"] % (cameras * int(np.prod(network.config.feature_size)))}


@pytest.mark.parametrize(("cameras", "hits"), [(1, 1), (2, 1), (2, 2)])
def test_the_graph_answers_as_the_network(network: WalkOcc, graph: Path, cameras: int, hits: int) -> None:
    found = measure_parity(network, graph, [feeds(network, cameras, hits)])
    found.require()
    assert found.margin_error < 1e-5
    assert found.equal_labels > 0.9999


@pytest.mark.parametrize("cameras", [1, 2])
def test_the_graph_answers_as_the_network_with_ranges_and_without(
    lidar_network: WalkOcc, lidar_graph: Path, cameras: int
) -> None:
    measured = feeds(lidar_network, cameras, 1)
    nothing = {**measured, "ranges": np.zeros_like(measured["ranges"])}
    found = measure_parity(lidar_network, lidar_graph, [measured, nothing])
    found.require()
    assert found.margin_error < 1e-5
    session = onnxruntime.InferenceSession(str(lidar_graph), providers=["CPUExecutionProvider"])
    waypoints, blind = (session.run(["waypoints"], inputs)[0] for inputs in (measured, nothing))
    assert not np.array_equal(waypoints, blind)
    with torch.no_grad():
        images, *table = (torch.from_numpy(nothing[name]) for name in ("images", "rows", "bins", "weights"))
        _, expected = lidar_network.infer(images, *(tensor[None] for tensor in table))
    np.testing.assert_allclose(blind, expected[0].numpy(), atol=1e-5)


def test_the_structure_of_the_paper_exports(paper_network: WalkOcc, tmp_path: Path) -> None:
    config = paper_network.config
    assert (config.resnet_layers, config.halve_image, config.softplus, config.lidar) == (50, False, True, True)
    export_onnx(paper_network, tmp_path / "paper.onnx")
    measure_parity(paper_network, tmp_path / "paper.onnx", [feeds(paper_network, 2, 2)]).require()


@pytest.mark.parametrize("kind", [{"lifter": "line_of_sight"}, {"space": "volume"}])
def test_baselines_are_not_exported(config: WalkOccConfig, kind: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="only lifter 'depth' with space 'bev' can be exported"):
        WalkOccGraph(WalkOcc(replace(config, **kind)))


def test_arranging_the_graph_leaves_the_network_as_it_was(network: WalkOcc) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    WalkOccGraph(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_labels_and_confidence_are_those_of_a_softmax() -> None:
    logits = torch.randn(4, 5, 14, 6, generator=torch.Generator().manual_seed(0)) * 4
    logits[0, 0, :, 0] = torch.tensor([0.0] + [200.0] * 13)  # overflows an exponential: P(free) is 0
    logits[0, 0, :, 1] = torch.tensor([0.0] + [-200.0] * 13)
    labels, confidence = decide(logits - logits[:, :, :1])
    probabilities = logits.softmax(2)
    np.testing.assert_array_equal(labels.numpy(), probabilities.argmax(2).permute(2, 0, 1).numpy())
    expected = 255 * (1 - probabilities[:, :, 0]).permute(2, 0, 1).numpy()
    assert np.abs(confidence.numpy() - expected).max() <= 0.5 + 1e-3
    assert confidence[0, 0, 0] == 255
    assert confidence[1, 0, 0] == 0


def test_the_file_is_the_same_for_the_same_weights_and_names_no_machine(
    network: WalkOcc, graph: Path, tmp_path: Path
) -> None:
    export_onnx(network, tmp_path / "again.onnx")
    content = graph.read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b"test_export" not in content
    assert [p.name for p in tmp_path.iterdir()] == ["again.onnx"]


def test_the_graphs_have_only_operators_that_deploy(
    network: WalkOcc, graph: Path, lidar_network: WalkOcc, lidar_graph: Path
) -> None:
    for source, path in ((network, graph), (lidar_network, lidar_graph)):
        model = onnx.load(path)
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"ScatterND", "ScatterElements", "GridSample", "NonZero", "BatchNormalization", "Loop", "If"}
        assert {node.domain for node in model.graph.node} == {""}
        assert model.opset_import[0].version <= 20
        assert tuple(i.name for i in model.graph.input) == input_names(source.config)
        assert [o.name for o in model.graph.output] == list(OUTPUTS)
    assert input_names(lidar_network.config) == (*input_names(network.config), "ranges")


def test_other_weights_fail_the_parity_with_the_difference(network: WalkOcc, graph: Path) -> None:
    other = WalkOcc(network.config)
    with pytest.raises(EngineError, match="floats differ by"):
        measure_parity(other, graph, [feeds(network, 1, 1)]).require()


@pytest.mark.parametrize(
    ("values", "says"),
    [((1, 0.0, 0.0, 0.99, 0), "99.000 %"), ((1, 0.0, 2e-4, 1.0, 0), "floats"), ((1, 0.0, 0.0, 1.0, 2), "confidence"),
     ((1, 0.0, math.nan, 1.0, 0), "floats differ by nan"), ((1, math.nan, 0.0, 1.0, 0), "floats differ by nan")],
)
def test_parity_is_refused_by_each_of_its_limits(values: tuple[Any, ...], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        Parity(*values).require()


def test_int8_stays_near_fp32_and_really_is_int8(network: WalkOcc, graph: Path, data: Path, tmp_path: Path) -> None:
    train = SimulatedDataset(data, "train")
    target = tmp_path / "tiny_int8.onnx"
    quantise(graph, target, engine_inputs(train, 3, network.config))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny_int8.onnx"]
    model = onnx.load(target)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    int8_weights = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 4]
    assert len(int8_weights) == convolutions > 10
    (item,) = engine_inputs(train, 1, network.config)
    fp32, int8 = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, item)
        for path in (graph, target)
    )
    assert (fp32[0] == int8[0]).mean() > 0.8
    assert 0 < np.abs(fp32[2] - int8[2]).max() < 0.2


def test_calibration_sees_frames_with_lidar_and_without(lidar_network: WalkOcc, data: Path) -> None:
    train = SimulatedDataset(data, "train")
    inputs = list(engine_inputs(train, 3, lidar_network.config))
    assert [bool(feeds["ranges"].any()) for feeds in inputs] == [True, False, True]
    assert all(feeds.keys() == set(input_names(lidar_network.config)) for feeds in inputs)


def test_int8_keeps_what_ranges_say(lidar_network: WalkOcc, lidar_graph: Path, data: Path, tmp_path: Path) -> None:
    train = SimulatedDataset(data, "train")
    target = tmp_path / "tiny_int8.onnx"
    quantise(lidar_graph, target, engine_inputs(train, 3, lidar_network.config))
    for item in engine_inputs(train, 2, lidar_network.config):
        fp32, int8 = (
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, item)
            for path in (lidar_graph, target)
        )
        assert (fp32[0] == int8[0]).mean() > 0.8
        assert 0 < np.abs(fp32[2] - int8[2]).max() < 0.2


def test_a_samples_points_come_back_from_the_frame_of_the_lidar(first_sample: Sample) -> None:
    cloud = sample_clouds(first_sample)["top"]
    points_m = se3.apply(first_sample.rig.lidar("top").T_base_lidar, cloud.points_m)
    np.testing.assert_allclose(points_m, first_sample.points_m, atol=1e-5)
    assert not np.allclose(cloud.points_m, first_sample.points_m, atol=0.1)
    assert sample_clouds(replace(first_sample, points_m=None)) == {}
    without = replace(first_sample, rig=first_sample.rig.model_copy(update={"lidars": ()}))
    with pytest.raises(DatasetError, match=r"scene\[0\].*no LiDAR"):
        sample_clouds(without)


def save(network: WalkOcc, path: Path) -> Path:
    provenance = {
        "data": {"train": {"version": "7", "content_hash": "hash of train", "samples": 3}, **ALSO_LEARNED},
        "seed": 5, "steps": 11,
        "commit": "0123abc",
        "minutes": 2.0,
        "training": {"batch_size": 4, **dict.fromkeys(("data", "output", "trunk", "start"), "/some/machine")},
    }
    save_network(path, network, provenance)
    return path


@pytest.fixture
def checkpoint(network: WalkOcc, tmp_path: Path) -> Path:
    return save(network, tmp_path / "model.safetensors")


@pytest.fixture
def settings(data: Path) -> ExportSettings:
    return ExportSettings(data=data, score_splits=("test",), calibration_frames=3, parity_frames=1)


def test_a_model_folder_says_what_it_holds(
    checkpoint: Path, settings: ExportSettings, tmp_path: Path, config: Any
) -> None:
    told: list[str] = []
    out = tmp_path / "models" / "tiny"
    manifest = export_model(checkpoint, out, settings, told.append)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.yaml", "tiny_fp32.onnx", "tiny_int8.onnx"]
    assert [p.name for p in out.parent.iterdir()] == ["tiny"]
    assert list(manifest.variants) == ["int8", "fp32"]
    assert (manifest.training.steps, manifest.training.seed, manifest.training.data_version) == (11, 5, "7")
    assert (manifest.training.data_hash, manifest.training.commit) == ("hash of train", "0123abc")
    assert "/some/machine" not in (out / "manifest.yaml").read_text()
    assert {name: manifest.training.settings["data"][name] for name in ALSO_LEARNED} == ALSO_LEARNED
    assert {(score.variant, score.split, score.frames) for score in manifest.scores} == {
        (variant, "test", 2) for variant in ("prior", "int8", "fp32")
    }
    prior = next(score for score in manifest.scores if score.variant == "prior")
    assert prior.data_hash == "hash of test"
    assert prior.per_class["sidewalk"] == 100.0  # the same voxels in every frame: the prior knows them
    assert prior.per_class["person"] is None
    assert "mIoU against fp32 on test" in manifest.variants["int8"].note
    assert any("parity" in line for line in told)
    int8 = load_engine(load_manifest(out), device="cpu")
    assert int8.describe().precision == "int8"
    fp32 = load_engine(manifest, device="cpu", variant="fp32")
    outputs, _ = fp32.run(feeds(WalkOcc(config), 2, 2), fp32.new_state())
    assert outputs["labels"].shape == config.output_grid.shape[::-1]


def test_a_model_with_lidar_is_scored_with_it_and_without(
    lidar_network: WalkOcc, settings: ExportSettings, tmp_path: Path, first_sample: Sample
) -> None:
    told: list[str] = []
    checkpoint = save(lidar_network, tmp_path / "model.safetensors")
    manifest = export_model(checkpoint, tmp_path / "tiny", settings, told.append)
    assert manifest.takes_ranges
    (ranges,) = (tensor for tensor in manifest.inputs if tensor.name == "ranges")
    assert (ranges.shape, ranges.dtype) == (("cameras", 8, 12), "float32")
    scored = [(score.variant, score.lidar) for score in manifest.scores]
    assert scored == [("prior", False), ("int8", False), ("int8", True), ("fp32", False), ("fp32", True)]
    assert any(line.startswith("test, fp32 with LiDAR: IoU") for line in told)
    engine = load_engine(manifest, device="cpu", variant="fp32")
    (_, blind), (_, seeing) = (engine_predictor(engine, manifest, lidar=lidar)(first_sample) for lidar in (False, True))
    assert not np.array_equal(blind, seeing)
    outputs, _ = engine.run(random_inputs(manifest), engine.new_state())
    assert np.isfinite(outputs["waypoints"]).all()


def test_what_a_checkpoint_does_not_say_is_not_made_up(checkpoint: Path, settings: ExportSettings) -> None:
    train = SimulatedDataset(settings.data, "train")
    record = build._training_record(checkpoint, {"seed": 5, "steps": 11}, train, Parity(1, 0.0, 0.0, 1.0, 0))
    assert (record.data_version, record.data_hash, record.commit) == ("unknown",) * 3


def test_the_split_that_was_learned_from_calibrates(network: WalkOcc, data: Path, tmp_path: Path) -> None:
    provenance = {"data": {"test": {"version": "7", "content_hash": "hash of test"}},
                  "training": {"train_split": "test"}}
    save_network(tmp_path / "model.safetensors", network, provenance)
    settings = ExportSettings(data=data, score_splits=(), calibration_frames=2, parity_frames=1)
    manifest = export_model(tmp_path / "model.safetensors", tmp_path / "tiny", settings, lambda line: None)
    assert (manifest.training.data, manifest.training.data_hash) == ("SidewalkSim test", "hash of test")
    assert "2 frames of test" in manifest.variants["int8"].note


def test_a_robot_that_was_calibrated_anew_is_scored_with_its_new_rig(
    network: WalkOcc, graph: Path, data: Path, tmp_path: Path, first_sample: Sample
) -> None:
    save_network(tmp_path / "model.safetensors", network, {})
    settings = ExportSettings(data=data, score_splits=(), calibration_frames=2, parity_frames=1)
    manifest = export_model(tmp_path / "model.safetensors", tmp_path / "tiny", settings, lambda line: None)
    engine = load_engine(manifest, device="cpu", variant="fp32")
    camera = first_sample.rig.cameras[0]
    turned = camera.model_copy(update={"T_base_camera": camera.T_base_camera @ se3.from_euler(0.0, 0.3, 0.0)})
    other = replace(first_sample, rig=first_sample.rig.model_copy(update={"cameras": (turned,)}))
    predict = engine_predictor(engine, manifest)
    predict(first_sample)
    _, after = predict(other)
    _, alone = engine_predictor(engine, manifest)(other)
    assert np.array_equal(after, alone)
    assert not np.array_equal(after, predict(first_sample)[1])


def test_an_export_that_fails_leaves_the_old_model_and_nothing_beside_it(
    checkpoint: Path, settings: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "models" / "tiny"
    out.mkdir(parents=True)
    (out / "manifest.yaml").write_text("the old one")

    def half_done(network: WalkOcc, path: Path) -> None:
        path.write_bytes(b"half a graph")
        raise EngineError("no more")

    monkeypatch.setattr(build, "export_onnx", half_done)
    with pytest.raises(EngineError, match="no more"):
        export_model(checkpoint, out, settings, lambda line: None)
    assert (out / "manifest.yaml").read_text() == "the old one"
    assert [p.name for p in out.parent.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_model_is_not_replaced(checkpoint: Path, settings: ExportSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no model folder"):
        export_model(checkpoint, tmp_path, settings, lambda line: None)
    assert checkpoint.is_file()


def test_a_missing_split_is_said_before_anything_is_made(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    tell: Callable[[str], None] = told.append
    with pytest.raises(DatasetError, match="night"):
        export_model(checkpoint, tmp_path / "out", ExportSettings(data=data, score_splits=("test", "night")), tell)
    assert not told
    assert not (tmp_path / "out").exists()
