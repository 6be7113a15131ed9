"""The occupancy pipeline around a stand-in engine whose inputs are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.engines import Manifest, State
from occ_perception.errors import BadMessage, ConfigurationError, ManifestError
from occ_perception.geometry import VoxelGridSpec, coverage, se3
from occ_perception.pipelines import OccupancyPipeline, PathCheckSettings
from occ_perception.pipelines.bench import InstantEngine, bench_outside_engine
from occ_perception.types import CameraImage, PathCheck, PointCloud, SensorFrame, WaypointFlag

GRID = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), 0.2)
LIFT = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), (0.2, 0.2, 0.5))
STAMP = 5_000_000_000


def camera(name: str, yaw: float = 0.0, width: int = 64, height: int = 48) -> dict[str, Any]:
    T = se3.from_euler(0.0, 0.0, yaw, (0.1, 0.0, 0.3))
    T[:3, :3] = T[:3, :3] @ se3.OPTICAL_IN_BODY
    return {
        "name": name, "frame": name, "width": width, "height": height, "model": "equidistant",
        "parameters": [width / 3.0, width / 3.0, (width - 1) / 2, (height - 1) / 2], "max_theta_rad": 0.9,
        "T_base_camera": T.tolist(),
    }


def rig(*cameras: dict[str, Any], lidars: Sequence[dict[str, Any]] = ()) -> Rig:
    return Rig.model_validate({"name": "test", "cameras": list(cameras), "lidars": list(lidars)})


def lidar(name: str, x: float = 0.0, yaw: float = 0.0) -> dict[str, Any]:
    return {"name": name, "frame": name, "T_base_lidar": se3.from_euler(0.0, 0.0, yaw, (x, 0.0, 0.3)).tolist()}


def manifest(**changes: Any) -> Manifest:
    spec = {"shape": ("hits", LIFT.size), "dtype": "int32", "meaning": ""}
    nx, ny, nz = GRID.shape
    values: dict[str, Any] = {
        "name": "stand_in", "version": "2", "tasks": ("occupancy", "trajectory"), "taxonomy": "sidewalk14",
        "output_grid": {"minimum_m": GRID.minimum_m, "maximum_m": GRID.maximum_m, "cell_m": 0.2},
        "lift_grid": {"minimum_m": LIFT.minimum_m, "maximum_m": LIFT.maximum_m, "cell_m": (0.2, 0.2, 0.5)},
        "range_bins": {"minimum_m": 0.0, "maximum_m": 6.0, "step_m": 0.5}, "image_size": (48, 64),
        "feature_size": (12, 16), "maximum_hits": 2, "waypoint_times_s": (0.5, 1.0),
        "inputs": [{"name": "rows", **spec}],
        "outputs": [{"name": "labels", "shape": (nz, ny, nx), "dtype": "uint8", "meaning": ""}],
        "variants": {"fp32": {"file": "x", "sha256": "0" * 64, "precision": "fp32", "devices": ("cpu",)}},
        "training": {"data": "", "data_version": "", "data_hash": "", "commit": "", "seed": 0, "steps": 0},
        "licence": "Apache-2.0",
    }
    return Manifest.model_validate(values | changes)


RANGES = {"name": "ranges", "shape": ("cameras", 12, 16), "dtype": "float32", "meaning": ""}


def manifest_with_ranges() -> Manifest:
    return manifest(inputs=[RANGES])


class StandIn(InstantEngine):
    """Labels every cell 2; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(manifest())
        self.given: list[dict[str, np.ndarray]] = []

    def run(self, inputs: Mapping[str, np.ndarray], state: State) -> tuple[dict[str, np.ndarray], State]:
        self.given.append(dict(inputs))
        return {
            "labels": np.full(GRID.shape[::-1], 2, np.uint8),
            "confidence": np.arange(GRID.size, dtype=np.uint8).reshape(GRID.shape[::-1]),
            "waypoints": np.array([[1.0, 0.0], [2.0, 0.1]], np.float32),
        }, state


def image(name: str, height: int = 48, width: int = 64, fill: int = 9) -> CameraImage:
    return CameraImage(name, STAMP, np.full((height, width, 3), fill, np.uint8))


def cloud(name: str, *points_m: tuple[float, float, float], stamp_ns: int = STAMP) -> PointCloud:
    return PointCloud(name, stamp_ns, np.array(points_m, np.float32))


def frame(*images: CameraImage, clouds: Sequence[PointCloud] = (), T_odom_base: np.ndarray | None = None,
          **motions: np.ndarray) -> SensorFrame:
    return SensorFrame(STAMP, {i.camera: i for i in images}, {c.lidar: c for c in clouds}, T_odom_base, motions)


