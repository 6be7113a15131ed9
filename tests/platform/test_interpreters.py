"""The runtime lock installs on the other supported Pythons of this machine, and the tests that can run there do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROS_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "ROS_DISTRO")
BESIDE_THE_RUNTIME = ("pytest", "pytest-xdist", "hypothesis", "onnx", "embreex")
OTHERS = [release for release in ("3.10", "3.11", "3.12") if release != "{}.{}".format(*sys.version_info[:2])]


def answers(program: Path, release: str) -> bool:
    """Whether the program is a Python of that release that can make virtual environments."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([program, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return False
    return done.stdout.strip() == release


def interpreter(release: str) -> Path | None:
    """A Python of that release: on the PATH, or among those of pyenv."""
    found = shutil.which(f"python{release}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*([Path(found)] if found else []), *sorted(pyenv.glob(f"{release}.*/bin/python{release}"))]
    return next((program for program in candidates if answers(program, release)), None)


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Output of a command in an environment without ROS; the test fails with its last lines if it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ROS_VARIABLES}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def environment_for(program: Path, release: str, folder: Path) -> Path:
    """Python of a virtual environment with the locked runtime, pytest and what tests use beyond torch and ROS.

    It is made anew when a lock or what is installed has changed.
    """
    locks = ROOT / "requirements" / f"python{release}"
    names = ("runtime.txt", "train.txt", "dev.txt")
    locked = b"".join((locks / name).read_bytes() for name in names)
    state = hashlib.sha256(locked + " ".join(BESIDE_THE_RUNTIME).encode()).hexdigest()
    stamp, python = folder / "complete", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(folder, ignore_errors=True)
        run(program, "-m", "venv", folder)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "-r", locks / "runtime.txt")
        constraints = [word for name in names for word in ("-c", locks / name)]
        run(*pip, *constraints, *BESIDE_THE_RUNTIME)
        stamp.write_text(state)
    return python


@pytest.mark.slow
@pytest.mark.parametrize("release", OTHERS)
def test_the_locked_runtime_works_on_this_python(
    release: str, wheel: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    program = interpreter(release)
    if program is None:
        pytest.skip(f"no Python {release} on the PATH or in pyenv")
    python = environment_for(program, release, pytestconfig.cache.mkdir(f"python{release}"))

    # The installed wheel needs nothing beyond the lock, and works away from the checkout.
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--force-reinstall", wheel)
    run(*pip, "check")
    names = {item["name"].lower().replace("_", "-") for item in json.loads(run(*pip, "list", "--format", "json"))}
    assert "occ-perception" in names
    assert not names & {"torch", "rclpy"}
    run(python.parent / "occ-perception", "--help", cwd=tmp_path)

    report = run(python, "-m", "pytest", "-q", "-m", "not ros and not torch and not slow", "--ignore=tests/platform",
                 "-p", "no:cacheprovider", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
    assert " passed" in report
    assert " failed" not in report
