"""The real recordings beside the checkout, as rigs and files. They are not ours to pass on, so they may be absent."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / ".." / "shared" / "real"


@pytest.fixture(scope="session")
def real_input():
    """The script that knows the odd calibration formats of these recordings."""
    spec = importlib.util.spec_from_file_location("real_input", ROOT / "scripts" / "real_input.py")
    module = sys.modules["real_input"] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def folder(name):
    path = SOURCE / name
    if not path.is_dir():
        pytest.skip(f"the recording {name} is not beside this checkout (../shared/real)")
    return path


@pytest.fixture(scope="session")
def fisheye_vehicle(real_input):
    return real_input.fisheye_vehicle(folder("roecs_fisheye4"))


@pytest.fixture(scope="session")
def tracked_robot(real_input):
    return real_input.tracked_robot(folder("marv_quadcam_os0"))
