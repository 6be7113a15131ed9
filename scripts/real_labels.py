"""Real recordings of two robots as clips, labelled by rules of thumb: nobody annotated them, and it is geometry that
shall be looked at here, not a segmenter.

`python scripts/real_labels.py ../shared/real out/real_labels` writes a picture per frame.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from real_input import image_of, tracked_robot

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.geometry import ROAD_GRID, VoxelGridSpec, se3
from occ_perception.labeling.accumulate import Scene, accumulate, vote
from occ_perception.labeling.clip import Clip, LabelFrame, WorldBox
from occ_perception.labeling.fuse import fuse
from occ_perception.labeling.lift import lift_labels
from occ_perception.labeling.pictures import scene_picture
from occ_perception.labeling.vote import VoxelVote
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.replay.pictures import write_picture
from occ_perception.taxonomy import OCCLUSION, Sidewalk

Classes = dict[str, NDArray[np.uint8]]

ROBOT_GRID = VoxelGridSpec((-5.0, -5.0, -1.0), (5.0, 5.0, 3.0), 0.1)
"""All around: the two people stand beside the robot."""
CAR_CLASSES = {0: Sidewalk.PERSON, 4: Sidewalk.CYCLIST, 8: Sidewalk.CYCLIST}
"""Of the car's boxes; all others are vehicles."""
CAR_LIDAR_M = (1.1, 0.0, 1.8)
"""Where the rays of its merged cloud start, roughly: nobody says it, so the middle of its roof."""
PEOPLE_PX = (((313, 0), (540, 0), (600, 70), (590, 150), (545, 270), (600, 420), (655, 690), (415, 690), (400, 400),
              (340, 250)),
             ((1385, 110), (1420, 40), (1570, 90), (1540, 230), (1515, 420), (1500, 660), (1380, 660)))
TRUNKS_PX = (((0, 0), (110, 0), (130, 360), (0, 360)), ((885, 0), (1005, 0), (1080, 650), (990, 650)),
             ((1300, 0), (1378, 0), (1365, 700), (1290, 700)))
"""Outlines in the left image of the tracked robot, read off by eye."""


@dataclass(frozen=True)
class Labelled:
    """A clip with its classes by frame, and the grid it is to be fused in."""

    clip: Clip
    classes: list[Classes]
    spec: VoxelGridSpec

    def scene(self) -> Scene:
        """Lifted, voted and accumulated."""
        frames = list(self.clip.frames)
        labels = [lift_labels(frame.points_m, classes, self.clip.rig, T_anchor_exposure=frame.T_anchor_exposure)
                  for frame, classes in zip(frames, self.classes)]
        return accumulate(frames, vote(frames, labels, VoxelVote()), self.spec)


# --- the tracked robot: one instant, two people, four cameras ---


def robot(folder: Path) -> Labelled:
    """marv_quadcam_os0 as a clip of one frame."""
    data = tracked_robot(folder)
    [lidar] = data.rig.lidars
    cloud = read_cloud(data.clouds[lidar.name], lidar.name, 0).points_m
    cloud = cloud[np.hypot(cloud[:, 0], cloud[:, 1]) > 0.8]  # nearer are the robot, and leaves that lean on it
    frame = LabelFrame(
        stamp_ns=1, images={camera.name: image_of(data, camera) for camera in data.rig.cameras},
        points_m=se3.apply(lidar.T_base_lidar, cloud).astype(np.float32), sensor_m=lidar.T_base_lidar[None, :3, 3],
        point_sensor=np.zeros(len(cloud), np.uint8), T_world_base=np.eye(4))
    classes = {camera.name: robot_classes(camera, frame.images[camera.name]) for camera in data.rig.cameras}
    return Labelled(Clip(name=data.rig.name, rig=data.rig, frames=[frame]), [classes], ROBOT_GRID)


