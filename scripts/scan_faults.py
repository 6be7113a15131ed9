"""What a model loses where a LiDAR has fewer rings than the simulated one, or is not where its calibration says.

`python scripts/scan_faults.py models/walkocc_lite data/sim/val --frames 40` scores the int8 variant.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.engines import load_engine, load_manifest
from occ_perception.export.scores import engine_predictor
from occ_perception.geometry import se3
from occ_perception.simulation.lidar import LidarModel
from occ_perception.training.evaluate import evaluate

Cloud = NDArray[np.float32]
Fault = Callable[[Cloud], Cloud]
"""From a scan [P, 3] in the LiDAR's frame to another."""


def every(step: int, within_deg: float = 90.0) -> Fault:
    """Each `step`-th ring of those whose elevation is within so many degrees of the horizon."""
    lidar = LidarModel()
    spacing_deg = (lidar.high_deg - lidar.low_deg) / (lidar.rings - 1)

    def fault(points_m: Cloud) -> Cloud:
        elevation_deg = np.degrees(np.arctan2(points_m[:, 2], np.hypot(points_m[:, 0], points_m[:, 1])))
        ring = np.rint((elevation_deg - lidar.low_deg) / spacing_deg).astype(int)
        kept: Cloud = points_m[(ring % step == 0) & (np.abs(elevation_deg) <= within_deg)]
        return kept

    return fault


def moved(*, pitch_deg: float = 0.0, yaw_deg: float = 0.0, each_m: float = 0.0) -> Fault:
    """The LiDAR hangs turned, or shifted by so much along each axis."""
    wrong = se3.from_euler(0.0, math.radians(pitch_deg), math.radians(yaw_deg), (each_m,) * 3)
    return lambda points_m: se3.apply(wrong, points_m).astype(np.float32)


FAULTS: dict[str, Fault | None] = {
    "no LiDAR": None, "64 rings, -45 to 15 deg": every(1), "16 rings, -45 to 15 deg": every(4),
    "16 rings, -15 to 15 deg": every(2, within_deg=15.0), "8 rings, -45 to 15 deg": every(8),
    "turned by 1 deg about the vertical": moved(yaw_deg=1.0), "pitched by 1 deg": moved(pitch_deg=1.0),
    "shifted by 5 cm": moved(each_m=0.05 / math.sqrt(3)),
}


class Faulty:
    """A data set whose scans have a fault."""

    def __init__(self, samples: SimulatedDataset, fault: Fault | None) -> None:
        self.samples, self.fault = samples, fault

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if self.fault is None or sample.points_m is None:
            return sample
        T_base_lidar = sample.rig.lidars[0].T_base_lidar
        scan = se3.apply(se3.invert(T_base_lidar), sample.points_m).astype(np.float32)
        return replace(sample, points_m=se3.apply(T_base_lidar, self.fault(scan)).astype(np.float32))


def main() -> None:
    """Score the model under each fault and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder that takes LiDAR ranges")
    parser.add_argument("split", type=Path, help="folder of a simulated split")
    parser.add_argument("--frames", type=int, default=40)
    arguments = parser.parse_args()
    manifest = load_manifest(arguments.model)
    engine = load_engine(manifest, device="cpu", variant="int8")
    samples = SimulatedDataset(arguments.split.parent, arguments.split.name)
    table = Table(title=f"{manifest.model_id}, int8, {arguments.frames} frames of {arguments.split.name} (simulated)")
    for heading in ("scan", "IoU", "mIoU"):
        table.add_column(heading, justify="left" if heading == "scan" else "right")
    for name, fault in FAULTS.items():
        predict = engine_predictor(engine, manifest, lidar=fault is not None)
        scores = evaluate(predict, Faulty(samples, fault), limit=arguments.frames)
        table.add_row(name, f"{100 * scores['iou']:.1f}", f"{100 * scores['miou']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
