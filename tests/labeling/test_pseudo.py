"""A simulated split gets labels as a recording does, in the size of its smaller copy; what is there is kept."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner

from occ_perception.datasets import SimulatedDataset, open_split
from occ_perception.datasets.shrink import shrink
from occ_perception.datasets.sidewalk3d import read_splits
from occ_perception.errors import DatasetError
from occ_perception.labeling import pseudo
from occ_perception.labeling.pseudo import label_split
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.metrics import OccupancyIoU
from occ_perception.taxonomy import OCCUPIED, SIDEWALK, Sidewalk

QUIET = Console(file=io.StringIO())
SIZE = (60, 80)


@pytest.fixture(scope="module")
def root(streets: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated splits of one scene, and smaller copies of them."""
    root = tmp_path_factory.mktemp("pseudo")
    for split, frames in (("train", 3), ("val", 1)):
        streets.write_scene(root / "sim" / split / "walk", frames)
        (root / "sim" / split / "split.yaml").write_text(yaml.safe_dump({
            "version": "1", "content_hash": split, "taxonomy": "sidewalk14",
            "scenes": [{"name": "walk", "frames": frames}]}))
        shrink(root / "sim", split, root / "small", SIZE, 0.2, console=QUIET)
        label_split(root / "sim", root / "small", split, console=QUIET)
    return root


def test_labels_come_in_the_size_of_the_copy_and_are_right(root: Path) -> None:
    truth, labelled = SimulatedDataset(root / "small", "train"), open_split(root / "small", "train_pseudo")
    score = OccupancyIoU(len(SIDEWALK))
    for k in range(3):
        want, got = truth[k], labelled[k]
        assert (got.scene, got.stamp_ns, got.spec.cell_m) == ("train_pseudo/walk", want.stamp_ns, 0.2)
        np.testing.assert_array_equal(got.waypoints_m, want.waypoints_m)
        np.testing.assert_allclose(got.T_world_grid, want.T_world_grid, atol=1e-8)
        assert np.abs(got.images["front"].astype(int) - want.images["front"]).mean() < 3
        assert got.rig.model_dump_json() == want.rig.model_dump_json()
        # the street's grid is a part of the sidewalk grid
        part = np.s_[:45, 10:40, 5:20]
        score.update(got.labels[part], want.labels, want.visible & (got.labels[part] != 255))
    assert score.compute()["iou"] > 0.85
    assert score.compute()["per_class"][Sidewalk.WALL] > 0.7


def test_classes_and_clouds_are_the_segmenters_not_the_truth(root: Path) -> None:
    truth, labelled = SimulatedDataset(root / "small", "train"), open_split(root / "small", "train_pseudo")
    wrong = [(truth[k].semantics["front"] != labelled[k].semantics["front"]).mean() for k in range(3)]
    assert 0.05 < np.mean(wrong) < 0.15
    cloud = labelled.cloud(0)  # type: ignore[union-attr]
    want = truth[0].points_m
    assert want is not None
    assert abs(len(cloud.points_m) - len(want)) < 3  # what the camera sees; the copy's points are whole millimetres
    assert 0.9 < np.isin(cloud.labels, (Sidewalk.SIDEWALK, Sidewalk.WALL, Sidewalk.PERSON)).mean() < 1.0
    assert (labelled[0].labels == OCCUPIED).any()


def test_every_split_is_listed_beside_the_others(root: Path) -> None:
    version, splits = read_splits(root / "small")
    assert version == f"pseudo {pseudo.VERSION}"
    assert splits == {"train_pseudo": ["train_pseudo/walk"], "val_pseudo": ["val_pseudo/walk"]}


def test_scenes_that_are_there_are_kept_and_labels_by_another_recipe_are_not_mixed_in(
        root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo, "label_clip", lambda *_: pytest.fail("a scene is labelled again"))
    before = open_split(root / "small", "train_pseudo").content_hash
    assert label_split(root / "sim", root / "small", "train", console=QUIET) == "train_pseudo"
    assert open_split(root / "small", "train_pseudo").content_hash == before
    with pytest.raises(DatasetError, match=r"recipe\.yaml: the folder holds labels by another recipe"):
        label_split(root / "sim", root / "small", "train", SimulatedErrors(error_rate=0.2), console=QUIET)


def test_the_command_names_what_is_missing(root: Path) -> None:
    app = typer.Typer()
    app.command()(pseudo.main)
    result = CliRunner().invoke(app, [str(root / "sim"), str(root / "small"), "test"])
    assert result.exit_code == 1
    assert "error:" in result.output
    assert "no finished split 'test'; there are: train, val" in result.output
