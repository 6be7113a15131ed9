"""The card beside a simulated bag: what makes its world again, so that its truth can be asked at any time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from occ_perception.calibration import Rig
from occ_perception.datasets.files import new_file
from occ_perception.errors import RecordingError
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.sim import SensorErrors, SidewalkSim
from occ_perception.simulation.splits import SIM_VERSION
from occ_perception.simulation.world import make_world


def card_path(bag: Path) -> Path:
    """Where the card of a bag lies: DRIVE.yaml for DRIVE.mcap or the folder DRIVE."""
    return bag.with_suffix(".yaml")


def save_card(sim: SidewalkSim, bag: Path, **more: Any) -> None:
    """Writes the card; `more` is added to it.

    Raises:
        RecordingError: the disk refuses.
    """
    world, errors = sim.world, sim.errors
    card = more | {
        "version": SIM_VERSION, "content_hash": world.content_hash(), "start_ns": sim.start_ns,
        "world": {"seed": world.seed, "district": world.district, "night": world.night,
                  "embodiment": world.embodiment, "duration_s": float(world.robot.duration_s)},
        "lidar": asdict(sim.lidar),
        "clock_offset_s": {sensor: float(offset) for sensor, offset in errors.clock_offset_s.items()},
        "extrinsic": {sensor: np.asarray(T).tolist() for sensor, T in errors.extrinsic.items()}}
    with new_file(card_path(bag), RecordingError) as beside:
        beside.write_text(yaml.safe_dump(card, sort_keys=False))


def load_drive(bag: Path, rig: Rig) -> SidewalkSim | None:
    """The simulation that a bag was recorded in, or None where no card tells of one.

    Errors of wheels and IMU are not kept: nothing that is true depends on them.

    Raises:
        RecordingError: the card is broken, or its world is not the one that this version makes.
    """
    path = card_path(bag)
    if not path.is_file():
        return None
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or "world" not in card:
            return None
        world = make_world(**card["world"])
        errors = SensorErrors(clock_offset_s=card["clock_offset_s"],
                              extrinsic={sensor: np.array(T) for sensor, T in card["extrinsic"].items()})
        sim = SidewalkSim(world, rig, lidar=LidarModel(**card["lidar"]), errors=errors, start_ns=int(card["start_ns"]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"does not describe a simulated drive: {error!r}", where=str(path),
                             fix="Remove it to use the bag without its truth") from error
    if world.content_hash() != card.get("content_hash"):
        raise RecordingError("this simulator makes another world of it", where=str(path),
                             fix="Simulate the bag again, or remove the card to use the bag without its truth")
    return sim
