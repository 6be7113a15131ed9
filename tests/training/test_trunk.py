"""Pretraining: shares are counted right, learned, resumed, and loaded into networks that fit and no others."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import ConfigurationError, DatasetError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.checkpoint import NETWORK, load_tensors, load_weights, part, save_tensors
from occ_perception.training.loop import TrainingConfig, train_on
from occ_perception.training.runner import CHECKPOINT, SUMMARY, Interrupted
from occ_perception.training.trunk import (
    CoarseClasses,
    ShareLoss,
    TrunkConfig,
    TrunkTask,
    class_shares,
    load_trunk,
    pretrain_on,
    trunk_item,
)

QUIET = Console(file=io.StringIO())


@pytest.fixture
def config(small: WalkOccConfig, tmp_path: Path) -> TrunkConfig:
    return TrunkConfig(data=tmp_path, output=tmp_path / "trunk", network=small, steps=4, batch_size=2, threads=1,
                       cells=(2, 3))


def test_shares_are_the_relative_areas_of_the_classes_in_each_cell() -> None:
    classes = np.zeros((4, 6), np.uint8)
    classes[:2, :3] = 2
    classes[0, 0] = 1
    classes[2:, 3:] = 255  # no class
    shares = class_shares(classes, (2, 2), 3)
    assert shares.shape == (3, 2, 2)
    assert shares[:, 0, 0].tolist() == pytest.approx([0, 1 / 6, 5 / 6])
    assert shares[:, 0, 1].tolist() == [1, 0, 0]
    assert shares[:, 1, 1].tolist() == [0, 0, 0]


def test_flipped_images_have_flipped_shares(config: TrunkConfig, image_samples: Sequence[ImageSample]) -> None:
    never, always = (replace(config, augmentation=replace(NO_AUGMENTATION, flip=flip)) for flip in (0.0, 1.0))
    rng = np.random.default_rng(0)
    (image, shares), (mirrored, mirrored_shares) = (trunk_item(image_samples[0], c, rng) for c in (never, always))
    assert image.shape == (1, *config.network.image_size, 3)
    assert np.array_equal(mirrored, image[:, :, ::-1])
    assert np.array_equal(mirrored_shares, shares[..., ::-1])
    assert not np.array_equal(mirrored_shares, shares)


def test_the_loss_of_the_shares_themselves_is_zero() -> None:
    shares = torch.tensor([[0.2, 0.5], [0.8, 0.5], [0.0, 0.0]]).view(1, 3, 1, 2)
    losses = ShareLoss()({"classes": shares.clamp(min=1e-30).log()}, {"shares": shares})
    assert float(losses["total"]) == pytest.approx(0, abs=1e-6)
    even = ShareLoss()({"classes": torch.zeros(1, 3, 1, 2)}, {"shares": shares})
    entropies = [-(0.2 * np.log(0.2) + 0.8 * np.log(0.8)), np.log(2)]
    assert float(even["total"]) == pytest.approx(np.mean(np.log(3) - np.array(entropies)))


def test_shares_are_learned_and_the_trunk_starts_networks_of_any_image_size(
    config: TrunkConfig, image_samples: Sequence[ImageSample], samples: Sequence[Sample], small: WalkOccConfig
) -> None:
    config = replace(config, steps=80, augmentation=NO_AUGMENTATION, learning_rate=1e-2)
    path = pretrain_on(config, image_samples[:2], console=QUIET)
    assert json.loads((config.output / SUMMARY).read_text())["steps"] == 80
    network = CoarseClasses(config.network, config.cells).eval()
    load_weights(network, part(load_tensors(config.output / CHECKPOINT)[0], NETWORK), where="average")
    inputs, targets = TrunkTask(config, image_samples[:2]).batch(0)
    with torch.no_grad():
        losses = ShareLoss()(network(**inputs), targets)
    assert float(losses["total"]) < 0.1
    assert float(losses["commonest"]) == 1.0
    tensors = load_tensors(path)[0]
    assert {name.partition(".")[0] for name in tensors} == {"backbone", "neck"}

    other = WalkOcc(replace(small, image_size=(96, 128)))
    before = other.depth.weight.clone()
    assert load_trunk(other, path)["steps"] == 80
    state = other.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
    assert torch.equal(other.depth.weight, before)

    training = TrainingConfig(data=config.data, output=config.output.parent / "run", network=small, steps=1,
                              batch_size=2, learning_rate=1e-12, average=0.0, threads=1, trunk=path)
    about = train_on(training, samples, samples[:1], console=QUIET)["data"][path.name]
    assert about["steps"] == 80
    started = load_tensors(training.output / CHECKPOINT)[0]
    first = "backbone.stem.0.0.weight"
    assert torch.allclose(started[f"weights/{first}"], tensors[first], atol=1e-6)


def test_a_trunk_of_another_encoder_is_refused_with_what_differs(
    config: TrunkConfig, image_samples: Sequence[ImageSample], small: WalkOccConfig
) -> None:
    path = pretrain_on(replace(config, steps=1), image_samples, console=QUIET)
    network = WalkOcc(replace(small, stem_channels=12, neck_channels=8))
    before = network.backbone.state_dict()["stem.0.0.weight"].clone()
    with pytest.raises(TrainingError) as caught:
        load_trunk(network, path)
    assert "another encoder: stem_channels 8, not 12; neck_channels 16, not 8" in str(caught.value)
    assert torch.equal(network.backbone.state_dict()["stem.0.0.weight"], before)
    with pytest.raises(TrainingError, match="holds no trunk"):
        load_trunk(network, config.output / CHECKPOINT)
    tensors, header = load_tensors(path)
    tensors["neck.extra"] = torch.zeros(1)
    save_tensors(path, tensors, header)
    with pytest.raises(TrainingError, match=r"neck\.extra is not in the network"):
        load_trunk(WalkOcc(small), path)


def test_a_training_is_resumed_only_with_the_trunk_it_began_with(
    config: TrunkConfig, image_samples: Sequence[ImageSample], samples: Sequence[Sample], small: WalkOccConfig
) -> None:
    first = pretrain_on(replace(config, steps=1), image_samples, console=QUIET)
    second = pretrain_on(replace(config, steps=1, seed=1, output=config.output / "other"), image_samples, console=QUIET)
    training = TrainingConfig(data=config.data, output=config.output.parent / "run", network=small, steps=1,
                              batch_size=2, threads=1, trunk=first)
    train_on(training, samples, samples[:1], console=QUIET)
    for trunk, difference in ((second, "sha256"), (None, "absent")):
        with pytest.raises(TrainingError, match=rf"other data: trunk\.safetensors.*{difference}"):
            train_on(replace(training, trunk=trunk, steps=2), samples, samples[:1], resume=True, console=QUIET)
    moved = first.rename(first.with_name("moved")).rename(config.output.parent / first.name)
    train_on(replace(training, trunk=moved, steps=2), samples, samples[:1], resume=True, console=QUIET)


class Interrupting(list[ImageSample]):
    """Images of which one read comes with a signal."""

    left = 8

    def __getitem__(self, index: int) -> ImageSample:  # type: ignore[override]
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def test_interrupted_and_resumed_pretraining_equals_uninterrupted(
    config: TrunkConfig, image_samples: Sequence[ImageSample]
) -> None:
    config = replace(config, steps=8)
    whole = pretrain_on(config, image_samples, console=QUIET)
    broken = replace(config, output=config.output / "broken")
    with pytest.raises(Interrupted):
        pretrain_on(broken, Interrupting(image_samples), console=QUIET)
    assert 0 < load_tensors(broken.output / CHECKPOINT)[1]["step"] < 8
    resumed = pretrain_on(broken, image_samples, resume=True, console=QUIET)
    first, second = (load_tensors(path)[0] for path in (whole, resumed))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    said = io.StringIO()
    assert pretrain_on(broken, image_samples, resume=True, console=Console(file=said)) == resumed
    assert "is finished: 8 steps" in said.getvalue()


def test_a_pretraining_that_ended_before_its_trunk_is_finished_with_its_losses(
    config: TrunkConfig, image_samples: Sequence[ImageSample]
) -> None:
    path = pretrain_on(config, image_samples, console=QUIET)
    losses = json.loads((config.output / SUMMARY).read_text())["losses"]
    path.unlink()
    pretrain_on(config, image_samples, resume=True, console=QUIET)
    assert json.loads((config.output / SUMMARY).read_text())["losses"] == losses
    tensors, header = load_tensors(config.output / CHECKPOINT)
    del header["recent"]  # as checkpoints were
    save_tensors(config.output / CHECKPOINT, tensors, header)
    path.unlink()
    assert pretrain_on(config, image_samples, resume=True, console=QUIET).is_file()


def test_an_image_without_classes_is_named(config: TrunkConfig, image_samples: Sequence[ImageSample]) -> None:
    with pytest.raises(DatasetError, match=r"flat\[10\]: the image of eye has no classes"):
        trunk_item(replace(image_samples[0], semantics={}), config, np.random.default_rng(0))


def test_configuration_lists_its_faults(config: TrunkConfig) -> None:
    with pytest.raises(ConfigurationError, match="cells must be between"):
        replace(config, cells=(2, 99))
