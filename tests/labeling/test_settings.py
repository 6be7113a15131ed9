"""Settings go to YAML and back; what does not fit is listed all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.labeling.accumulate import AccumulateSettings
from occ_perception.labeling.mesh import PoissonSettings
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import (
    LabelSettings,
    NoVote,
    Sam3Folders,
    load_settings,
    settings_from_dict,
)
from occ_perception.labeling.vote import KnnVote, VoxelVote


@pytest.mark.parametrize("settings", [
    LabelSettings(segmenter=SimulatedErrors(error_rate=0.2, seed=3)),
    LabelSettings(segmenter=Sam3Folders(base=Path("a"), finetuned=Path("b"), device="cuda", dtype="bfloat16"),
                  grid=VoxelGridSpec((0, -4, -1), (8, 4, 2), (0.2, 0.2, 0.1)), vote=KnnVote(neighbours=5),
                  accumulate=AccumulateSettings(articulated_s=0.5), surfaces=PoissonSettings(trimmed=0.1)),
    LabelSettings(segmenter=SimulatedErrors(), vote=VoxelVote(fine_voxel_m=None)),
    LabelSettings(segmenter=SimulatedErrors(), vote=NoVote()),
])
def test_settings_come_back_from_yaml(settings: LabelSettings, tmp_path: Path) -> None:
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump(settings.to_dict()))
    assert settings_from_dict(load_settings(path), str(path)) == settings


def test_only_the_segmenter_must_be_named() -> None:
    settings = settings_from_dict({"segmenter": {"kind": "simulated"}}, "test")
    assert settings.grid == SIDEWALK_GRID
    assert settings.vote == VoxelVote()
    with pytest.raises(ConfigurationError, match="segmenter must be named"):
        settings_from_dict({}, "test")


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from_dict({
            "colour": 3, "grid": {"minimum_m": [0, 0, 0], "maximum_m": [1, 1, 1], "cell_m": 0.3},
            "vote": {"kind": "loud"}, "accumulate": {"ground_gap_m": "wide", "gap": 1}, "surfaces": "fused",
            "segmenter": {"kind": "simulated", "error_rate": 3}}, "fleet.yaml")
    text = str(caught.value)
    for part in ("fleet.yaml", "no section 'colour'", "grid: x: the side holds", "vote.kind must be one of voxel, knn",
                 "accumulate.ground_gap_m", "got 'wide'", "accumulate has no 'gap'", "surfaces must be a mapping",
                 "error_rate must be in 0..1"):
        assert part in text


@pytest.mark.parametrize(("text", "complaint"), [("- 1", "must hold a mapping"), ("a: [", "cannot be read")])
def test_a_file_that_is_no_mapping_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "label.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        load_settings(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "absent.yaml")
