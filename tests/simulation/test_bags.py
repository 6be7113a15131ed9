"""Bags of simulated drives: topics, rates, stamps, truth; and the recording that is shipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import embreex  # noqa: F401
import numpy as np
import pytest

from occ_perception.calibration import Rig, load_rig
from occ_perception.errors import ConfigurationError
from occ_perception.recordings import frames
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import decode_image, decode_odometry, decode_points, decode_voxel_grid, stamp_ns
from occ_perception.simulation.bags import SAMPLE_SETTINGS, BagSettings, write_bag
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import Actor, World
from occ_perception.simulation.sim import SensorErrors, SidewalkSim

ROOT = Path(__file__).resolve().parents[2]
SHORT = BagSettings(duration_s=1.2, image_hz=10.0, lidar=LidarModel(rings=8, columns=128),
                    errors=SensorErrors(clock_offset_s={"top": 0.02}), start_ns=10**18)


def messages_of(path: Path) -> dict[str, list[tuple[int, Any]]]:
    by_topic = defaultdict(list)
    with BagReader(path) as bag:
        for topic, log_ns, message in bag.messages():
            by_topic[topic].append((log_ns, message))
    return by_topic


@pytest.fixture(scope="module")
def drive(make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig,
          tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, int], dict[str, list[tuple[int, Any]]]]:
    world = make_yard(actors=[make_walker(5, (4.0, 1.0), (4.0, -1.0))], speed_mps=1.0)
    path = tmp_path_factory.mktemp("bags") / "drive.mcap"
    return world, write_bag(world, small_rig, path, SHORT), messages_of(path)


def test_every_sensor_speaks_at_its_rate(drive: tuple[World, dict[str, int], Any]) -> None:
    assert drive[1] == {
        "/tf_static": 1, "/camera/front/camera_info": 12, "/camera/front/image/compressed": 12, "/odometry": 60,
        "/imu": 120, "/lidar/top/points": 11, "/truth/occupancy": 3, "/truth/flow": 3, "/truth/instances": 3,
        "/truth/trajectory": 3}


def test_stamps_are_those_of_the_sensors_clocks(drive: tuple[World, dict[str, int], Any]) -> None:
    messages = drive[2]
    images = [stamp_ns(m.header) for _, m in messages[frames.compressed_image_topic("front")]]
    assert images == [10**18 + k * 100_000_000 for k in range(12)]
    sweeps = messages[frames.points_topic("top")]
    assert [stamp_ns(m.header) for _, m in sweeps[:2]] == [10**18 + 20_000_000, 10**18 + 120_000_000]
    assert sweeps[0][0] == 10**18 + 100_000_000  # published when the turn is complete
    logged = [log_ns for items in messages.values() for log_ns, _ in items]
    assert min(logged) == 10**18
    assert max(logged) < 10**18 + 1_200_000_001


def test_truth_belongs_to_images_and_says_what_is_there(drive: tuple[World, dict[str, int], Any],
                                                        small_rig: Rig) -> None:
    world, _, messages = drive
    images = {stamp_ns(m.header) for _, m in messages[frames.compressed_image_topic("front")]}
    sim = SidewalkSim(world, small_rig, lidar=SHORT.lidar, errors=SHORT.errors, start_ns=SHORT.start_ns)
    for (_, message), time_s in zip(messages[frames.TRUTH_OCCUPANCY_TOPIC], (0.0, 0.5, 1.0), strict=True):
        grid = decode_voxel_grid(message)
        assert grid.stamp_ns in images
        expected = sim.truth(time_s).grid
        assert (grid.labels == expected.labels).all()
        assert (grid.confidence == expected.confidence).all()
        assert (grid.instance_rows == expected.instance_rows).all()
        assert grid.track_ids.tolist() == [5]
    assert len(messages[frames.TRUTH_INSTANCES_TOPIC][0][1].instances) == 1


def test_images_and_clouds_decode(drive: tuple[World, dict[str, int], Any], small_rig: Rig) -> None:
    world, _, messages = drive
    sim = SidewalkSim(world, small_rig, lidar=SHORT.lidar, errors=SHORT.errors, start_ns=SHORT.start_ns)
    image = decode_image(messages[frames.compressed_image_topic("front")][3][1])
    assert np.abs(image.astype(int) - sim.view("front", 0.3).image).mean() < 3
    cloud = decode_points(messages[frames.points_topic("top")][2][1], "top")
    expected = sim.cloud("top", 0.2)
    assert np.allclose(cloud.points_m, expected.points_m)
    assert cloud.time_ns is not None
    assert (cloud.time_ns == expected.time_ns).all()
    odometry = decode_odometry(messages[frames.ODOMETRY_TOPIC][-1][1])
    assert odometry.T_odom_base[0, 3] == pytest.approx(1.18, rel=0.05)


def test_a_track_that_is_too_short_and_bad_settings_are_refused(make_yard: Callable[..., World], small_rig: Rig,
                                                                tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a track as long"):
        write_bag(make_yard(seconds=3.0), small_rig, tmp_path / "x.mcap", BagSettings(duration_s=9.0))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError) as caught:
        BagSettings(duration_s=-1.0, image_hz=0.0, jpeg_quality=0)
    assert len(caught.value.faults) == 3


def test_the_shipped_recording_is_small_and_of_this_simulation(street: World) -> None:
    path = ROOT / "sample" / "sidewalk_sample.mcap"
    assert path.stat().st_size <= 8_000_000
    rig = load_rig(ROOT / "calibration" / "sidewalk_wheeled.yaml")
    sim = SidewalkSim(street, rig, lidar=SAMPLE_SETTINGS.lidar, start_ns=SAMPLE_SETTINGS.start_ns)
    with BagReader(path) as bag:
        assert bag.counts["/camera/front/image/compressed"] == 55
        assert bag.counts["/truth/occupancy"] == 22
        first = next(m for _, _, m in bag.messages([frames.TRUTH_OCCUPANCY_TOPIC]))
        image = next(m for _, _, m in bag.messages([frames.compressed_image_topic("front")]))
    assert (decode_voxel_grid(first).labels == sim.truth(0.0).grid.labels).all()
    assert np.abs(decode_image(image).astype(int) - sim.view("front", 0.0).image).mean() < 4
