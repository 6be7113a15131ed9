"""Batches: targets, offsets of rows, and a flip that moves everything alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training.batches import NO_AUGMENTATION, AugmentationConfig, collate, make_item, photometric

FLIP_ALWAYS = replace(NO_AUGMENTATION, flip=1.0)


def test_item_holds_targets_at_the_feature_pixels(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    item = make_item(samples[0], small, NO_AUGMENTATION, np.random.default_rng(0))
    range_m = samples[0].range_m["front"][4::8, 4::8]
    assert np.array_equal(item["depth"][0] == -100, range_m == 0)
    assert np.array_equal(item["depth"][0][range_m > 0], small.bins.index(range_m[range_m > 0]))
    assert np.array_equal(item["semantics"][0], samples[0].semantics["front"][4::8, 4::8])
    assert np.array_equal(item["images"][0], samples[0].images["front"])
    assert item["labels"][2, 3, 7] == samples[0].labels[7, 3, 2]


def test_flip_mirrors_image_table_labels_and_waypoints(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    rng = np.random.default_rng(0)
    plain, flipped = (make_item(samples[0], small, a, rng) for a in (NO_AUGMENTATION, FLIP_ALWAYS))
    assert np.array_equal(flipped["images"][0], plain["images"][0][:, ::-1])
    assert np.array_equal(flipped["labels"], plain["labels"][:, ::-1])
    assert np.allclose(flipped["waypoints"], plain["waypoints"] * [1, -1])
    # What a sample sees in the flipped world is what its mirror image saw: the same pixel content, range and weight.
    content = np.arange(np.prod(small.feature_size)).reshape(small.feature_size)
    nx, ny, nz = small.lift_grid.shape
    seen = plain["weights"][0].reshape(nz, ny, nx)[:, ::-1] > 0
    assert seen.any()
    assert np.array_equal(flipped["weights"][0].reshape(nz, ny, nx) > 0, seen)
    looked_up = content.ravel()[plain["rows"][0]].reshape(nz, ny, nx)[:, ::-1]
    mirrored = content[:, ::-1].ravel()[flipped["rows"][0]].reshape(nz, ny, nx)
    columns_apart = np.abs(looked_up - mirrored)[seen]
    assert np.mean(columns_apart == 0) > 0.95  # the others lie on the border between two feature pixels
    assert columns_apart.max() <= 1
    bins, flipped_bins = (item["bins"][0].reshape(nz, ny, nx) for item in (plain, flipped))
    assert np.array_equal(flipped_bins[seen], bins[:, ::-1][seen])


def test_photometric_keeps_the_image_where_nothing_is_asked_and_changes_it_within_range() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert np.array_equal(photometric(image, NO_AUGMENTATION, np.random.default_rng(1)), image)
    config = AugmentationConfig(flip=0, log_gain_low=0, log_gain_high=0, log_gamma=0, log_tint=0, noise=5)
    noisy = photometric(image, config, np.random.default_rng(1)).astype(int)
    assert 0 < np.abs(noisy - image).max() <= 5
    dark = photometric(image, replace(config, log_gain_low=-5, noise=0), np.random.default_rng(1))
    assert np.all(dark <= image)


def test_equal_seeds_give_equal_items(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    first, second, other = (
        make_item(samples[1], small, AugmentationConfig(), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert all(np.array_equal(first[key], second[key], equal_nan=first[key].dtype.kind == "f") for key in first)
    assert not np.array_equal(first["images"], other["images"])


def test_collate_moves_rows_to_the_entries_own_cameras(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0)) for sample in samples]
    inputs, targets = collate(items)
    pixels = int(np.prod(small.feature_size))
    for entry, item in enumerate(items):
        assert np.array_equal(inputs["rows"][entry].numpy(), item["rows"] + entry * pixels)
    assert inputs["images"].shape == (4, 64, 96, 3)
    assert targets["labels"].shape == (4, 8, 16, 16)
    assert targets["waypoints"][3].isnan().all()


def test_images_of_another_size_are_resized_and_the_table_follows(
    small: WalkOccConfig, samples: Sequence[Sample]
) -> None:
    half = replace(small, image_size=(32, 48))
    item = make_item(samples[0], half, NO_AUGMENTATION, np.random.default_rng(0))
    full = make_item(samples[0], small, NO_AUGMENTATION, np.random.default_rng(0))
    assert item["images"].shape == (1, 32, 48, 3)
    seen = item["weights"] > 0
    assert np.array_equal(seen, full["weights"] > 0)
    assert np.abs((item["rows"] % 6)[seen] - (full["rows"] % 12 // 2)[seen]).max() <= 1


def test_samples_that_do_not_fit_are_named(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    blind = replace(samples[0], images={}, semantics={}, range_m={})
    with pytest.raises(DatasetError, match=r"tiny\[0\].*no image"):
        make_item(blind, small, NO_AUGMENTATION, np.random.default_rng(0))
    with pytest.raises(DatasetError, match="100, 100, 50"):
        make_item(samples[0], WalkOccConfig.lite(), NO_AUGMENTATION, np.random.default_rng(0))
    with pytest.raises(ConfigurationError):
        AugmentationConfig(flip=1.5, log_gain_low=0.1)
