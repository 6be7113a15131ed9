"""The locks: complete, exact, in agreement with each other, and the robot's one without torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
RELEASES = ("3.10", "3.11", "3.12")
SETS = ("runtime", "ros", "train", "label", "viz", "dev")
ROBOT_LACKS = {"torch", "triton", "onnx", "onnxscript", "safetensors", "open3d", "transformers", "rerun-sdk", "embreex"}


def canonical(name: str) -> str:
    """The name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(name: str) -> set[str]:
    """Names of the requirements in requirements/<name>.in."""
    lines = (line.split("#")[0].strip() for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines())
    return {canonical(re.split(r"[\[<>=!~]", line)[0].strip()) for line in lines if line}


def pins(release: str, name: str) -> dict[str, str]:
    """Version by name in one lock; every line must be an exact pin."""
    lines = (REQUIREMENTS / f"python{release}" / f"{name}.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonical(name): version for name, version in found.items()}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", SETS)
def test_every_requirement_is_pinned(release: str, name: str) -> None:
    assert wanted(name) <= set(pins(release, name))


@pytest.mark.parametrize("release", RELEASES)
def test_the_sets_of_one_python_agree(release: str) -> None:
    merged: dict[str, str] = {}
    for name in SETS:
        locked = pins(release, name)
        shared = merged.keys() & locked.keys()
        assert {key: locked[key] for key in shared} == {key: merged[key] for key in shared}, name
        merged |= locked


@pytest.mark.parametrize("release", RELEASES)
def test_a_robot_installs_nothing_that_trains(release: str) -> None:
    assert not ROBOT_LACKS & set(pins(release, "runtime"))
    assert not ROBOT_LACKS & set(pins(release, "ros"))


@pytest.mark.parametrize("release", RELEASES)
def test_torch_brings_its_own_platform_packages(release: str) -> None:
    locked = pins(release, "train")
    assert locked["torch"] == "2.13.0"
    assert not [name for name in locked if name.startswith(("nvidia-", "cuda-")) or name == "triton"]


@pytest.mark.parametrize("release", RELEASES)
def test_what_broke_before_stays_pinned_below(release: str) -> None:
    opencv = pins(release, "runtime")["opencv-python-headless"]
    setuptools = pins(release, "ros")["setuptools"]
    assert int(opencv.split(".")[0]) < 5, "5.0 changed the type codes"
    assert int(setuptools.split(".")[0]) < 80, "80 lost what colcon build --symlink-install calls"
