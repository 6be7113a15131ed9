"""Batches: targets, offsets of rows and cells, LiDAR ranges, rays, and an augmentation that moves everything alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.calibration import Rig
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.geometry.range_image import range_image
from occ_perception.geometry.ray_cells import ray_cells
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.taxonomy import Sidewalk
from occ_perception.training.augmentation import NO_AUGMENTATION, AugmentationConfig, bev_augmentation
from occ_perception.training.batches import collate, make_item

FLIP_ALWAYS = replace(NO_AUGMENTATION, flip=1.0)
TURNED = replace(NO_AUGMENTATION, flip=0.5, rotation_rad=0.5, scale=0.2)
GRID = VoxelGridSpec((0, -2, -1), (4, 2, 1), 0.25)


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


def test_equal_seeds_give_equal_items(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    lidar = replace(small, lidar=True)
    augmentation = AugmentationConfig(lidar_dropout=0.0)
    first, second, other = (
        make_item(samples[1], lidar, augmentation, np.random.default_rng(seed), rays=20) for seed in (5, 5, 6)
    )
    assert all(np.array_equal(first[key], second[key], equal_nan=first[key].dtype.kind == "f") for key in first)
    for key in ("images", "labels", "rows", "waypoints", "ranges", "ray_pixels"):
        assert not np.array_equal(first[key], other[key])


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


def test_images_alone_have_classes_and_a_table_and_no_other_target(
    small: WalkOccConfig, image_samples: Sequence[ImageSample]
) -> None:
    lidar = replace(small, lidar=True)
    item = make_item(image_samples[0], lidar, NO_AUGMENTATION, np.random.default_rng(0))
    assert item["images"].shape == (1, 64, 96, 3)
    assert set(np.unique(item["semantics"])) == {0, 1, 11}
    assert (item["weights"] > 0).any()
    assert (item["labels"] == 255).all()
    assert not item["visible"].any()
    assert (item["depth"] == -100).all()
    assert np.isnan(item["waypoints"]).all()
    assert not item["ranges"].any()


def test_paired_samples_and_images_alone_make_one_batch(
    small: WalkOccConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    mixed = [samples[0], image_samples[0], samples[1]]
    items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=7) for sample in mixed]
    _, targets = collate(items)
    voxels, pixels = GRID.size, int(np.prod(small.feature_size))
    assert targets["labels"].shape == (3, 8, 16, 16)
    assert targets["ray_cells"].shape == (3, 7, small.bins.count)
    for entry, item in enumerate(items):
        assert np.array_equal(targets["ray_pixels"][entry].numpy(), item["ray_pixels"][0] + entry * pixels)
        cells, given_cells = targets["ray_cells"][entry].numpy(), item["ray_cells"][0]
        assert np.array_equal(cells == -1, given_cells == -1)
        assert np.array_equal(cells[cells >= 0], given_cells[given_cells >= 0] + entry * voxels)
    assert targets["ray_known"].all(1).tolist() == [True, False, True]


def halves(rig: Rig) -> Sample:
    """A world whose class is decided by the half of the image that shows it, in the image and in the voxels."""
    camera = rig.cameras[0].camera
    semantics = np.ones((64, 96), np.uint8)
    semantics[:, 48:] = 2
    pixels, valid = camera.project(GRID.centres().reshape(-1, 3) @ se3.OPTICAL_IN_BODY)
    labels = np.where(valid, np.where(pixels[:, 0] < 47.5, 1, 2), 0).astype(np.uint8).reshape(GRID.shape)
    return Sample(
        scene="halves", index=0, stamp_ns=0, rig=rig, spec=GRID, images={"front": np.zeros((64, 96, 3), np.uint8)},
        T_grid_base=np.eye(4), T_world_grid=np.eye(4), labels=labels, visible=labels > 0,
        semantics={"front": semantics}, range_m={"front": np.full((64, 96), 2.5, np.float32)},
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_voxels_label_is_that_of_its_pixel_before_and_after_augmentation(
    small: WalkOccConfig, rig: Rig, seed: int
) -> None:
    network = replace(small, lift_grid=GRID, halve_image=False, feature_stride=4)  # the table's samples are the voxels
    item = make_item(halves(rig), network, TURNED, np.random.default_rng(seed), rays=60)
    classes, labels = item["semantics"][0], item["labels"].ravel()
    # Nearest cells are up to half a cell off: by the middle of the image, and close by, that changes the pixel's half.
    column = np.arange(classes.size) % classes.shape[1]
    clear = np.abs(column - 11.5) > 3
    rows, bins = item["rows"][0], item["bins"][0]
    far = network.bins.centres_m()[bins] > 1.5
    tested = (item["weights"][0] > 0) & far & clear[rows] & (labels != 255)
    assert tested.sum() > 200
    assert (labels[tested] == 0).mean() < 0.1  # at the rim a cell's centre may not have been in view
    tested &= labels > 0
    assert np.array_equal(labels[tested], classes.ravel()[rows[tested]])
    assert np.array_equal(item["visible"].ravel()[tested], labels[tested] > 0)
    ray, at = np.nonzero((item["ray_cells"][0] >= 0) & (network.bins.centres_m() > 1.5))
    ray, at = (v[clear[item["ray_pixels"][0][ray]]] for v in (ray, at))
    met = labels[item["ray_cells"][0][ray, at]]
    known = (met > 0) & (met < 255)
    assert known.sum() > 20
    assert np.array_equal(met[known], item["ray_labels"][0][ray[known]])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_waypoints_stay_at_what_they_were_at(small: WalkOccConfig, rig: Rig, seed: int) -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    waypoints = np.array([(x, y) for x in (1.375, 2.375) for y in (-1.625, -0.875, -0.125, 0.625, 1.375)], np.float32)
    for label, (x, y) in enumerate(waypoints, 1):
        ix, iy = int(x / 0.25), int((y + 2) / 0.25)
        labels[ix - 1 : ix + 2, iy - 1 : iy + 2] = label
    sample = replace(halves(rig), labels=labels, waypoints_m=waypoints)
    item = make_item(sample, small, TURNED, np.random.default_rng(seed))
    cells, inside = GRID.index(np.c_[item["waypoints"], np.zeros(10)])
    assert inside.any()
    found = item["labels"][4, cells[inside, 1], cells[inside, 0]]
    assert np.array_equal(found, np.flatnonzero(inside) + 1)


def wide(rig: Rig) -> Sample:
    """Random labels on a grid that reaches beyond the network's on all sides."""
    spec = VoxelGridSpec((-0.5, -3, -1.5), (5, 2.5, 1.25), 0.25)
    labels = np.random.default_rng(0).integers(0, 14, spec.shape, dtype=np.uint8)
    return replace(halves(rig), spec=spec, labels=labels, visible=labels > 5)


