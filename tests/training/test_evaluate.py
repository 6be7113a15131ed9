"""Predictors of networks: what they answer, and what of a sample they look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.evaluate import evaluate, network_outputs, network_predictor


@pytest.fixture(scope="module")
def network(small: WalkOccConfig) -> WalkOcc:
    """Takes LiDAR ranges; untrained, but not blind to them."""
    torch.manual_seed(0)
    network = WalkOcc(replace(small, lidar=True)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
    return network


def test_the_predictor_answers_the_likeliest_class_of_each_voxel(network: WalkOcc, samples: Sequence[Sample]) -> None:
    logits, expected_m = network_outputs(network, samples[0], bfloat16=False)
    labels, waypoints_m = network_predictor(network)(samples[0])
    assert labels.shape == samples[0].labels.shape
    assert np.array_equal(labels, logits.argmax(0).numpy().transpose(2, 1, 0))
    assert np.array_equal(waypoints_m, expected_m.numpy())


def test_lidar_ranges_can_be_withheld(network: WalkOcc, samples: Sequence[Sample]) -> None:
    seen, withheld = (network_outputs(network, samples[0], bfloat16=False, use_lidar=use)[0] for use in (True, False))
    absent, _ = network_outputs(network, replace(samples[0], points_m=None), bfloat16=False)
    assert not torch.allclose(seen, withheld)
    assert torch.equal(withheld, absent)


def test_images_alone_are_predicted_too(network: WalkOcc, image_samples: Sequence[ImageSample]) -> None:
    labels, _ = network_predictor(network)(image_samples[0])
    assert labels.shape == network.config.output_grid.shape


def test_samples_are_scored_in_the_order_of_their_own_truth(samples: Sequence[Sample]) -> None:
    asked: list[int] = []

    def perfect(sample: Sample) -> tuple[np.ndarray, None]:
        asked.append(sample.index)
        return sample.labels, None

    scores = evaluate(perfect, samples)
    assert asked == [0, 1, 2, 3]
    assert (scores["iou"], scores["miou"]) == (1.0, 1.0)
    assert np.isnan(scores["waypoint_error_m"])
