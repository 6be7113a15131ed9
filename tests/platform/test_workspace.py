"""colcon finds, builds and tests both packages, and setting up twice does nothing the second time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITH_ROS = ROOT / "scripts" / "with_ros"
PACKAGES = {"occ_perception", "occ_perception_msgs"}


@pytest.fixture(scope="module", autouse=True)
def set_up() -> None:
    if not (ROOT / "ros2_ws" / "install" / "occ_perception_msgs").is_dir():
        pytest.skip("the workspace is not built: run `make setup`")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.ros
@pytest.mark.parametrize(("folder", "base_paths"), [("ros2_ws", ["."]), (".", [".", "ros2_ws/src"])])
def test_colcon_lists_both_packages(folder: str, base_paths: list[str]) -> None:
    """From the root the workspace must be named too: the root's package.xml hides what lies below it."""
    listed = run(WITH_ROS, "colcon", "list", "--names-only", "--base-paths", *base_paths, cwd=ROOT / folder)
    assert set(listed.split()) == PACKAGES


@pytest.mark.ros
def test_colcon_builds_the_package_with_its_shared_files(tmp_path: Path) -> None:
    run(WITH_ROS, "colcon", "--log-base", tmp_path / "log", "build", "--packages-select", "occ_perception",
        "--build-base", tmp_path / "build", "--install-base", tmp_path / "install", cwd=ROOT / "ros2_ws")
    prefix = tmp_path / "install" / "occ_perception"
    assert (prefix / "share/ament_index/resource_index/packages/occ_perception").exists()
    assert (prefix / "share/occ_perception/package.xml").exists()
    assert os.access(prefix / "lib/occ_perception/perception_node", os.X_OK)
    for folder in ("launch", "config", "rviz", "calibration", "models", "sample"):
        assert list((prefix / "share/occ_perception" / folder).rglob("*.*")), folder


@pytest.mark.ros
def test_colcon_runs_the_tests_of_both_packages() -> None:
    """A quick file stands for our tests: with the wrong setup.py keyword colcon silently collects none at all."""
    workspace = ROOT / "ros2_ws"
    for package in PACKAGES:
        for old in (workspace / "build" / package).rglob("*.xml"):
            if old.name == "pytest.xml" or old.name.endswith(".xunit.xml"):
                old.unlink()
    run(WITH_ROS, "colcon", "test", "--return-code-on-test-failure", "--pytest-args", "tests/platform/test_locks.py",
        "-p", "no:cacheprovider", cwd=workspace)
    for package in PACKAGES:
        reports = [path for path in (workspace / "build" / package).rglob("*.xml")
                   if path.name == "pytest.xml" or path.name.endswith(".xunit.xml")]
        suites = [suite for path in reports for suite in ElementTree.parse(path).iter("testsuite")]
        assert sum(int(suite.get("tests", 0)) for suite in suites) >= 4, package


def test_setting_up_again_does_nothing() -> None:
    if not (ROOT / ".venv" / ".stamps" / "dev").exists():
        pytest.skip("`make test` has not set this checkout up")
    run(ROOT / "scripts" / "setup", "test")
    assert run(ROOT / "scripts" / "setup", "test") == ""


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A folder with what scripts/setup reads before it makes anything."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", copy / "requirements")
    return copy


def test_a_ros_installation_that_lacks_packages_is_told_what_to_install(bare_checkout: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "ROS_DISTRO": "humble"}
    command = [str(bare_checkout / "scripts" / "setup"), "demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ros-humble-rosidl-default-generators" in done.stderr
    assert not (bare_checkout / ".venv").exists()


def test_a_step_that_fails_shows_its_last_lines_and_is_tried_again(bare_checkout: Path) -> None:
    for lock in bare_checkout.glob("requirements/*/runtime.txt"):
        lock.write_text("no-such-package-of-occ-perception==1.0\n")
    command = [str(bare_checkout / "scripts" / "setup"), "demo"]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PIP_NO_INDEX": "1"}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "install the locked packages ... failed" in done.stdout
        assert "no-such-package-of-occ-perception" in done.stderr
        assert "setup.log" in done.stderr


def test_a_python_that_does_not_fit_is_named_with_what_to_do(bare_checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir"):
        (tools / name).symlink_to(shutil.which(name) or name)
    environment = {"PATH": str(tools), "HOME": str(tmp_path), "PYTHON": str(old)}
    command = [str(bare_checkout / "scripts" / "setup"), "demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No Python 3.10, 3.11 or 3.12 was found" in done.stderr
    assert "apt install" in done.stderr
    assert not (bare_checkout / ".venv").exists()


def test_make_help_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    listed = set(re.findall(r"^  make ([a-z]+)", run("make", "help"), re.MULTILINE))
    assert {"demo", "test", "bench", "lint", "clean", "help"} <= targets == listed