def test_a_larger_grid_is_cropped_to_the_networks(small: WalkOccConfig, rig: Rig) -> None:
    sample = wide(rig)
    item = make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0))
    part = slice(2, 18), slice(4, 20), slice(2, 10)
    assert np.array_equal(item["labels"], sample.labels[part].transpose(2, 1, 0))
    assert np.array_equal(item["visible"], sample.visible[part].transpose(2, 1, 0))
    # What turns into view comes from beyond, where the smaller grid knows nothing.
    turned = replace(NO_AUGMENTATION, rotation_rad=0.3, scale=0.0)
    inner = replace(sample, spec=GRID, labels=sample.labels[part], visible=sample.visible[part])
    whole, cut = (make_item(s, small, turned, np.random.default_rng(1))["labels"] for s in (sample, inner))
    assert (cut == 255).sum() > (whole == 255).sum()
    assert np.array_equal(whole[cut != 255], cut[cut != 255])


def test_labels_over_a_grid_that_does_not_hold_the_networks_are_refused(small: WalkOccConfig, rig: Rig) -> None:
    for spec in (
        VoxelGridSpec((0.1, -2, -1), (4.1, 2, 1), 0.25),  # not aligned
        VoxelGridSpec((0, -2, -1), (4, 2, 1), 0.5),  # other cells
        VoxelGridSpec((0, -2, -1), (3.75, 2, 1), 0.25),  # too short
        VoxelGridSpec((0, -2, -0.5), (4, 2, 1), 0.25),  # does not reach down
    ):
        shape = spec.shape
        sample = replace(halves(rig), spec=spec, labels=np.zeros(shape, np.uint8), visible=np.zeros(shape, bool))
        with pytest.raises(DatasetError, match=r"halves\[0\]: labels are over .* the network predicts \(16, 16, 8\)"):
            make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0))