def test_a_result_is_in_the_layout_of_the_message_and_says_where_it_comes_from() -> None:
    engine, robot = StandIn(), rig(camera("front"))
    pose = se3.from_euler(0.0, 0.0, 0.4, (3.0, 1.0, 0.2))
    result = OccupancyPipeline(engine, manifest(), robot).step(frame(image("front"), T_odom_base=pose))
    grid = result.grid
    assert (grid.stamp_ns, grid.model_id, grid.taxonomy, grid.flags) == (STAMP, "stand_in@2", "sidewalk14", frozenset())
    assert grid.sensor_stamps_ns == {"front": STAMP}
    np.testing.assert_allclose(grid.T_odom_grid, pose, atol=1e-12)
    assert np.shares_memory(GRID.to_message_order(grid.labels), grid.labels)
    np.testing.assert_array_equal(GRID.to_message_order(grid.confidence), np.arange(GRID.size, dtype=np.uint8))
    assert result.trajectory is not None
    np.testing.assert_array_equal(result.trajectory.times_s, np.float32([0.5, 1.0]))
    assert set(result.timings_ms) == {"tables", "engine", "post", "path", "total"}


def test_cells_that_no_camera_sees_are_unknown() -> None:
    robot = rig(camera("front"))
    grid = OccupancyPipeline(StandIn(), manifest(), robot).step(frame(image("front"))).grid
    seen = coverage(robot.mounted(), GRID)
    np.testing.assert_array_equal(grid.labels, np.where(seen, 2, 255))
    assert 0.1 < seen.mean() < 0.9


def test_without_a_pose_the_result_says_so_and_takes_the_base_as_level() -> None:
    engine, robot = StandIn(), rig(camera("front"))
    pipeline = OccupancyPipeline(engine, manifest(), robot)
    grid = pipeline.step(frame(image("front"))).grid
    assert grid.flags == {"no_odometry"}
    assert grid.T_odom_grid is None
    pipeline.step(frame(image("front"), T_odom_base=se3.from_euler(0.0, 0.0, 1.0)))
    np.testing.assert_array_equal(engine.given[0]["rows"], engine.given[1]["rows"])


def test_tables_follow_tilt_and_exposure_and_are_kept_while_nothing_changed() -> None:
    engine, robot = StandIn(), rig(camera("front"))
    pipeline = OccupancyPipeline(engine, manifest(), robot)
    level = se3.from_euler(0.0, 0.0, 0.7)
    pipeline.step(frame(image("front"), T_odom_base=level))
    pipeline.step(frame(image("front"), T_odom_base=level @ se3.from_euler(0.0, 0.0005, 0.1)))
    pipeline.step(frame(image("front"), T_odom_base=level @ se3.from_euler(0.0, 0.1, 0.0)))
    pipeline.step(frame(image("front"), T_odom_base=level, front=se3.from_euler(0.0, 0.0, 0.2)))
    first, same, tilted, moved = (given["rows"] for given in engine.given)
    assert same is first
    assert (tilted != first).any()
    assert (moved != first).any()


def test_the_table_of_a_tilted_robot_reads_the_pixels_of_the_level_grid() -> None:
    engine, robot = StandIn(), rig(camera("front"))
    pose = se3.from_euler(0.1, -0.15, 2.0, (5.0, 5.0, 0.0))
    OccupancyPipeline(engine, manifest(), robot).step(frame(image("front"), T_odom_base=pose))
    table = engine.given[0]
    T_base_grid = se3.invert(pose) @ se3.gravity_aligned(pose)
    points = se3.apply(T_base_grid, LIFT.centres().transpose(2, 1, 0, 3).reshape(-1, 3))
    mounted = robot.mounted()[0]
    pixels, valid = mounted.camera.project(se3.apply(se3.invert(mounted.T_base_camera), points))
    seen = table["weights"][0] > 0
    np.testing.assert_array_equal(seen, valid)
    feature = np.floor((pixels[seen] + 0.5) / 4).astype(int)
    np.testing.assert_array_equal(table["rows"][0][seen], feature[:, 1] * 16 + feature[:, 0])


def test_a_camera_without_an_image_is_left_out_and_named() -> None:
    engine, robot = StandIn(), rig(camera("front"), camera("left", 1.5))
    pipeline = OccupancyPipeline(engine, manifest(), robot)
    both = pipeline.step(frame(image("front"), image("left", fill=7))).grid
    one = pipeline.step(frame(image("left", fill=7))).grid
    assert both.flags == {"no_odometry"}
    assert one.flags == {"no_odometry", "camera_missing:front"}
    assert [given["images"].shape[0] for given in engine.given] == [2, 1]
    assert (engine.given[1]["images"] == 7).all()
    assert (both.labels == 255).sum() < (one.labels == 255).sum()


