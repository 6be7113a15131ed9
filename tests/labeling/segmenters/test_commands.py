"""`label` with SAM3: recordings are labelled by weights in a folder, and `finetune` makes such a folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed (the extra `label`)")

from occ_perception.datasets.sidewalk3d import Sidewalk3dDataset
from occ_perception.labeling.__main__ import main
from occ_perception.labeling.segmenters.finetune import BEST

pytestmark = pytest.mark.torch


def test_weights_in_a_folder_label_a_scene(streets: ModuleType, sam3_folder: Path, tmp_path: Path) -> None:
    scene = streets.write_scene(tmp_path / "scenes" / "a", frames=1)
    result = CliRunner().invoke(main, ["run", str(scene), str(tmp_path / "out"), "--no-boxes",
                                       "--segmenter", str(sam3_folder)])
    assert result.exit_code == 0, result.output
    [report] = (tmp_path / "out").glob("*/report.json")
    assert sam3_folder.name in json.loads(report.read_text())["segmenter"]
    samples = Sidewalk3dDataset(tmp_path / "out", "train")
    assert len(samples) == 1
    assert (samples[0].labels != 255).any()


def test_finetune_makes_weights_that_a_run_takes(sam3_folder: Path, annotated: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    result = CliRunner().invoke(main, ["finetune", str(sam3_folder), str(annotated), str(annotated), str(output),
                                       "--epochs", "1", "--batch-size", "1", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1" in result.output
    assert (output / BEST / "model.safetensors").is_file()
