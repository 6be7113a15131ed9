"""Frames from synchronised sets: decoded, checked against the rig, deskewed; a bad sensor costs only itself."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import cv2
import numba
import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage
from occ_perception.geometry import se3
from occ_perception.pipelines import FrameAssembler, OdometryBuffer, SyncedSet, frames, synchroniser_for
from occ_perception.recordings import MessageEncoder, make
from occ_perception.types import Odometry, PointCloud

STAMP = 10_000_000_000


def camera(name: str, offset_s: float = 0.0) -> dict[str, Any]:
    return {
        "name": name, "frame": f"{name}_optical", "width": 64, "height": 48, "model": "equidistant",
        "parameters": [20.0, 20.0, 31.5, 23.5], "max_theta_rad": 1.5, "time_offset_s": offset_s,
        "T_base_camera": {"translation": [0.2, 0.0, 0.7], "quaternion_xyzw": [-0.5, 0.5, -0.5, 0.5]},
    }


RIG = Rig.model_validate({
    "name": "pair", "cameras": [camera("front"), camera("rear", 0.01)],
    "lidars": [{"name": "top", "frame": "top", "T_base_lidar": {"translation": [0.0, 0.0, 1.0]}}],
})


def jpeg(height: int = 48, width: int = 64, colour: tuple[int, int, int] = (200, 100, 50)) -> SimpleNamespace:
    bgr = np.full((height, width, 3), colour[::-1], np.uint8)
    return SimpleNamespace(format="jpeg", data=cv2.imencode(".jpg", bgr)[1].tobytes())


def odometry(moving_mps: float = 1.0) -> OdometryBuffer:
    buffer = OdometryBuffer()
    for i in range(-20, 21):
        T = se3.from_euler(0.0, 0.0, 0.0, (moving_mps * i * 0.01, 0.0, 0.0))
        buffer.push(Odometry(STAMP + i * 10_000_000, T))
    return buffer


def synced(payloads: dict[str, Any], after_ns: int = 0) -> SyncedSet:
    stamps = {name: STAMP + (after_ns if i else 0) for i, name in enumerate(payloads)}
    return SyncedSet(STAMP, payloads, stamps)


def test_a_frame_holds_decoded_images_with_corrected_stamps_and_the_pose() -> None:
    frame = FrameAssembler(RIG, odometry()).assemble(synced({"front": jpeg(), "rear": jpeg()}, 20_000_000))
    assert np.abs(frame.images["front"].pixels[5, 5].astype(int) - (200, 100, 50)).max() <= 3
    assert frame.sensor_stamps_ns() == {"front": STAMP, "rear": STAMP + 20_000_000}
    np.testing.assert_allclose(frame.T_odom_base, np.eye(4), atol=1e-9)
    # The rear camera exposed 0.02 s later, 0.02 m further on: its base lies ahead of the anchor's.
    assert set(frame.T_anchor_exposure) == {"rear"}
    np.testing.assert_allclose(frame.T_anchor_exposure["rear"][:3, 3], [0.02, 0.0, 0.0], atol=1e-9)


def test_clouds_are_brought_to_the_anchor_stamp() -> None:
    cloud = PointCloud("top", STAMP, np.array([[5.0, 0.0, 0.0]], np.float32), None, np.array([100_000_000]))
    frame = FrameAssembler(RIG, odometry(2.0)).assemble(synced({"front": jpeg(), "top": cloud}))
    np.testing.assert_allclose(frame.clouds["top"].points_m, [[5.2, 0.0, 0.0]], atol=1e-5)


def test_returns_of_the_robot_itself_are_left_out() -> None:
    points = np.array([[0.3, 0.0, 0.3], [5.0, 0.0, 0.0], [0.0, 0.5, 0.0]], np.float32)
    top = RIG.lidar("top").model_copy(update={"minimum_range_m": 0.5})
    scan = PointCloud("top", STAMP, points, np.float32([1, 2, 3]), np.array([7, 8, 9]))
    frame = FrameAssembler(RIG.model_copy(update={"lidars": (top,)}), odometry(0.0)).assemble(
        synced({"front": jpeg(), "top": scan}))
    seen = frame.clouds["top"]
    np.testing.assert_allclose(seen.points_m, points[1:], atol=1e-6)
    assert seen.intensity is not None
    assert seen.intensity.tolist() == [2, 3]
    assert len(FrameAssembler(RIG, odometry(0.0)).assemble(
        synced({"front": jpeg(), "top": scan})).clouds["top"].points_m) == 3


def test_a_held_scan_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []

    def decode(message: Any, lidar: str) -> PointCloud:
        decoded.append(message)
        return PointCloud(lidar, STAMP, np.ones((2, 3), np.float32))

    monkeypatch.setattr(frames, "decode_points", decode)
    assembler = FrameAssembler(RIG, odometry())
    first, second = SimpleNamespace(), SimpleNamespace()
    for message in (first, first, second, second):
        assert "top" in assembler.assemble(synced({"front": jpeg(), "top": message})).clouds
    assert decoded == [first, second]


@pytest.mark.parametrize("poses", [OdometryBuffer(), odometry()])
def test_a_scan_that_odometry_does_not_reach_over_is_left_out_and_counted(poses: OdometryBuffer) -> None:
    long_ago = np.array([-5_000_000_000])
    scan = PointCloud("top", STAMP, np.array([[5.0, 0.0, 0.0]], np.float32), None, long_ago)
    assembler = FrameAssembler(RIG, poses)
    frame = assembler.assemble(synced({"front": jpeg(), "top": scan}))
    assert not frame.clouds
    assert assembler.drops == {"no_motion": 1}


def test_the_first_scan_waits_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_for: list[list[object]] = []

    def moved(*arguments: Any) -> None:
        compiled_for.append([numba.typeof(argument) for argument in arguments])

    monkeypatch.setattr(importlib.import_module("occ_perception.pipelines.deskew"), "_move", moved)
    assembler = FrameAssembler(RIG, odometry())
    cloud = PointCloud("top", STAMP, np.ones((3, 3), np.float32), None, np.arange(3) - 50_000_000)
    assembler.assemble(synced({"front": jpeg(), "top": MessageEncoder(make).point_cloud(cloud)}))
    at_construction, at_first_scan = compiled_for
    assert at_construction == at_first_scan


def test_without_odometry_there_is_a_frame_without_a_pose() -> None:
    frame = FrameAssembler(RIG, OdometryBuffer()).assemble(synced({"front": jpeg(), "rear": jpeg()}, 5_000_000))
    assert frame.T_odom_base is None
    assert not frame.T_anchor_exposure


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (jpeg(height=24), "wrong_size"),
        (SimpleNamespace(format="jpeg", data=b"\xff\xd8 cut"), "undecodable_image"),
        (SimpleNamespace(encoding="martian8", height=48, width=64, step=64, data=b""), "unknown_encoding"),
    ],
)
def test_a_bad_anchor_image_gives_no_frame_and_any_other_only_its_own_absence(message: Any, reason: str) -> None:
    assembler = FrameAssembler(RIG, OdometryBuffer())
    with pytest.raises(BadMessage) as caught:
        assembler.assemble(synced({"front": message, "rear": jpeg()}))
    assert caught.value.reason == reason
    frame = assembler.assemble(synced({"front": jpeg(), "rear": message}))
    assert set(frame.images) == {"front"}
    assert assembler.drops == {reason: 1}


@pytest.mark.parametrize("points", [np.zeros((0, 3), np.float32), np.full((7, 3), np.nan, np.float32)])
def test_an_empty_cloud_and_one_of_nan_leave_the_frame_without_it(points: np.ndarray) -> None:
    fields = [SimpleNamespace(name=axis, offset=4 * i, datatype=7, count=1) for i, axis in enumerate("xyz")]
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=10, nanosec=0)), fields=fields, is_bigendian=False,
        height=1, width=len(points), point_step=12, row_step=12 * len(points), data=points.tobytes(),
    )
    assembler = FrameAssembler(RIG, OdometryBuffer())
    frame = assembler.assemble(synced({"front": jpeg(), "top": message}))
    assert not frame.clouds
    assert assembler.drops == {"empty_cloud": 1}


def test_the_synchroniser_of_a_rig_uses_its_offsets() -> None:
    sync = synchroniser_for(RIG, lidars=["top"])
    assert sync.anchor == "front"
    sync.push("front", STAMP, "f")
    sync.push("top", STAMP, "t")
    (out,) = sync.push("rear", STAMP, "r")
    assert out.stamps_ns == {"front": STAMP, "rear": STAMP + 10_000_000, "top": STAMP}
