"""From a bag to scenes: what is filtered and why, keyframes, poses, deskewed scans, and recordings with faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.errors import BadMessage, ConfigurationError, RecordingError
from occ_perception.geometry import se3
from occ_perception.labeling.clips import ClipSettings, Span, keyframe_rows, nearest_rows, select
from occ_perception.labeling.ego import NO_IMU, ImuSamples, estimate_ego
from occ_perception.labeling.recording import Recording, deskew_errors
from occ_perception.pipelines import OdometryBuffer
from occ_perception.recordings import frames as topics
from occ_perception.recordings.bag import BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.messages import make
from occ_perception.simulation.motion import PERFECT, MotionErrors
from occ_perception.simulation.scene import RobotTrack
from occ_perception.types import CameraImage, Odometry, PointCloud

START_NS = 10**18
T_BASE_IMU = se3.from_euler(0.02, -0.03, 1.2, (0.0, 0.0, 0.3))
T_BASE_LIDAR = se3.from_euler(0.0, 0.05, 0.4, (0.1, 0.0, 0.9))
WORLD = np.random.default_rng(5).uniform([-12, -12, 0], [30, 20, 3], (4000, 3))
SHORT = ClipSettings(scene_s=6.0, shortest_s=2.0)
Feel = Callable[[RobotTrack, MotionErrors, int], Any]


def rig_of(offset_s: float = 0.0) -> Rig:
    T = se3.make(se3.OPTICAL_IN_BODY, (0.3, 0.0, 0.7))
    camera = {"width": 32, "height": 24, "model": "pinhole", "parameters": [20.0, 20.0, 15.5, 11.5],
              "T_base_camera": T.tolist()}
    return rig_from_dict({
        "name": "tiny", "cameras": [{"name": "front", "frame": "front", **camera},
                                    {"name": "rear", "frame": "rear", "time_offset_s": offset_s, **camera}],
        "lidars": [{"name": "top", "frame": "top", "T_base_lidar": T_BASE_LIDAR.tolist()}],
        "imu": {"frame": "imu", "T_base_imu": T_BASE_IMU.tolist()}}, where="test")


def sweep(track: RobotTrack, start_s: float) -> PointCloud:
    """A turn of 0.1 s over points of the world, each measured from where the LiDAR is then."""
    rng = np.random.default_rng(round(start_s * 1e3))
    points, times = [], []
    for column in range(20):
        time_s = start_s + 0.005 * column
        T = se3.invert(track.pose_at(time_s) @ T_BASE_LIDAR)
        points.append(se3.apply(T, WORLD[rng.choice(len(WORLD), 15)]))
        times += [round(0.005e9 * column)] * 15
    return PointCloud("top", START_NS + round(start_s * 1e9), np.concatenate(points).astype(np.float32), None,
                      np.array(times, np.int64))


def write(path: Path, track: RobotTrack, wheels: list[Odometry], imu: ImuSamples | None, until_s: float, *,
          spoil: Callable[[str, int, Any], Any] = lambda topic, k, message: message) -> Path:
    """Images at 10 Hz (the rear camera 20 ms later), scans at 10 Hz; `spoil` may change or drop (None) messages."""
    encoder = MessageEncoder(make)
    events: list[tuple[int, str, Any]] = []
    for k in range(round(until_s * 10)):
        for camera, late_ns in (("front", 0), ("rear", 20_000_000)):
            stamp = START_NS + k * 100_000_000 + late_ns
            pixels = np.full((24, 32, 3), k % 250, np.uint8)
            events.append((stamp, topics.compressed_image_topic(camera),
                           encoder.compressed_image(CameraImage(camera, stamp, pixels))))
        cloud = sweep(track, 0.1 * k)
        events.append((cloud.stamp_ns + 100_000_000, topics.points_topic("top"), encoder.point_cloud(cloud)))
    events += [(w.stamp_ns, topics.ODOMETRY_TOPIC, encoder.odometry(w)) for w in wheels
               if w.stamp_ns < START_NS + until_s * 1e9]
    if imu is not None:
        felt = imu.between(START_NS, START_NS + round(until_s * 1e9) - 1)
        events += [(int(t), topics.IMU_TOPIC, encoder.imu(int(t), w, f)) for t, w, f in
                   zip(felt.stamps_ns, felt.angular_radps, felt.force_mps2)]
    counts: Counter[str] = Counter()
    with BagWriter(path) as bag:
        for log_ns, topic, message in sorted(events, key=lambda event: event[0]):
            spoiled = spoil(topic, counts[topic], message)
            counts[topic] += 1
            if spoiled is not None:
                bag.write(topic, log_ns, spoiled)
    return path


@pytest.fixture(scope="module")
def bag(make_late: Callable[[], RobotTrack], feel: Feel,
        tmp_path_factory: pytest.TempPathFactory) -> tuple[RobotTrack, Path]:
    """Stands for 7 s, drives, and lies on its side from 18 s to 19 s."""
    track = make_late()
    wheels, imu = feel(track, PERFECT, 0)
    lies = np.abs(imu.stamps_ns - START_NS - 18_500_000_000) < 500_000_000
    imu.force_mps2[lies] = [9.8, 0.0, 0.0]
    return track, write(tmp_path_factory.mktemp("bags") / "drive.mcap", track, wheels, imu, 21.0)


def test_standing_and_tipped_parts_are_left_out_with_their_reasons(bag: tuple[RobotTrack, Path]) -> None:
    with Recording(bag[1], rig_of(), SHORT) as recording:
        selection = recording.selection
        names = list(recording.scenes)
    assert set(selection.dropped) == {"standing", "tipped", "too_short"}
    seconds = selection.dropped_s()
    assert seconds["standing"] == pytest.approx(6.9, abs=0.3)
    assert seconds["tipped"] == pytest.approx(2.8, abs=0.4)
    assert len(selection.scenes) == 2
    first, second = selection.scenes
    assert first.duration_s == pytest.approx(6.0)
    assert 1e-9 * (first.start_ns - START_NS) == pytest.approx(6.9, abs=0.3)
    assert 1e-9 * (second.end_ns - START_NS) == pytest.approx(17.0, abs=0.4)
    total = sum(seconds.values()) + first.duration_s + second.duration_s
    assert total == pytest.approx(recording.survey.span.duration_s, abs=0.01)
    assert names == ["drive-0000", "drive-0001"]


def test_frames_have_images_poses_and_scans_that_lie_in_the_world(bag: tuple[RobotTrack, Path]) -> None:
    track, path = bag
    with Recording(path, rig_of(), SHORT) as recording:
        clips = list(recording.clips())
        assert not +recording.drops
    assert [clip.name for clip in clips] == ["drive-0000", "drive-0001"]
    clip = clips[0]
    assert len(clip.frames) == 12  # 6 s at 2 Hz
    assert np.diff([frame.stamp_ns for frame in clip.frames]).tolist() == [500_000_000] * 11
    tree = cKDTree(WORLD)
    for frame in clip.frames:
        seconds = (frame.stamp_ns - START_NS) * 1e-9
        assert frame.images["front"][0, 0, 0] == pytest.approx(round(seconds * 10) % 250, abs=3)
        np.testing.assert_allclose(frame.T_world_base[:2, 3], track.pose_at(seconds)[:2, 3], atol=0.1)
        assert len(frame.points_m) == 300
        assert frame.point_sensor.max() == 0
        np.testing.assert_allclose(frame.sensor_m, [T_BASE_LIDAR[:3, 3]])
        in_world = se3.apply(track.pose_at(seconds), frame.points_m)  # deskewed, they are where they are
        assert np.percentile(tree.query(in_world)[0], 95) < 0.05


def test_cameras_that_expose_later_say_how_the_base_had_moved(bag: tuple[RobotTrack, Path]) -> None:
    track, path = bag
    with Recording(path, rig_of(), SHORT) as recording:
        frame = next(recording.clips()).frames[8]
    assert set(frame.T_anchor_exposure) == {"rear"}
    now, later = (track.pose_at((frame.stamp_ns - START_NS) * 1e-9 + dt) for dt in (0.0, 0.02))
    np.testing.assert_allclose(frame.T_anchor_exposure["rear"], se3.invert(now) @ later, atol=4e-3)


def test_offsets_of_the_rig_move_stamps(bag: tuple[RobotTrack, Path]) -> None:
    """A rear camera whose stamps are 20 ms late, and whose rig knows, exposes with the front one."""
    with Recording(bag[1], rig_of(offset_s=-0.02), SHORT) as recording:
        frame = next(recording.clips()).frames[0]
    assert set(frame.images) == {"front", "rear"}
    assert frame.T_anchor_exposure == {}


def test_scenes_that_are_done_are_passed_over(bag: tuple[RobotTrack, Path]) -> None:
    with Recording(bag[1], rig_of(), SHORT) as recording:
        assert [clip.name for clip in recording.clips(["drive-0001"])] == ["drive-0001"]
        assert list(recording.clips([])) == []


def test_a_scene_is_the_same_when_only_its_part_of_the_bag_is_read(bag: tuple[RobotTrack, Path]) -> None:
    with Recording(bag[1], rig_of(), SHORT) as whole:
        name, span = list(whole.scenes.items())[1]
        logged = whole.logged_around(span)
        [clip] = whole.clips([name])
    with Recording(bag[1], rig_of(), SHORT, logged=logged) as part:
        assert part.survey.span.duration_s < 0.65 * whole.survey.span.duration_s
        same = part.clip(name, span)
    assert (same.name, len(same.frames)) == (name, len(clip.frames))
    for got, want in zip(same.frames, clip.frames):
        assert got.stamp_ns == want.stamp_ns
        np.testing.assert_array_equal(got.T_world_base, want.T_world_base)
        np.testing.assert_array_equal(got.points_m, want.points_m)
        np.testing.assert_array_equal(got.images["rear"], want.images["rear"])


@pytest.fixture(scope="module")
def short(drive: RobotTrack, feel: Feel) -> tuple[RobotTrack, list[Odometry], Any]:
    return (drive, *feel(drive, PERFECT, 0))


def test_bad_messages_cost_their_frame_alone(short: tuple[RobotTrack, list[Odometry], Any], tmp_path: Path) -> None:
    track, wheels, imu = short
    encoder = MessageEncoder(make)

    def spoil(topic: str, k: int, message: Any) -> Any:
        if topic == topics.compressed_image_topic("front") and k == 30:
            message.data = np.zeros(7, np.uint8)  # the keyframe at 3 s
        if topic == topics.compressed_image_topic("rear") and 33 < k < 37:
            return None  # the keyframe at 3.5 s has no rear image near
        if topic == topics.points_topic("top") and k in (39, 40):
            empty = np.full((3, 3), np.nan, np.float32)  # scans about 4 s without returns
            return encoder.point_cloud(PointCloud("top", START_NS + k * 100_000_000, empty))
        if topic == topics.IMU_TOPIC and k == 5:
            message.linear_acceleration.x = float("nan")
        if topic == topics.ODOMETRY_TOPIC and k == 60:
            message.header.stamp.sec += 3600  # one stamp from the future spoils no later one
        return message

    path = write(tmp_path / "bad.mcap", track, wheels, imu, 6.0, spoil=spoil)
    with Recording(path, rig_of(), replace(SHORT, still_s=60.0)) as recording:
        [clip] = recording.clips()
        drops = +recording.drops
    assert len(clip.frames) == 11
    by_tenth = {round((frame.stamp_ns - START_NS) * 1e-8): frame for frame in clip.frames}
    assert 30 not in by_tenth
    assert set(by_tenth[35].images) == {"front"}
    assert by_tenth[40].points_m.shape == (0, 3)
    assert drops["empty_cloud"] >= 1
    assert drops["bad_imu"] == drops["bad_stamp"] == 1
    assert sum(drops.values()) == drops["empty_cloud"] + 3


def test_without_an_imu_the_wheels_are_enough(short: tuple[RobotTrack, list[Odometry], Any], tmp_path: Path) -> None:
    track, wheels, _ = short
    path = write(tmp_path / "wheels.mcap", track, wheels, None, 5.5)
    with Recording(path, rig_of(), replace(SHORT, still_s=60.0)) as recording:
        [clip] = recording.clips()
    assert len(clip.frames) == 11
    last = clip.frames[-1]
    np.testing.assert_allclose(last.T_world_base[:2, 3], track.pose_at((last.stamp_ns - START_NS) * 1e-9)[:2, 3],
                               atol=0.1)


def test_recordings_without_odometry_or_camera_are_refused_with_what_to_do(
        short: tuple[RobotTrack, list[Odometry], Any], tmp_path: Path) -> None:
    track, wheels, _ = short
    with pytest.raises(RecordingError, match=r"(?s)no odometry.*odometry=TOPIC"):
        Recording(write(tmp_path / "none.mcap", track, [], None, 1.0), rig_of())
    blind = write(tmp_path / "blind.mcap", track, wheels, None, 1.0,
                  spoil=lambda topic, k, message: None if "rear" in topic else message)
    with pytest.raises(RecordingError, match="/camera/rear"):
        Recording(blind, rig_of())
    with pytest.raises(RecordingError, match="does not exist"):
        Recording(tmp_path / "nothing.mcap", rig_of())


def test_deskewing_by_estimated_poses_takes_most_of_the_error(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, MotionErrors(), 2)
    wheels = [sample for sample in wheels if sample.stamp_ns < START_NS + 12 * 10**9]
    estimated, true = estimate_ego(wheels, imu, T_BASE_IMU).buffer(), OdometryBuffer(keep_s=100.0)
    for k in range(12 * 200):
        true.push(Odometry(START_NS + k * 5_000_000, drive.pose_at(0.005 * k)))
    errors = [deskew_errors(sweep(drive, start), T_BASE_LIDAR, START_NS + round((start + 0.15) * 1e9),
                            estimated=estimated, true=true) for start in (5.0, 7.0, 9.0, 11.0)]
    raw_m, deskewed_m = (np.concatenate(parts) for parts in zip(*errors))
    assert raw_m.mean() > 0.1  # 0.1 s at 1.1 m/s, and turns seen from 20 m
    assert deskewed_m.mean() < 0.15 * raw_m.mean()
    with pytest.raises(BadMessage, match="no odometry"):
        deskew_errors(sweep(drive, 20.0), T_BASE_LIDAR, START_NS + 20 * 10**9, estimated=estimated, true=true)


def test_a_drive_without_wheel_poses_in_the_middle_is_cut_there(drive: RobotTrack, feel: Feel) -> None:
    wheels, _ = feel(drive, PERFECT, 0)
    wheels = [w for w in wheels if not 12e9 < w.stamp_ns - START_NS < 14e9]
    whole, settings = Span(START_NS, START_NS + 30 * 10**9), ClipSettings(scene_s=10.0, shortest_s=3.0)
    selection = select(whole, wheels, NO_IMU, settings)
    assert selection.dropped_s()["no_odometry"] == pytest.approx(2.0, abs=0.2)
    ends = [((s.start_ns - START_NS) * 1e-9, (s.end_ns - START_NS) * 1e-9) for s in selection.scenes]
    np.testing.assert_allclose(ends, [(0, 10), (14, 24), (24, 30)], atol=0.15)
    assert selection.dropped_s()["too_short"] == pytest.approx(2.0, abs=0.2)


def test_no_poses_at_all_give_no_scene() -> None:
    selection = select(Span(0, 10**10), [], NO_IMU)
    assert selection.scenes == ()
    assert selection.dropped_s() == {"no_odometry": 10.0}


def test_wheel_poses_tell_of_a_fall_where_there_is_no_imu() -> None:
    fallen = [Odometry(k * 10**8, se3.from_euler(1.5 if 100 <= k < 120 else 0.0, 0.0, 0.0, (0.1 * k, 0.0, 0.0)))
              for k in range(300)]
    selection = select(Span(0, 299 * 10**8), fallen, NO_IMU, ClipSettings(scene_s=10.0))
    assert selection.dropped_s()["tipped"] == pytest.approx(4.0, abs=0.2)  # and a second before and after


def test_keyframes_are_the_first_pictures_of_their_beats() -> None:
    stamps = np.array([0, 90, 210, 480, 560, 700, 1010, 1900]) * 1_000_000
    rows = keyframe_rows(stamps, Span(0, 2_000_000_000), 2.0)
    assert rows.tolist() == [0, 4, 6, 7]
    assert keyframe_rows(stamps, Span(600_000_000, 700_000_000), 2.0).tolist() == []


def test_the_nearest_stamp_within_the_tolerance_is_taken() -> None:
    stamps = np.array([0, 100, 200]) * 1_000_000
    wanted = np.array([-10, 49, 51, 230, 400]) * 1_000_000
    assert nearest_rows(stamps, wanted, 0.05).tolist() == [0, 0, 1, 2, -1]
    assert nearest_rows(stamps[:1], wanted, 0.05).tolist() == [0, 0, -1, -1, -1]
    assert nearest_rows(stamps[:0], wanted, 0.05).tolist() == [-1] * 5


def test_faulty_settings_are_listed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClipSettings(scene_s=2.0, keyframe_hz=0.0)
    assert len(caught.value.faults) == 2
