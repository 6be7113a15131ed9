"""`label`: what a user types, what comes out, and what is said where it cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

from occ_perception import cli
from occ_perception.labeling.__main__ import main
from occ_perception.labeling.scene_job import label_scene
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import LabelSettings


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_corrupt_bag_is_named_and_nothing_is_labelled(streets: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cut.mcap").write_bytes(b"no bag")
    status, text = said("run", str(tmp_path / "cut.mcap"), str(tmp_path / "out"), "--segmenter", "simulated",
                        "--rig", "sidewalk_wheeled", "--area", "residential")
    assert status == 1
    assert "cut.mcap" in text
    assert "0 done now, 0 before, 1 skipped, 0 failed" in text


def test_score_shows_the_reports(streets: ModuleType, tmp_path: Path) -> None:
    label_scene(streets.Street("a", frames=1), tmp_path, LabelSettings(segmenter=SimulatedErrors(), grid=streets.SPEC))
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    status, text = said("score", str(tmp_path))
    assert status == 0
    assert f"{100 * report['quality']['scores']['iou']:.2f}" in text
    (tmp_path / "a" / "report.json").write_text("{")
    assert said("score", str(tmp_path))[0] == 1


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["run", "absent", "out"], "segmenter must be named"),
    (["run", "absent", "out", "--segmenter", "simulated"], "absent does not exist"),
    (["run", ".", "out", "--segmenter", "simulated"], "is a bag, which needs a rig and an area"),
    (["run", ".", "out", "--segmenter", "simulated", "--topic", "front"], "'front' is not SENSOR=TOPIC"),
    (["run", ".", "out", "--settings", "absent.yaml"], "absent.yaml: cannot be read"),
    (["score", "absent"], "holds no labelled scene"),
])
def test_what_cannot_work_is_said_before_any_work(arguments: list[str], complaint: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, text = said(*arguments)
    assert status == 1
    assert complaint in text
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_segmenter_go_before_the_file(tmp_path: Path) -> None:
    from occ_perception.labeling.__main__ import _settings

    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump({"segmenter": {"kind": "simulated", "error_rate": 0.2}}))
    assert _settings(path, "simulated", None).segmenter == SimulatedErrors(error_rate=0.2)
    chosen = _settings(path, "weights/sam3", Path("runs/best")).to_dict()["segmenter"]
    assert chosen == {"kind": "sam3", "base": "weights/sam3", "finetuned": "runs/best", "device": "cpu",
                      "dtype": "float32"}


def test_the_command_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["label", "--help"])
    assert caught.value.code == 0
    assert "finetune" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["label", "score", "absent"])
    assert caught.value.code == cli.ERROR_STATUS
