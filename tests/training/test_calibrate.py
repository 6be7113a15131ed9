"""The decision's calibration: it undoes a known bias, never lowers the score, and changes the network by just that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from occ_perception.datasets.sample import Sample
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.calibrate import best_offsets, calibrate, open_decisions, score
from occ_perception.training.evaluate import network_outputs


def test_a_known_bias_is_undone() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000).astype(np.uint8)
    logits = np.eye(4)[labels] * 3 + rng.normal(0, 0.3, (4000, 4))
    logits -= logits[:, :1]
    perfect = score(logits.argmax(1), labels, 4)
    assert perfect > 1.98
    biased = logits + np.array([0.0, -1.9, 0.0, 1.9])
    assert score(biased.argmax(1), labels, 4) < 1.7
    offsets = best_offsets(biased, labels)
    assert score((biased + offsets).argmax(1), labels, 4) > perfect - 0.02
    assert offsets[0] == 0


def test_score_of_known_confusions() -> None:
    labels = np.array([0, 1, 1, 2], np.uint8)
    assert score(np.array([0, 1, 1, 2]), labels, 3) == 2.0
    assert score(np.array([1, 1, 0, 0]), labels, 3) == 1 / 4 + (1 / 3 + 0) / 2


def test_voxels_that_no_offset_can_change_are_left_out() -> None:
    logits = np.zeros((3, 1, 1, 5), np.float32)
    logits[0] = [9, 9, 1, 1, 1]
    labels = np.array([0, 1, 0, 0, 255], np.uint8).reshape(1, 1, 5)
    visible = np.array([1, 1, 1, 0, 1], bool).reshape(1, 1, 5)
    relative, kept = open_decisions(logits, labels, visible)
    assert kept.tolist() == [1, 0]
    assert relative.tolist() == [[0, -9, -9], [0, -1, -1]]


def test_offsets_are_folded_into_the_head(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    torch.manual_seed(0)
    network = WalkOcc(small).eval()
    before, _ = network_outputs(network, samples[0], bfloat16=False)
    offsets = calibrate(network, samples, limit=2)
    after, _ = network_outputs(network, samples[0], bfloat16=False)
    assert np.abs(offsets).max() > 0
    assert torch.allclose(after, before + torch.from_numpy(offsets).view(-1, 1, 1, 1), atol=1e-5)
