from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import SIDEWALK_GRID
from occ_perception.training.experiments.rows import LABELLED, ROWS, TRUTH_CELL_M, Row, get_row
from occ_perception.training.experiments.scale import SCALES, Scale, get_scale
from occ_perception.training.loop import TrainingConfig

HERE = Path("somewhere")


def training(row: Row, scale: Scale, seed: int = 0) -> TrainingConfig:
    return row.training(scale, seed, data=HERE, output=HERE, trunk=None)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_can_be_configured_at_every_scale_with_equal_budgets(row: Row, scale: Scale) -> None:
    config, base = training(row, scale), training(ROWS["walkocc_paired"], scale)
    for field in ("steps", "batch_size", "learning_rate", "bfloat16", "augmentation"):
        assert getattr(config, field) == getattr(base, field)
    encoder = ("image_size", "resnet_layers", "stem_channels", "stage_channels", "neck_channels", "first_stage")
    assert [getattr(config.network, name) for name in encoder] == [getattr(base.network, name) for name in encoder]
    parallel = row.training(scale, 0, data=HERE, output=HERE, trunk=None, loaders=5)
    assert replace(parallel, loaders=config.loaders) == config


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_grid_can_be_cut_from_the_truth_in_its_cells(row: Row, scale: Scale) -> None:
    grid = row.network(scale).output_grid
    factor = float(grid.cell[0]) / TRUTH_CELL_M
    assert factor == pytest.approx(round(factor))
    offset = (np.asarray(grid.minimum_m) - SIDEWALK_GRID.minimum_m) / grid.cell
    assert offset == pytest.approx(np.rint(offset), abs=1e-6)
    assert (np.asarray(grid.maximum_m) <= np.asarray(SIDEWALK_GRID.maximum_m) + 1e-9).all()


def test_rows_differ_in_what_their_names_say_and_nothing_else() -> None:
    scale = SCALES["cpu"]
    losses = {name: ROWS[name].loss() for name in ("occupancy_only", "flashocc", "semantics", "walkocc_paired")}
    assert [(loss.depth > 0, loss.semantics > 0, loss.consistency > 0) for loss in losses.values()] == [
        (False, False, False), (True, False, False), (True, True, False), (True, True, True)]
    assert {loss.occupancy for loss in losses.values()} == {losses["flashocc"].occupancy}
    assert {loss.trajectory for loss in losses.values()} == {losses["flashocc"].trajectory}
    walkocc, paired = training(ROWS["walkocc"], scale), training(ROWS["walkocc_paired"], scale)
    assert replace(walkocc, extra_images={}, clearing=(), images_per_batch=0, loss=paired.loss) == paired
    assert (walkocc.loss, walkocc.clearing) == (replace(paired.loss, free_space=1.0), ("images_embodiments",))
    assert walkocc.extra_images == {"images_night": 480, "images_embodiments": 480}
    monoscene, flashocc = training(ROWS["monoscene"], scale), training(ROWS["flashocc"], scale)
    assert (monoscene.network.lifter, monoscene.network.space) == ("line_of_sight", "volume")
    assert replace(monoscene, network=flashocc.network, loss=flashocc.loss) == flashocc
    pseudo = training(ROWS["pseudo_labels"], scale)
    assert (pseudo.train_split, pseudo.validation_split) == ("train_pseudo", "val_pseudo")
    assert replace(pseudo, train_split="train", validation_split="val") == paired
    assert ROWS["trajectory_only"].loss().occupancy == 0
    assert training(ROWS["trajectory_only"], scale).network == paired.network
    assert training(ROWS["lidar"], scale).network == replace(paired.network, lidar=True)


def test_the_number_of_2d_images_is_fixed_whatever_part_of_them_is_by_night() -> None:
    for share in (30, 60, 90):
        images = training(ROWS[f"night_{share}"], SCALES["cpu"]).extra_images
        assert sum(images.values()) == 480
        assert images["images_night"] == 480 * share / 100


def test_the_row_of_the_scales_own_cells_is_walkocc_without_2d_images() -> None:
    assert get_row("cells_020", SCALES["cpu"]).name == "walkocc_paired"
    assert get_row("cells_010", SCALES["gpu"]).name == "walkocc_paired"
    assert get_row("cells_010", SCALES["cpu"]).name == "cells_010"
    with pytest.raises(ConfigurationError, match="flashocc"):
        get_row("yolo", SCALES["cpu"])


def test_no_row_sees_night_other_bodies_or_test_data_but_as_2d_images_of_its_own_splits() -> None:
    for row in ROWS.values():
        learned = {split for split, _ in row.learns_from(SCALES["cpu"])}
        assert {LABELLED.get(split, split) for split in learned} <= {
            "train", "val", "images_day", "images_night", "images_embodiments"}
        assert not learned & (set(row.splits) - {"val"})


def test_paths_are_scored_on_the_truth_as_it_was_simulated() -> None:
    needs = ROWS["walkocc_paired"].needs(SCALES["cpu"])
    assert ("paths", TRUTH_CELL_M) in needs
    assert ("test", 0.2) in needs


def test_the_gpu_scale_has_the_papers_sizes_and_half_a_range_keeps_the_bins() -> None:
    gpu = SCALES["gpu"]
    assert gpu.network.image_size == (544, 960)
    assert gpu.network.output_grid == SIDEWALK_GRID
    assert not gpu.network.lidar
    near = ROWS["range_half"].network(gpu)
    assert near.output_grid.shape == (52, 52, 50)
    assert near.bins.step_m == gpu.network.bins.step_m
    assert near.bins.maximum_m < gpu.network.bins.maximum_m


def test_an_unknown_scale_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="smoke, cpu, gpu"):
        get_scale("huge")


def test_the_smoke_scale_has_few_scenes_of_few_frames() -> None:
    split = SCALES["smoke"].split("test")
    assert (len(split.scenes), split.frames) == (2, 2)
    assert SCALES["cpu"].split("test").frames == 400
