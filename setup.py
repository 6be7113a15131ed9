"""Packaging for pip and for colcon (ament_python). Requirements and data files are found, not repeated."""

import os
from pathlib import Path

from setuptools import find_packages, setup

NAME = "occ_perception"
# colcon and pip both run this in the folder it lies in, and data files must be named relative to it.
ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)


def requirements(name: str) -> list[str]:
    """The lines of requirements/<name>.in without comments."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
    return [line for line in (text.split("#")[0].strip() for text in lines) if line]


def version() -> str:
    """`__version__` of the package, read without importing it."""
    for line in (ROOT / NAME / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError(f"{NAME}/__init__.py states no __version__")


def shared_files(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file below the folders, to be installed under share/occ_perception.

    Missing folders are left out, and so are the drafts (`*.tmp*`) of a file or folder that is being written.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and ".tmp" not in str(path):
                found.setdefault(f"share/{NAME}/{path.parent.as_posix()}", []).append(path.as_posix())
    return sorted(found.items())


setup(
    name=NAME,
    version=version(),
    description="Live 3D occupancy and trajectories for robots on sidewalks, as ROS 2 nodes",
    long_description="Fisheye cameras and LiDAR in, labelled voxel grids and trajectories out, as ROS 2 messages.",
    maintainer="occ_perception developers",
    maintainer_email="occ-perception@users.noreply.github.com",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "**/*.msg", "**/*.html", "**/*.css", "**/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared_files("launch", "config", "rviz", "calibration", "models", "sample"),
    ],
    install_requires=requirements("runtime"),
    extras_require={
        "train": requirements("train"),
        "label": requirements("label"),
        "mesh": requirements("mesh"),
        "viz": requirements("viz"),
        "gpu": requirements("gpu"),
        "dev": requirements("dev"),
        "test": ["hypothesis", "pytest"],  # what `colcon test` looks for
    },
    entry_points={
        "console_scripts": [
            "occ-perception = occ_perception.cli:main",
            "perception_node = occ_perception.ros.perception_node:main",
            "occupancy_node = occ_perception.ros.occupancy_node:main",
            "bag_player = occ_perception.ros.player:main",
            "bag_recorder = occ_perception.ros.recorder:main",
        ],
    },
    zip_safe=False,
)
