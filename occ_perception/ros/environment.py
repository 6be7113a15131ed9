"""What every process of ours needs around it: the package's own files and the DDS transport profile. No rclpy."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from occ_perception.errors import ConfigurationError

PACKAGE = "occ_perception"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Older Fast DDS (up to Jazzy's) reads the first, newer ones the second."""


def share_folders() -> list[Path]:
    """Folders that may hold launch/, config/, calibration/ and models/, best first: checkout, colcon, pip."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    installed = [prefix / "share" / PACKAGE for prefix in [*prefixes, Path(sys.prefix)]]
    return [Path(__file__).resolve().parents[2], *installed]


def shipped(relative: str) -> Path:
    """A file or folder that comes with the package, such as `config/fastdds.xml`.

    Raises:
        ConfigurationError: it is in none of the share folders.
    """
    folders = share_folders()
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    raise ConfigurationError([f"{relative} is not installed"], where=PACKAGE,
                             fix=f"Looked in {', '.join(map(str, folders))}; install the package again")


def rig_file(text: str) -> Path:
    """A rig by file, or by the name of a shipped one."""
    by_name = not Path(text).exists() and "/" not in text and not text.endswith(".yaml")
    return shipped("calibration") / f"{text}.yaml" if by_name else Path(text)


def use_transport_profile(environment: MutableMapping[str, str] | None = None) -> None:
    """Name our Fast DDS profile in `environment` (default this process's), unless somebody named one already.

    Must run before the first participant is made. Without it Fast DDS's 512 KB of shared memory lose raw images.
    """
    environment = os.environ if environment is None else environment
    if not any(environment.get(name) for name in PROFILE_VARIABLES):
        for name in PROFILE_VARIABLES:
            environment[name] = str(shipped("config/fastdds.xml"))
