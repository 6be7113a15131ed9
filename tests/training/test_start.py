"""Starting from an exported model: the network answers as the graph did and learns on, or is refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from occ_perception.datasets.sample import Sample
from occ_perception.engines.manifest import Manifest, TrainingRecord, Variant, save_manifest, sha256_of
from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.export.build import describe_graph
from occ_perception.export.onnx import export_onnx
from occ_perception.geometry import RangeBins
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import collate, make_item
from occ_perception.training.checkpoint import load_network
from occ_perception.training.loop import MODEL, TrainingConfig, train_on
from occ_perception.training.runner import CHECKPOINT
from occ_perception.training.start import about_model, start_from_model

QUIET = Console(file=io.StringIO())
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def lidar(small: WalkOccConfig) -> WalkOccConfig:
    return replace(small, lidar=True)


@pytest.fixture(scope="module")
def train_briefly(samples: Sequence[Sample], tmp_path_factory: pytest.TempPathFactory
                  ) -> Callable[[WalkOccConfig], WalkOcc]:
    """A network after some steps, whose normalisations have statistics and weights of their own."""
    def trained(network: WalkOccConfig) -> WalkOcc:
        output = tmp_path_factory.mktemp("trained")
        train_on(TrainingConfig(data=output, output=output, network=network, steps=8, batch_size=4, threads=1),
                 samples, samples[:1], console=QUIET)
        return load_network(output / MODEL)[0]

    return trained


def export(network: WalkOcc, folder: Path, precision: str = "fp32") -> Path:
    """A model folder that holds the graph of `network` alone."""
    folder.mkdir()
    export_onnx(network, folder / "tiny.onnx")
    variant = Variant.model_validate({"file": "tiny.onnx", "sha256": sha256_of(folder / "tiny.onnx"),
                                      "precision": precision, "devices": ("cpu",)})
    record = TrainingRecord(data="train", data_version="7", data_hash="ab", commit="cd", seed=0, steps=8)
    save_manifest(Manifest(name="tiny", version="3", variants={precision: variant}, training=record,
                           **describe_graph(network.config)), folder)
    return folder


@pytest.fixture(scope="module")
def shipped(small: WalkOccConfig, train_briefly: Callable[[WalkOccConfig], WalkOcc],
            tmp_path_factory: pytest.TempPathFactory) -> tuple[WalkOcc, Path]:
    """A network of cameras alone, and the model it was exported to."""
    network = train_briefly(small)
    return network, export(network, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def inputs(samples: Sequence[Sample], lidar: WalkOccConfig) -> Tensors:
    rng = np.random.default_rng(0)
    return collate([make_item(sample, lidar, NO_AUGMENTATION, rng, rays=0) for sample in samples])[0]


def fresh(config: WalkOccConfig) -> WalkOcc:
    torch.manual_seed(9)
    return WalkOcc(config)


def answers(network: WalkOcc, inputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """What the graph compares classes by, and the waypoints."""
    with torch.no_grad():
        logits, waypoints = network.infer(**inputs)
    return logits - logits[:, :1], waypoints


def of_cameras(inputs: Tensors) -> Tensors:
    return {name: tensor for name, tensor in inputs.items() if name != "ranges"}


def assert_same(first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor]) -> None:
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_started_network_answers_as_the_model(shipped: tuple[WalkOcc, Path], inputs: Tensors) -> None:
    model, folder = shipped
    network = fresh(model.config)
    seen = of_cameras(inputs)
    start_from_model(network, folder, seen)
    assert network.training
    assert_same(answers(network.eval(), seen), answers(model, seen))
    others = {**seen, "images": 255 - seen["images"]}
    assert_same(answers(network, others), answers(model, others))
    assert_same(answers(network.train(), seen), answers(model, seen))  # also as the first step takes its statistics


def test_ranges_of_a_model_go_along(lidar: WalkOccConfig, train_briefly: Callable[[WalkOccConfig], WalkOcc],
                                    inputs: Tensors, small: WalkOccConfig, tmp_path: Path) -> None:
    model = train_briefly(lidar)
    folder = export(model, tmp_path / "tiny")
    network = fresh(lidar)
    start_from_model(network, folder, inputs)
    assert_same(answers(network.eval(), inputs), answers(model, inputs))
    assert not torch.equal(answers(network, inputs)[0], answers(network, of_cameras(inputs))[0])
    with pytest.raises(TrainingError, match=r"does not fit the network: ranges\..* is not in the network"):
        start_from_model(fresh(small), folder, of_cameras(inputs))


def test_ranges_that_the_model_does_not_take_begin_without_a_say_and_learn(
    shipped: tuple[WalkOcc, Path], lidar: WalkOccConfig, inputs: Tensors
) -> None:
    model, folder = shipped
    network = fresh(lidar)
    start_from_model(network, folder, inputs)
    assert_same(answers(network.eval(), inputs), answers(model, of_cameras(inputs)))
    network.train()(**inputs)["occupancy"].square().mean().backward()
    assert network.ranges is not None
    assert float(network.ranges.layers[-1][-1].weight.grad.abs().sum()) > 0


def test_the_head_that_is_not_exported_stays_as_it_was(shipped: tuple[WalkOcc, Path], inputs: Tensors) -> None:
    model, folder = shipped
    network, untouched = fresh(model.config), fresh(model.config)
    start_from_model(network, folder, of_cameras(inputs))
    for name, tensor in untouched.semantics.state_dict().items():
        assert torch.equal(network.semantics.state_dict()[name], tensor)


def test_a_model_of_another_network_is_refused_with_what_differs(
    shipped: tuple[WalkOcc, Path], small: WalkOccConfig, inputs: Tensors, tmp_path: Path
) -> None:
    model, folder = shipped
    seen = of_cameras(inputs)
    other_bins = fresh(replace(small, bins=RangeBins(0.2, 12.2, 1.0)))  # as many, so that the tensors would fit
    with pytest.raises(TrainingError, match=r"another network: range_bins\.maximum_m 6\.2, not 12\.2"):
        start_from_model(other_bins, folder, seen)
    wider = fresh(replace(small, neck_channels=24))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(TrainingError, match=r"context\.weight is \(8, 16, 1, 1\), not \(8, 24, 1, 1\)"):
        start_from_model(wider, folder, seen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())
    with pytest.raises(TrainingError, match="no variant in float32"):
        start_from_model(fresh(small), export(model, tmp_path / "half", precision="fp16"), seen)


def test_a_training_goes_on_from_the_model(shipped: tuple[WalkOcc, Path], samples: Sequence[Sample],
                                           tmp_path: Path) -> None:
    model, folder = shipped
    config = TrainingConfig(data=tmp_path, output=tmp_path / "run", network=model.config, steps=1, batch_size=4,
                            learning_rate=1e-6, threads=1, calibration_samples=0)
    started = train_on(replace(config, start=folder), samples, samples[:1], console=QUIET)
    anew = train_on(replace(config, output=tmp_path / "anew"), samples, samples[:1], console=QUIET)
    assert started["losses"]["occupancy"] < anew["losses"]["occupancy"]
    assert started["data"]["tiny"] == about_model(folder) == {
        "version": "3", "sha256": sha256_of(folder / "tiny.onnx"), "commit": "cd", "steps": 8,
        "data": {"train": {"version": "7", "content_hash": "ab"}}}
    with pytest.raises(TrainingError, match=r"tiny"):  # the checkpoint is of a training that started from the model
        train_on(replace(config, steps=2), samples, samples[:1], resume=True, console=QUIET)
    train_on(replace(config, steps=2, start=folder), samples, samples[:1], resume=True, console=QUIET)
    assert load_network(tmp_path / "run" / CHECKPOINT)[1]["steps"] == 2


def test_a_training_starts_from_one_thing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="trunk and start are both named"):
        TrainingConfig(data=tmp_path, output=tmp_path, steps=1, trunk=tmp_path / "t", start=tmp_path)