def robot_classes(camera: RigCamera, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ground where it is brown and rays meet it within 4 m, wood elsewhere, and people and trunks by outline."""
    earth = (ground_range_m(camera) < 4.0) & ~is_green(image) & (camera.name != "right")  # that one is in a bush
    classes = np.where(earth, Sidewalk.GRASS, Sidewalk.TREES).astype(np.uint8)
    if camera.name == "left":
        for outlines, label in ((TRUNKS_PX, Sidewalk.TREES), (PEOPLE_PX, Sidewalk.PERSON)):
            for outline in outlines:
                cv2.fillPoly(classes, [np.array(outline)], int(label))
        cv2.fillPoly(classes, [np.array(TRUNKS_PX[2])], int(Sidewalk.TREES))  # before the second person
    return classes


# --- the car: three samples, six cameras, boxes ---


def car(folder: Path) -> Labelled:
    """dgp_scene02_6cam as a clip of three frames with boxes."""
    scene = _read(next(folder.glob("scene_*.json")))
    data = {datum["key"]: datum for datum in scene["data"]}
    samples = [[data[key] for key in sample["datum_keys"]] for sample in scene["samples"]]
    rig = _car_rig(folder, scene["samples"][0]["calibration_key"], samples[0])
    frames = [_car_frame(folder, rig, sample) for sample in samples]
    frames = [replace(frame, boxes=_moving(frames, k)) for k, frame in enumerate(frames)]
    classes = [{name: car_classes(rig.camera(name), image, boxes) for name, image, boxes in
                ((datum["id"]["name"], frame.images[datum["id"]["name"]], _boxes_2d(folder, datum))
                 for datum in sample if "image" in datum["datum"])} for frame, sample in zip(frames, samples)]
    return Labelled(Clip(name=rig.name, rig=rig, frames=frames), classes, ROAD_GRID)


def car_classes(camera: RigCamera, image: NDArray[np.uint8], boxes_px: list[tuple[int, int, int, int]]
                ) -> NDArray[np.uint8]:
    """By colour: green is grass below the horizon and trees above it, the rest is road below; vehicles by box."""
    green, below = is_green(image), ground_range_m(camera) < 60.0
    classes = np.where(below, np.where(green, Sidewalk.GRASS, Sidewalk.ROAD),
                       np.where(green | (image.max(axis=2) < 110), Sidewalk.TREES, 0)).astype(np.uint8)
    for u, v, width, height in boxes_px:
        classes[v: v + height, u: u + width] = Sidewalk.VEHICLE
    classes[ground_range_m(camera) < 3.0] = OCCLUSION  # the car itself
    return classes


def _car_rig(folder: Path, calibration: str, sample: list[dict[str, Any]]) -> Rig:
    sizes = {datum["id"]["name"]: datum["datum"]["image"] for datum in sample if "image" in datum["datum"]}
    text = _read(folder / "calibration" / f"{calibration}.json")
    cameras = []
    for name, lens, place in zip(text["names"], text["intrinsics"], text["extrinsics"]):
        if name in sizes:
            cameras.append(RigCamera(
                name=name, frame=name, width=sizes[name]["width"], height=sizes[name]["height"], model="pinhole",
                parameters=tuple(lens[key] for key in ("fx", "fy", "cx", "cy")), T_base_camera=_pose(place)))
    lidar = RigLidar(name="LIDAR", frame="LIDAR", T_base_lidar=np.eye(4))
    return Rig(name="road_car", cameras=tuple(cameras), lidars=(lidar,))


def _car_frame(folder: Path, rig: Rig, sample: list[dict[str, Any]]) -> LabelFrame:
    """One sample at the stamp of its LiDAR, whose frame is that of the car; boxes do not know yet how they move."""
    by_name = {datum["id"]["name"]: datum for datum in sample}
    cloud = by_name["LIDAR"]["datum"]["point_cloud"]
    points = read_cloud(folder / cloud["filename"], "LIDAR", 0).points_m
    T_world_base = _pose(cloud["pose"])
    images, exposures = {}, {}
    for camera in rig.cameras:
        datum = by_name[camera.name]["datum"]["image"]
        images[camera.name] = np.asarray(cv2.imread(str(folder / datum["filename"]), cv2.IMREAD_COLOR_RGB), np.uint8)
        exposures[camera.name] = se3.invert(T_world_base) @ _pose(datum["pose"]) @ se3.invert(camera.T_base_camera)
    annotations = _read(folder / next(iter(cloud["annotations"].values())))["annotations"]
    boxes = [WorldBox(each["instance_id"], int(CAR_CLASSES.get(each["class_id"], Sidewalk.VEHICLE)),
                      T_world_base @ _pose(each["box"]["pose"]),
                      np.array([each["box"][side] for side in ("length", "width", "height")], float))
             for each in annotations]
    stamp = datetime.fromisoformat(by_name["LIDAR"]["id"]["timestamp"].replace("Z", "+00:00"))
    since = stamp - datetime(stamp.year, 1, 1, tzinfo=timezone.utc)
    return LabelFrame(
        stamp_ns=round(since.total_seconds() * 1e6) * 1000, images=images, points_m=points,
        sensor_m=np.array([CAR_LIDAR_M]), point_sensor=np.zeros(len(points), np.uint8), T_world_base=T_world_base,
        T_anchor_exposure=exposures, boxes=boxes)


def _moving(frames: list[LabelFrame], k: int) -> list[WorldBox]:
    """The boxes of a frame with velocities by where they are in its neighbours."""
    around = [frames[max(k - 1, 0)], frames[min(k + 1, len(frames) - 1)]]
    places = [{box.track_id: box.T_world_object[:3, 3] for box in frame.boxes or ()} for frame in around]
    seconds = (around[1].stamp_ns - around[0].stamp_ns) * 1e-9
    return [replace(box, velocity_mps=(places[1][box.track_id] - places[0][box.track_id]) / seconds)
            if all(box.track_id in place for place in places) else box for box in frames[k].boxes or ()]


def _boxes_2d(folder: Path, datum: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    paths = [path for path in datum["datum"]["image"]["annotations"].values() if path.startswith("bounding_box_2d")]
    return [(each["box"]["x"], each["box"]["y"], each["box"]["w"], each["box"]["h"])
            for path in paths for each in _read(folder / path)["annotations"]]


# --- what both share ---


def is_green(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of leaves and lawn, [H, W]."""
    hue, saturation, _ = np.moveaxis(cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 3), cv2.COLOR_RGB2HSV), -1, 0)
    return np.asarray((hue > 28) & (hue < 90) & (saturation > 45))


