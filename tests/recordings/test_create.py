"""Bags from image and cloud files, and every fault of the files told before anything is written."""

import cv2
import numpy as np
import pytest

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.errors import RecordingError
from occ_perception.recordings import BagReader, sensor_events
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.recordings.create import create_bag
from occ_perception.recordings.decode import decode_image, decode_points

POINTS = np.array([[1, 2, 3, 10], [4, 5, 6, 20], [0, 0, 0, 30], [np.nan, 1, 1, 40]], np.float32)
RIG = Rig(
    name="r",
    cameras=(RigCamera(name="front", frame="front_optical", width=16, height=12, model="pinhole",
                       parameters=(9, 9, 8, 6), T_base_camera=np.eye(4)),),
    lidars=(RigLidar(name="top", frame="top_lidar", T_base_lidar=np.eye(4)),),
)


def pixels(value):
    return np.full((12, 16, 3), value, np.uint8)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "front").mkdir()
    (tmp_path / "top").mkdir()
    for i, suffix in enumerate((".png", ".jpg", ".png")):
        cv2.imwrite(str(tmp_path / "front" / f"{i}{suffix}"), pixels(40 * i))
        np.savez(tmp_path / "top" / f"{i}.npz", cloud=POINTS)
    (tmp_path / "front" / "notes.txt").write_text("no image")
    return tmp_path


def test_series_of_files_become_instants_of_all_sensors(files):
    counts = create_bag(files / "bag", RIG, {"front": files / "front"}, {"top": files / "top"}, rate_hz=2.0,
                        start_ns=5_000_000_000)
    assert counts == {"/tf_static": 1, "/camera/front/camera_info": 3, "/camera/front/image/compressed": 3,
                      "/lidar/top/points": 3}
    with BagReader(files / "bag") as bag:
        events = list(sensor_events(bag, RIG))
    assert [e.stamp_ns for e in events if e.sensor == "front"] == [5_000_000_000, 5_500_000_000, 6_000_000_000]
    for i, event in enumerate(e for e in events if e.sensor == "front"):
        np.testing.assert_array_equal(decode_image(event.message), pixels(40 * i))
        assert event.message.header.frame_id == "front_optical"
    clouds = [decode_points(e.message, "top") for e in events if e.sensor == "top"]
    np.testing.assert_array_equal(clouds[0].points_m, POINTS[:2, :3])
    np.testing.assert_array_equal(clouds[0].intensity, [10, 20])


def test_a_single_instant_can_be_told_again_and_again(files):
    counts = create_bag(files / "bag.mcap", RIG, {"front": files / "front" / "0.png"}, repeat=4)
    assert counts["/camera/front/image/compressed"] == 4


def refused(files, match, images=None, clouds=None, **options):
    with pytest.raises(RecordingError, match=match):
        create_bag(files / "bag", RIG, images or {"front": files / "front"}, clouds, **options)
    assert not any("bag" in path.name for path in files.iterdir())


def test_files_that_do_not_fit_the_rig_are_refused_and_leave_nothing(files):
    refused(files, "no camera rear", {"front": files / "front", "rear": files / "front"})
    refused(files, "no LiDAR side", clouds={"side": files / "top"})
    refused(files, "different numbers of files: front 3, top 1", clouds={"top": files / "top" / "0.npz"})
    refused(files, "no file ending in", {"front": files / "nowhere"})
    refused(files, "rate_hz", rate_hz=0)
    cv2.imwrite(str(files / "front" / "2.png"), pixels(0)[:, :8])
    refused(files, "8x12 pixels, the rig says 16x12")
    (files / "front" / "2.png").write_bytes(b"no image")
    refused(files, "no JPEG, PNG")


def test_a_camera_without_files_is_refused(files):
    with pytest.raises(RecordingError, match="no files for camera front"):
        create_bag(files / "bag", RIG, {}, {"top": files / "top"})


def pcd(path, data, body, fields="x y z intensity", size="4 4 4 4", kind="F F F F", count="1 1 1 1"):
    head = (f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {size}\nTYPE {kind}\nCOUNT {count}\nWIDTH {len(POINTS)}\n"
            f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(POINTS)}\nDATA {data}\n")
    path.write_bytes(head.encode() + body)


def test_clouds_of_every_kind_of_file_are_the_same(tmp_path):
    names = ("x", "y", "z", "intensity")
    structured = np.array([tuple(row) for row in POINTS], [(name, "f4") for name in names])
    np.savez(tmp_path / "a.npz", other=np.zeros(1), cloud=structured)
    np.save(tmp_path / "b.npy", POINTS.astype(np.float64))
    POINTS.tofile(tmp_path / "c.bin")
    pcd(tmp_path / "d.pcd", "ascii", "\n".join(" ".join(map(str, row)) for row in POINTS.tolist()).encode())
    pcd(tmp_path / "e.pcd", "binary", POINTS.tobytes())
    padded = np.zeros(len(POINTS), [("xyz", "f4", 3), ("pad", "f4", 2), ("intensity", "f4")])
    padded["xyz"], padded["intensity"] = POINTS[:, :3], POINTS[:, 3]
    pcd(tmp_path / "f.pcd", "binary", padded.tobytes(), "x y z _ intensity", "4 4 4 4 4", "F F F F F", "1 1 1 2 1")
    for path in sorted(tmp_path.iterdir()):
        cloud = read_cloud(path, "top", 7)
        np.testing.assert_array_equal(cloud.points_m, POINTS[:2, :3], err_msg=path.name)
        np.testing.assert_array_equal(cloud.intensity, [10, 20], err_msg=path.name)
        assert cloud.stamp_ns == 7


def test_cloud_files_that_cannot_be_read_are_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.savez(tmp_path / "objects.npz", cloud=np.array([{}], object))
    np.savez(tmp_path / "zeros.npz", cloud=np.zeros((5, 3)))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.pcd").write_text("")
    (tmp_path / "short.bin").write_bytes(bytes(13))
    (tmp_path / "cloud.xyz").write_text("1 2 3")
    pcd(tmp_path / "cut.pcd", "binary", POINTS.tobytes()[:20])
    pcd(tmp_path / "packed.pcd", "binary_compressed", POINTS.tobytes())
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "absent.npz"]:
        with pytest.raises(RecordingError, match=path.name):
            read_cloud(path, "top", 0)
