"""What `pip install .` installs: the package, its messages and shared files, its commands, and no torch."""

from __future__ import annotations

import configparser
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "runtime.txt"


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_and_message_is_in_the_wheel(contents: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "occ_perception").rglob("*.py")}
    messages = {f"occ_perception/recordings/msg/{path.name}" for path in ROOT.glob("ros2_ws/src/*/msg/*.msg")}
    assert len(messages) >= 5
    assert modules | messages | {"occ_perception/py.typed"} <= contents


@pytest.mark.parametrize("folder", ["launch", "config", "rviz", "calibration", "models", "sample"])
def test_every_shared_file_is_in_the_wheel(contents: set[str], folder: str) -> None:
    below = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
    files = [path for path in below if path.suffix != ".pyc" and ".tmp" not in str(path)]
    assert files
    installed = {name.partition("/data/share/occ_perception/")[2] for name in contents}
    assert {path.as_posix() for path in files} <= installed


def test_ament_finds_the_package_in_its_index(contents: set[str]) -> None:
    assert any(name.endswith("/data/share/ament_index/resource_index/packages/occ_perception") for name in contents)


def test_every_command_names_a_function_that_exists(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        table = configparser.ConfigParser()
        table.read_string(archive.read(name).decode())
    commands = dict(table["console_scripts"])
    assert {"occ-perception", "perception_node", "occupancy_node"} <= set(commands)
    for target in commands.values():
        module, function = target.split(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None, target
        assert spec.origin is not None, target
        assert f"def {function}(" in Path(spec.origin).read_text(encoding="utf-8"), target


def test_the_runtime_needs_exactly_its_lock(wheel: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command = [*pip, "--report", str(report), "-c", str(LOCK), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    chosen = {item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
              for item in json.loads(report.read_text())["install"]}
    locked = {line.split("==")[0] for line in LOCK.read_text().splitlines() if not line.startswith("#")}
    assert "torch" not in chosen
    assert chosen == locked | {"occ-perception"}