def test_ranges_are_the_scan_in_feature_pixels_only_for_networks_that_take_them(
    small: WalkOccConfig, samples: Sequence[Sample]
) -> None:
    lidar, rng = replace(small, lidar=True), np.random.default_rng(0)
    assert "ranges" not in make_item(samples[0], small, NO_AUGMENTATION, rng)
    item = make_item(samples[0], lidar, NO_AUGMENTATION, rng)
    points = samples[0].points_m
    assert points is not None
    assert np.array_equal(item["ranges"], range_image(points, samples[0].rig.mounted(), small.feature_size))
    assert (item["ranges"] > 0).sum() > 30
    flipped = make_item(samples[0], lidar, FLIP_ALWAYS, rng)
    assert np.array_equal(flipped["ranges"], item["ranges"][..., ::-1])
    for sample, use in ((samples[0], False), (replace(samples[0], points_m=None), True)):
        assert not make_item(sample, lidar, NO_AUGMENTATION, rng, use_lidar=use)["ranges"].any()
    inputs, _ = collate([item, flipped])
    assert inputs["ranges"].shape == (2, *small.feature_size)
    assert "ranges" not in collate([make_item(samples[0], small, NO_AUGMENTATION, rng)])[0]


def test_scans_drop_out_and_thin_in_training_only(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    lidar, rng = replace(small, lidar=True), np.random.default_rng(0)
    full = make_item(samples[0], lidar, NO_AUGMENTATION, rng)["ranges"] > 0
    thin = replace(NO_AUGMENTATION, lidar_thinning=0.1)
    filled = [(make_item(samples[0], lidar, thin, rng)["ranges"] > 0) for _ in range(60)]
    assert not any((some & ~full).any() for some in filled)
    shares = np.array([some.sum() / full.sum() for some in filled])
    assert shares.min() < 0.6 < 0.95 < shares.max()
    dropping = replace(NO_AUGMENTATION, lidar_dropout=0.5)
    empty = [not make_item(samples[0], lidar, dropping, rng)["ranges"].any() for _ in range(60)]
    assert 0.25 < np.mean(empty) < 0.75


@pytest.mark.parametrize("seed", range(4))
def test_rays_are_the_pixels_whose_measured_end_lies_in_the_grid(
    small: WalkOccConfig, samples: Sequence[Sample], seed: int
) -> None:
    tilt = se3.from_euler(0.05, -0.1, 0)
    range_m = np.random.default_rng(seed).uniform(0, 5, (64, 96)).astype(np.float32)
    sample = replace(samples[0], T_grid_base=tilt, range_m={"front": range_m * (range_m > 0.5)})
    augmentation, flip = bev_augmentation(TURNED, np.random.default_rng(seed))
    item = make_item(sample, small, TURNED, np.random.default_rng(seed), rays=96)
    mounted = sample.rig.cameras[0].mounted()
    expected = set()
    for row in range(8):
        for column in range(12):
            v, u = 8 * row + 4, 8 * (11 - column if flip else column) + 4
            ray = mounted.camera.unproject([[u - 0.5, v - 0.5]])[0]  # the centre of a block lies between its pixels
            end = se3.apply(augmentation @ tilt @ mounted.T_base_camera, ray * sample.range_m["front"][v, u])
            if sample.semantics["front"][v, u] > 0 and range_m[v, u] > 0.5 and GRID.index(end)[1]:
                expected.add(row * 12 + column)
    counted = item["ray_labels"][0] != -100
    drawn = item["ray_pixels"][0][counted]
    assert 10 < len(expected) < 90
    assert len(drawn) == len(expected)
    assert set(drawn.tolist()) == expected
    assert item["ray_known"][0][counted].all()
    assert not item["ray_known"][0][~counted].any()
    assert (item["ray_cells"][0][~counted] == -1).all()
    assert np.array_equal(item["ray_labels"][0][counted], item["semantics"][0].ravel()[drawn])
    affine = np.array([[-1.0 if flip else 1.0, 0.0, 95.0 if flip else 0.0], [0.0, 1.0, 0.0]])
    pixels = np.stack([drawn // 12, drawn % 12], 1)
    along = ray_cells(mounted, pixels, small.bins, GRID, (8, 12), T_grid_base=tilt, image_affine=affine,
                      augmentation=augmentation)
    assert np.array_equal(item["ray_cells"][0][counted], along)


def test_rays_of_images_alone_cross_the_grid_and_neither_background_nor_occlusion_counts(
    small: WalkOccConfig, image_samples: Sequence[ImageSample]
) -> None:
    semantics = image_samples[0].semantics["eye"].copy()
    semantics[:, :40] = 14
    sample = replace(image_samples[0], semantics={"eye": semantics})
    item = make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=96)
    counted = item["ray_labels"][0] != -100
    shown = item["semantics"][0].ravel()
    assert 5 < counted.sum() < (shown > 0).sum()
    assert set(item["ray_labels"][0][counted]) <= {1, 11}
    assert (item["ray_cells"][0][counted] >= 0).any(1).all()
    assert not item["ray_known"].any()


def test_rays_are_drawn_at_random_and_no_pixel_twice(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    drawn = [make_item(samples[0], small, NO_AUGMENTATION, np.random.default_rng(seed), rays=12)["ray_pixels"][0]
             for seed in range(8)]
    assert all(len(set(pixels.tolist())) == 12 for pixels in drawn)
    assert len({tuple(pixels) for pixels in drawn}) == 8


def test_rays_favour_classes_of_few_pixels(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    classes = np.full((64, 96), int(Sidewalk.ROAD), np.uint8)
    classes[32:40, :48] = Sidewalk.CURB  # 6 of 96 feature pixels
    sample = replace(samples[0], semantics={"front": classes}, range_m={"front": np.full((64, 96), 1.5, np.float32)})
    counts = np.zeros(small.classes)
    possible = np.zeros(small.classes)
    for seed in range(60):
        item = make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(seed), rays=10)
        counts += np.bincount(item["ray_labels"][0], minlength=small.classes)
        everyone = make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(seed), rays=96)["ray_labels"][0]
        possible += np.bincount(everyone[everyone >= 0], minlength=small.classes)
    odds = counts[[Sidewalk.CURB, Sidewalk.ROAD]] / possible[[Sidewalk.CURB, Sidewalk.ROAD]]
    expected = np.sqrt(possible[Sidewalk.ROAD] / possible[Sidewalk.CURB])
    assert odds[0] / odds[1] == pytest.approx(expected, rel=0.25)


def test_what_an_image_lacks_is_no_target(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    bare = replace(samples[0], semantics={}, range_m={})
    item = make_item(bare, small, NO_AUGMENTATION, np.random.default_rng(0), rays=5)
    assert (item["semantics"] == -100).all()
    assert (item["depth"] == -100).all()
    assert (item["ray_labels"] == -100).all()
    assert (item["labels"] != 255).any()


def test_samples_that_do_not_fit_are_named(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    blind = replace(samples[0], images={}, semantics={}, range_m={})
    with pytest.raises(DatasetError, match=r"tiny\[0\].*no image"):
        make_item(blind, small, NO_AUGMENTATION, np.random.default_rng(0))
    with pytest.raises(DatasetError, match="100, 100, 50"):
        make_item(samples[0], WalkOccConfig.lite(), NO_AUGMENTATION, np.random.default_rng(0))
    foreign = replace(samples[0], semantics={"front": np.full((64, 96), 15, np.uint8)})
    with pytest.raises(DatasetError, match=r"tiny\[0\]: the image of front carries the classes \[15\].* 0\.\.14"):
        make_item(foreign, small, NO_AUGMENTATION, np.random.default_rng(0))


def test_voxels_of_another_taxonomy_are_refused_by_name(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    def labelled(label: int) -> Sample:
        labels = samples[0].labels.copy()
        labels[0, 0, 1] = label
        return replace(samples[0], labels=labels)

    for known in (13, 254, 255):
        make_item(labelled(known), small, NO_AUGMENTATION, np.random.default_rng(0))
    for foreign in (14, 17, 253):
        with pytest.raises(DatasetError, match=rf"tiny\[0\]: its voxels carry the labels \[{foreign}\].* 0\.\.13, 254"):
            make_item(labelled(foreign), small, NO_AUGMENTATION, np.random.default_rng(0))
    with pytest.raises(DatasetError, match=r"tiny\[0\]: .*taxonomy 'kitti', the network's of 'sidewalk14'.*Map"):
        make_item(replace(samples[0], taxonomy="kitti"), small, NO_AUGMENTATION, np.random.default_rng(0))