def test_cameras_of_other_sizes_are_resized_and_one_of_the_right_size_is_not_copied() -> None:
    engine, robot = StandIn(), rig(camera("front", width=128, height=96))
    OccupancyPipeline(engine, manifest(), robot).step(frame(image("front", 96, 128)))
    assert engine.given[0]["images"].shape == (1, 48, 64, 3)
    fitting = image("front")
    OccupancyPipeline(engine, manifest(), rig(camera("front"))).step(frame(fitting))
    assert np.shares_memory(engine.given[1]["images"], fitting.pixels)


def test_a_frame_without_any_image_is_a_bad_message() -> None:
    with pytest.raises(BadMessage) as caught:
        OccupancyPipeline(StandIn(), manifest(), rig(camera("front"))).step(frame(image("foreign")))
    assert caught.value.reason == "no_image"


def test_a_reset_is_counted_by_reason_and_makes_tables_anew() -> None:
    engine = StandIn()
    pipeline = OccupancyPipeline(engine, manifest(), rig(camera("front")))
    pipeline.step(frame(image("front")))
    pipeline.reset("clock_jump")
    pipeline.step(frame(image("front")))
    assert pipeline.resets == {"clock_jump": 1}
    assert engine.given[0]["rows"] is not engine.given[1]["rows"]


def test_a_model_without_occupancy_is_refused() -> None:
    flow = manifest(tasks=("flow",))
    flow._folder = Path("models/flow")
    with pytest.raises(ManifestError, match="no occupancy task"):
        OccupancyPipeline(StandIn(), flow, rig(camera("front")))


def test_waypoints_are_laid_into_the_grid_of_their_frame() -> None:
    robot = rig(camera("front"))

    def checked(**changes: Any) -> PathCheck | None:
        pipeline = OccupancyPipeline(StandIn(), manifest(), robot, PathCheckSettings(**changes) if changes else None)
        trajectory = pipeline.step(frame(image("front"))).trajectory
        assert trajectory is not None
        return trajectory.check

    default, strict = checked(), checked(off_limits=("sidewalk",))
    assert default is not None
    assert strict is not None
    # everything that the camera sees is sidewalk
    assert default.ruling_label.tolist() == [2, 2]
    assert np.isinf(default.clearance_m).all()
    assert default.flags.tolist() == [0, 0]
    assert strict.flags.tolist() == [WaypointFlag.OFF_LIMITS] * 2
    with pytest.raises(ConfigurationError, match="'lava' is no ground"):
        checked(off_limits=("lava",))


def test_where_no_path_is_given_or_wanted_there_is_none_and_none_is_judged() -> None:
    misfit = PathCheckSettings(off_limits=("lava",))  # nobody asks for it
    for model, tasks in ((manifest(tasks=("occupancy",)), None), (manifest(), ("occupancy",))):
        pipeline = OccupancyPipeline(StandIn(), model, rig(camera("front")), misfit, tasks=tasks)
        result = pipeline.step(frame(image("front")))
        assert result.trajectory is None
        assert "path" not in result.timings_ms


def test_scans_of_all_lidars_become_ranges_along_the_rays_of_each_camera() -> None:
    engine = StandIn()
    robot = rig(camera("front"), camera("left", np.pi / 2), lidars=[lidar("top"), lidar("rear", -0.4, np.pi)])
    pipeline = OccupancyPipeline(engine, manifest_with_ranges(), robot)
    # on both cameras' axes, which start at (0.1, 0, 0.3); the rear LiDAR looks back
    scans = [cloud("top", (3.1, 0.0, 0.0), (0.1, 2.5, 0.0), stamp_ns=STAMP - 7),
             cloud("rear", (-2.5, 0.0, 0.0), stamp_ns=STAMP - 9)]
    result = pipeline.step(frame(image("front"), image("left"), clouds=scans, T_odom_base=np.eye(4)))
    ranges = engine.given[0]["ranges"]
    assert (ranges.dtype, ranges.shape) == (np.float32, (2, 12, 16))
    np.testing.assert_array_equal((ranges > 0).sum((1, 2)), [1, 1])
    # the centre of the image lies between the four feature pixels in the middle
    np.testing.assert_allclose(ranges[:, 5:7, 7:9].max((1, 2)), [2.0, 2.5], atol=1e-5)
    assert result.grid.sensor_stamps_ns == {"front": STAMP, "left": STAMP, "top": STAMP - 7, "rear": STAMP - 9}
    assert result.grid.flags == frozenset()
    assert "ranges" in result.timings_ms


