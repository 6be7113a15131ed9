"""Real recordings of two robots to rigs and to the files of `bag create`: their calibrations come in odd formats.

`python scripts/real_input.py ../shared/real out/real --model models/walkocc_lite` writes a rig, a bag and pictures of
each: the ground of the grid and the points of the LiDAR in the images, and the voxels that the model answers.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from occ_perception.calibration import Rig, RigCamera, RigLidar, save_rig
from occ_perception.calibration.formats import from_camera_info
from occ_perception.engines import load_engine, load_manifest
from occ_perception.geometry import SIDEWALK_GRID, se3
from occ_perception.pipelines import FrameAssembler, OccupancyPipeline, OdometryBuffer, SyncedSet, synchroniser_for
from occ_perception.recordings import BagReader, sensor_events
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.recordings.create import create_bag
from occ_perception.replay import overlay
from occ_perception.types import VoxelGrid

Image = NDArray[np.uint8]

FISHEYE_THETA_RAD = np.deg2rad(95.0)


@dataclass(frozen=True)
class RealInput:
    """One robot: its rig, and the file of every camera and LiDAR at one instant."""

    rig: Rig
    images: dict[str, Path]
    clouds: dict[str, Path]


def orthonormal(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """T with the true rotation nearest to its own, which was rounded to few digits."""
    u, _, vt = np.linalg.svd(T[:3, :3])
    return se3.make(u @ vt, T[:3, 3])


def fisheye_vehicle(folder: Path) -> RealInput:
    """The campus vehicle with four fisheyes of 190 degrees (roecs_fisheye4).

    Its ground frame is x right, y forward, z up in units of about 0.1 m; the base is that frame as REP-103 has it.
    """
    calibration = yaml.safe_load((folder / "calib.yaml").read_text())
    unit_m = float(calibration["ground_frame"]["unit_m"])
    ground_from_base = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    cameras, images = [], {}
    for name, camera in calibration["cameras"].items():
        T_camera_ground = np.array(camera["T_cam_ground"], float)
        T_camera_base = se3.make(T_camera_ground[:, :3] @ ground_from_base, T_camera_ground[:, 3] * unit_m)
        cameras.append(RigCamera(
            name=name.lower(), frame=f"{name.lower()}_optical", width=calibration["width"],
            height=calibration["height"], model="equidistant",
            parameters=(camera["fx"], camera["fy"], camera["cx"], camera["cy"], *camera["k"]),
            max_theta_rad=FISHEYE_THETA_RAD, T_base_camera=se3.invert(orthonormal(T_camera_base)),
        ))
        images[name.lower()] = folder / camera["image"]
    return RealInput(Rig(name="fisheye_vehicle", cameras=tuple(cameras)), images, {})


def tracked_robot(folder: Path) -> RealInput:
    """The tracked robot with four cameras and a 128-ring LiDAR (marv_quadcam_os0). The base is its footprint."""
    text = yaml.safe_load((folder / "calibration" / "transformations.yaml").read_text())

    def in_footprint(frame: str) -> NDArray[np.float64]:
        T = {name: orthonormal(np.array(text[f"T_base_link__{name}"]["data"], float).reshape(4, 4))
             for name in (frame, "base_footprint")}
        return se3.invert(T["base_footprint"]) @ T[frame]

    cameras, images = [], {}
    for side in ("front", "left", "rear", "right"):
        info = yaml.safe_load((folder / "calibration" / "cameras" / f"camera_{side}.yaml").read_text())
        cameras.append(from_camera_info(info, side, in_footprint(f"camera_{side}")))
        images[side] = next((folder / "images").glob(f"*_camera_{side}.png"))
    lidar = RigLidar(name="top", frame="os_sensor", T_base_lidar=in_footprint("os_sensor"))
    rig = Rig(name="tracked_robot", base_frame="base_footprint", cameras=tuple(cameras), lidars=(lidar,))
    return RealInput(rig, images, {"top": next((folder / "clouds").glob("*.npz"))})


READERS = {"roecs_fisheye4": fisheye_vehicle, "marv_quadcam_os0": tracked_robot}


def image_of(data: RealInput, camera: RigCamera) -> Image:
    """RGB pixels of one camera."""
    return np.asarray(cv2.imread(str(data.images[camera.name]), cv2.IMREAD_COLOR_RGB), np.uint8)


def geometry_pictures(data: RealInput) -> list[Image]:
    """What must lie on the floor and on things, drawn into every image: the grid's ground, and the LiDAR's points."""
    drawn = []
    for camera in data.rig.cameras:
        image = image_of(data, camera)
        for lidar in data.rig.lidars:
            cloud = read_cloud(data.clouds[lidar.name], lidar.name, 0)
            image = overlay.draw_cloud(image, camera.mounted(), cloud, lidar.T_base_lidar)
        drawn.append(overlay.draw_ground(image, camera.mounted(), SIDEWALK_GRID))
    return drawn


def answer(bag: Path, rig: Rig, model: Path) -> VoxelGrid:
    """What the robot's own pipeline says to the last instant of a bag."""
    manifest = load_manifest(model)
    pipeline = OccupancyPipeline(load_engine(manifest, device="cpu"), manifest, rig)
    synchroniser, assembler = synchroniser_for(rig), FrameAssembler(rig, OdometryBuffer())
    sets: list[SyncedSet] = []
    with BagReader(bag) as reader:
        for event in sensor_events(reader, rig):
            if event.kind == "image":
                sets = synchroniser.push(event.sensor, event.stamp_ns, event.message) or sets
    *_, last = [*sets, *synchroniser.flush()]
    return pipeline.step(assembler.assemble(last)).grid


def main() -> None:
    """Write rigs, bags and pictures of both robots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with the recordings")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--model", type=Path, help="model folder whose answers are drawn too")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for folder, reader in READERS.items():
        data = reader(arguments.source / folder)
        name = data.rig.name
        save_rig(data.rig, arguments.output / f"{name}.yaml")
        bag = arguments.output / f"{name}.mcap"
        create_bag(bag, data.rig, data.images, data.clouds, repeat=5, overwrite=True)
        sheets = {"geometry": geometry_pictures(data)}
        if arguments.model:
            grid = answer(bag, data.rig, arguments.model)
            sheets["voxels"] = [overlay.draw_voxels(image_of(data, camera), camera.mounted(), grid)
                                for camera in data.rig.cameras]
        for kind, images in sheets.items():
            picture = arguments.output / f"{name}_{kind}.png"
            cv2.imwrite(str(picture), overlay.tile(images, width_px=800)[..., ::-1])
            print(f"{name}: {picture}")


if __name__ == "__main__":
    main()
