"""Real cameras through the real node: four fisheyes of a vehicle, and a tracked robot with four cameras and a LiDAR."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.calibration import save_rig
from occ_perception.recordings.create import create_bag
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.ros.demo import start_node
from occ_perception.ros.diagnostics import as_dict
from occ_perception.ros.topics import DIAGNOSTICS, VOXELS

pytestmark = [pytest.mark.ros, pytest.mark.real]

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real"
FOLDERS = {"fisheye_vehicle": "roecs_fisheye4", "tracked_robot": "marv_quadcam_os0"}


@pytest.fixture(scope="module")
def real_input() -> Any:
    """The script that knows the odd formats of these calibrations."""
    if not REAL.is_dir():
        pytest.skip(f"the real recordings are not at {REAL}")
    spec = importlib.util.spec_from_file_location("real_input", ROOT / "scripts" / "real_input.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_input"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("robot", FOLDERS)
def test_every_camera_of_a_real_robot_reaches_the_grid(
    real_input: Any, operator: Any, model_folder: Path, ranging_model_folder: Path, tmp_path: Path, robot: str
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from occ_perception_msgs.msg import VoxelGrid

    given = getattr(real_input, robot)(REAL / FOLDERS[robot])
    save_rig(given.rig, tmp_path / "rig.yaml")
    create_bag(tmp_path / "real.mcap", given.rig, given.images, given.clouds, rate_hz=2.0, repeat=8)
    grids: list[Any] = []
    reports: list[Any] = []
    operator.node.create_subscription(VoxelGrid, VOXELS, grids.append, 10)
    operator.node.create_subscription(DiagnosticArray, DIAGNOSTICS, reports.append, 10)
    lidars = {lidar.name for lidar in given.rig.lidars}
    # Large images of four cameras take a while on a busy machine: nothing is too old here.
    node = start_node(operator, given.rig, tmp_path / "rig.yaml", ranging_model_folder if lidars else model_folder,
                      max_age_ms=0.0, sync_wait_ms=2000.0, sync_tolerance_ms=200.0, diagnostics_period_s=0.2)
    player = operator.start("player", "occ_perception.ros.player",
                            [str(tmp_path / "real.mcap"), "--restamp", "--loop", "--wait-for"])
    cameras = {camera.name for camera in given.rig.cameras}

    def whole() -> bool:
        return any(cameras <= set(grid.sensor_names) for grid in grids)

    operator.until(whole, "a grid of all cameras", 60.0)
    grid = decode_voxel_grid(next(grid for grid in grids if cameras <= set(grid.sensor_names)))
    assert (grid.labels != 255).mean() > 0.3
    operator.until(lambda: all(int(as_dict(reports[-1].status).get(name, {}).get("received", 0)) > 0
                               for name in cameras | lidars), "all sensors in the diagnostics", 30.0)
    unused = {key for key in as_dict(reports[-1].status)["frames"] if key.startswith("unused")}
    assert unused <= {"unused_no_motion"}  # the recordings have no odometry
    assert np.isin(grid.labels, (1, 2, 255)).all()
    operator.stop(player)
    operator.stop(node)
