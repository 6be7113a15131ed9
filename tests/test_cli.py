"""The command line: what it prints, what it writes, and one clear line with status 2 for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception import cli
from occ_perception.calibration import load_rig

SHIPPED = Path(__file__).resolve().parents[1] / "calibration"
COMMANDS = [["replay"], ["score"], ["simulate"], ["env"], ["rig", "check"], ["rig", "convert"], ["rig", "health"],
            ["rig", "calibrate"], ["bag", "info"], ["bag", "create"], ["bag", "simulate"], ["engine", "check"],
            ["demo"], ["bench"]]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and errors of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_describes_itself_and_its_options(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    status, out, _ = run(capsys, *command, "--help")
    assert status == 0
    assert "Usage: occ-perception" in out


def test_help_imports_no_heavy_library() -> None:
    code = ("import sys\nfrom occ_perception import cli\n"
            "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
            "print([m for m in ('torch', 'numba', 'cv2', 'onnxruntime', 'rosbags', 'rclpy') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def foreign(folder: Path) -> Path:
    path = folder / "holiday.mcap"
    path.write_bytes(b"these are no messages" * 10)
    return path


@pytest.mark.parametrize(("arguments", "message"), [
    (["bag", "info", "{tmp}/nothing"], "does not exist"),
    (["bag", "info", "{tmp}/holiday.mcap"], "holiday.mcap"),
    (["replay", "{tmp}/holiday.mcap", "--model", "{tmp}/no_model"], "manifest.yaml"),
    (["replay", "{tmp}/holiday.mcap", "--rig", "{tmp}/no_rig.yaml"], "no such rig file"),
    (["replay", "{tmp}/holiday.mcap", "--rig", "unicycle"], "no such rig file"),
    (["score", "{tmp}/holiday.mcap", "--truth", "{tmp}/nothing"], "holiday.mcap"),
    (["engine", "check", "{tmp}"], "manifest.yaml"),
    (["rig", "check", "sidewalk_wheeled", "--images", "front={tmp}/none.jpg"], "does not exist"),
    (["rig", "check", "sidewalk_wheeled", "--images", "rear={tmp}/holiday.mcap"], "the rig has no rear"),
    (["rig", "health", "sidewalk_wheeled", "--bag", "{tmp}/holiday.mcap"], "holiday.mcap"),
    (["rig", "health", "sidewalk_wheeled", "--images", "front={tmp}", "--cloud", "top={tmp}"], "no file ending in"),
    (["rig", "calibrate", "sidewalk_wheeled", "--camera", "rear", "--images", "{tmp}", "--cloud", "{tmp}", "--out",
      "{tmp}/rig.yaml"], "no sensor named 'rear'"),
    (["rig", "calibrate", "sidewalk_wheeled", "--camera", "front", "--bag", "{tmp}/nothing", "--out",
      "{tmp}/rig.yaml"], "does not exist"),
    (["rig", "calibrate", "sidewalk_wheeled", "--camera", "front", "--bag", "{tmp}/nothing", "--marker", "0.2", "--out",
      "{tmp}/rig.yaml"], "marker_m < square_m"),
    (["bag", "create", "{tmp}/new.mcap", "--rig", "sidewalk_wheeled", "--images", "{tmp}"], "no files for camera"),
    (["rig", "convert", "opencv", "{tmp}/holiday.mcap", "--out", "{tmp}/rig.yaml"], "unknown kind of calibration"),
])
def test_wrong_input_gives_one_clear_error_and_status_2(
        capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    foreign(tmp_path)
    status, _, err = run(capsys, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert status == 2
    assert message in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_wrong_option_is_refused_with_the_choices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "replay", str(tmp_path), "--device", "toaster")
    assert status == 2
    assert "cuda" in err
    status, _, err = run(capsys, "replay", str(foreign(tmp_path)), "--topic", "front", "--model", str(tmp_path))
    assert status == 2


@pytest.mark.parametrize("arguments", [
    ["health", "sidewalk_wheeled", "--images", "front=a.png"],
    ["health", "sidewalk_wheeled", "--images", "a", "--cloud", "b", "--bag", "c"],
    ["calibrate", "sidewalk_wheeled", "--camera", "front", "--out", "r.yaml"],
    ["calibrate", "sidewalk_wheeled", "--camera", "front", "--out", "r.yaml", "--bag", "c", "--squares", "7by5"],
], ids=" ".join)
def test_incomplete_input_of_a_calibration_is_refused_with_what_to_give(
        capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, _, err = run(capsys, "rig", *arguments)
    assert status == 2
    assert "--images" in err or "COLUMNSxROWS" in err
    assert f"Usage: occ-perception rig {arguments[0]}" in err


def test_a_missing_optional_package_names_the_extra(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)
    status, _, err = run(capsys, "simulate", "val", "--root", str(tmp_path))
    assert status == 2
    assert "embreex is not installed" in err
    assert "occ_perception[train]" in err


def test_env_tells_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "env", "--json")
    assert status == 0
    about = json.loads(out)
    assert about["machine"]["cores"] >= 1
    assert about["software"]["python"] == sys.version.split()[0]
    assert about["software"]["numpy"] == np.__version__


def test_rig_check_draws_into_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    camera = load_rig(SHIPPED / "sidewalk_wheeled.yaml").cameras[0]
    image = tmp_path / f"{camera.name}.jpg"
    cv2.imwrite(str(image), np.full((camera.height, camera.width, 3), 90, np.uint8))
    np.save(tmp_path / "scan.npy", np.array([[3.0, 0.0, -0.5], [4.0, 1.0, -0.5]], np.float32))
    status, out, _ = run(capsys, "rig", "check", "sidewalk_wheeled", "--images", str(tmp_path),
                         "--cloud", str(tmp_path / "scan.npy"), "--out", str(tmp_path / "drawn"))
    assert status == 0
    assert camera.name in out
    picture = cv2.imread(str(tmp_path / "drawn" / f"{camera.name}.png"))
    assert picture is not None
    assert (picture != 90).any()


def test_rig_convert_writes_a_rig_that_rig_check_accepts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    info = {"image_width": 64, "image_height": 48, "distortion_model": "plumb_bob",
            "camera_matrix": {"data": [40.0, 0, 31.5, 0, 40.0, 23.5, 0, 0, 1]},
            "distortion_coefficients": {"data": [0, 0, 0, 0, 0]}}
    (tmp_path / "front.yaml").write_text(json.dumps(info))
    status, _, err = run(capsys, "rig", "convert", "camera_info", f"front={tmp_path / 'front.yaml'}",
                         "--pose", "front=0,0,1,0,10,0", "--out", str(tmp_path / "rig.yaml"))
    assert status == 0, err
    status, out, _ = run(capsys, "rig", "check", str(tmp_path / "rig.yaml"))
    assert status == 0
    assert "-10.0°" in out


def test_a_bag_is_created_and_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    camera = load_rig(SHIPPED / "sidewalk_wheeled.yaml").cameras[0]
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((camera.height, camera.width, 3), np.uint8))
    bag = tmp_path / "new.mcap"
    status, _, err = run(capsys, "bag", "create", str(bag), "--rig", "sidewalk_wheeled",
                         "--images", f"{camera.name}={tmp_path / 'one.png'}", "--repeat", "3")
    assert status == 0, err
    status, out, _ = run(capsys, "bag", "info", str(bag))
    assert status == 0
    assert f"/camera/{camera.name}" in out
    assert " 3 " in out