def ground_range_m(camera: RigCamera) -> NDArray[np.float64]:
    """How far along each pixel's ray the plane z = 0 of the base is, [H, W]; inf where it is not met."""
    rays = np.nan_to_num(camera.camera.rays().astype(float)) @ camera.T_base_camera[:3, :3].T
    down = -rays[..., 2]
    return np.where(down > 1e-3, camera.T_base_camera[2, 3] / np.maximum(down, 1e-3), np.inf)


def _pose(text: Mapping[str, Any]) -> NDArray[np.float64]:
    turn, place = text["rotation"], text["translation"]
    return se3.from_quaternion([turn[f"q{axis}"] for axis in "xyzw"], [place[axis] for axis in "xyz"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


READERS = {"marv_quadcam_os0": robot, "dgp_scene02_6cam": car}


def main() -> None:
    """Write the pictures of all frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with the recordings")
    parser.add_argument("output", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    for folder, reader in READERS.items():
        labelled = reader(arguments.source / folder)
        clip, scene = labelled.clip, labelled.scene()
        for k, classes in enumerate(labelled.classes):
            fused = fuse(scene, k, labelled.spec, clip.rig)
            path = arguments.output / f"{clip.name}_{k}.png"
            write_picture(scene_picture(clip, classes, fused, k), path)
            print(path)


if __name__ == "__main__":
    main()