def test_a_scan_lies_where_the_camera_was_when_it_exposed() -> None:
    engine = StandIn()
    pipeline = OccupancyPipeline(engine, manifest_with_ranges(), rig(camera("front"), lidars=[lidar("top")]))
    before = se3.from_euler(0.0, 0.0, 0.0, (-0.5, 0.0, 0.0))
    pipeline.step(frame(image("front"), clouds=[cloud("top", (3.1, 0.0, 0.0))], front=before))
    assert engine.given[0]["ranges"].max() == pytest.approx(3.5)


def test_without_a_scan_the_ranges_are_zero_and_the_grid_says_so_where_the_rig_has_a_lidar() -> None:
    engine = StandIn()
    equipped = OccupancyPipeline(engine, manifest_with_ranges(), rig(camera("front"), lidars=[lidar("top")]))
    bare = OccupancyPipeline(engine, manifest_with_ranges(), rig(camera("front")))
    assert (equipped.lidars, bare.lidars) == (("top",), ())
    silent, blind = (pipeline.step(frame(image("front"))).grid for pipeline in (equipped, bare))
    assert silent.flags == {"no_lidar", "no_odometry"}
    assert silent.sensor_stamps_ns == {"front": STAMP}
    assert blind.flags == {"no_odometry"}
    assert all(given["ranges"].shape == (1, 12, 16) and not given["ranges"].any() for given in engine.given)


def test_of_several_lidars_the_missing_ones_are_named_and_those_not_wanted_are_not_missed() -> None:
    robot = rig(camera("front"), lidars=[lidar("top"), lidar("rear")])
    scans = [cloud("top", (3.0, 0.0, 0.0)), cloud("rear", (2.0, 0.0, 0.0))]

    def flags(*clouds: PointCloud, **options: Any) -> frozenset[str]:
        pipeline = OccupancyPipeline(StandIn(), manifest_with_ranges(), robot, **options)
        return pipeline.step(frame(image("front"), clouds=clouds, T_odom_base=np.eye(4))).grid.flags

    assert flags(*scans) == frozenset()
    assert flags(scans[0]) == {"lidar_missing:rear"}
    assert flags() == {"no_lidar"}
    assert flags(scans[0], lidars=["top"]) == frozenset()
    assert flags(scans[1], lidars=["top"]) == {"no_lidar"}
    assert flags(lidars=[]) == frozenset()
    with pytest.raises(ConfigurationError, match="bottom"):
        flags(lidars=["bottom"])


def test_a_model_that_reads_no_ranges_is_given_none() -> None:
    engine = StandIn()
    pipeline = OccupancyPipeline(engine, manifest(), rig(camera("front"), lidars=[lidar("top")]))
    result = pipeline.step(frame(image("front"), clouds=[cloud("top", (3.0, 0.0, 0.0))]))
    assert pipeline.lidars == ()
    assert set(engine.given[0]) == {"images", "rows", "bins", "weights"}
    assert result.grid.sensor_stamps_ns == {"front": STAMP}
    assert result.grid.flags == {"no_odometry"}


def test_warming_up_answers_every_camera_and_lidar_and_leaves_no_trace() -> None:
    engine = StandIn()
    pipeline = OccupancyPipeline(engine, manifest_with_ranges(), rig(
        camera("front", width=128, height=96), camera("left"), lidars=[lidar("top")]))
    pipeline.warm_up()
    assert engine.given[0]["images"].shape == (2, 48, 64, 3)
    assert pipeline.resets == {"warm_up": 1}
    pipeline.step(frame(image("front", 96, 128), image("left"), T_odom_base=np.eye(4)))
    assert engine.given[1]["rows"] is not engine.given[0]["rows"]


def test_the_benchmark_of_a_model_with_ranges_scans() -> None:
    stages = bench_outside_engine(manifest_with_ranges(), rig(camera("front"), lidars=[lidar("top")]), frames=2)
    assert stages["ranges"] > 0


def test_the_benchmark_outside_the_engine_adds_up() -> None:
    stages = bench_outside_engine(manifest(), rig(camera("front"), camera("left", 1.5)), frames=5)
    assert set(stages) == {"synchronise", "assemble", "tables", "post", "path", "outside_engine"}
    assert all(value > 0 for value in stages.values())
    assert stages["outside_engine"] >= max(value for name, value in stages.items() if name != "outside_engine")
