"""A street without a simulator, as scenes for whatever opens them; workers import this module by name."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from occ_perception.calibration import Rig, save_rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import write_sample
from occ_perception.errors import RecordingError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling.clip import Clip, LabelFrame, WorldBox
from occ_perception.labeling.sources import RawScene, SceneTruth, TrueGrid
from occ_perception.taxonomy import FREE, UNKNOWN, Sidewalk
from occ_perception.types import FlowField

SPEC = VoxelGridSpec((0.0, -3.0, -1.0), (9.0, 3.0, 2.0), 0.1)
WALL_M, STEP_M = 8.05, 0.4
PERSON_M = np.array([0.5, 0.5, 1.7])
CLASSES = np.array([Sidewalk.SIDEWALK, Sidewalk.WALL, Sidewalk.PERSON], np.uint8)
CAMERA_M = (0.2, 0.0, 1.0)


def rig_of() -> Rig:
    return rig_from_dict({
        "name": "test", "cameras": [{
            "name": "front", "frame": "optical", "width": 160, "height": 120, "model": "pinhole",
            "parameters": [80.0, 80.0, 79.5, 59.5], "T_base_camera": se3.make(se3.OPTICAL_IN_BODY, CAMERA_M).tolist()}],
        "lidars": [{"name": "top", "frame": "top", "T_base_lidar": se3.make(np.eye(3), (0, 0, 1.0)).tolist()}],
    }, where="test")


def person_at(k: int) -> NDArray[np.float64]:
    """Centre of somebody who crosses the way at 1 m/s."""
    return np.array([4.0, -1.5 + 0.5 * k, 0.85])


def pose_at(k: int) -> NDArray[np.float64]:
    return se3.make(np.eye(3), (STEP_M * k, 0.0, 0.0))


def cast(origin: NDArray[np.float64], rays: NDArray[np.float64], k: int
         ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Range and class of what rays [N, 3] meet: ground, a wall, or the person."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 2] < 0, -origin[2] / rays[:, 2], np.inf)
        wall = np.where(rays[:, 0] > 0, (WALL_M - origin[0]) / rays[:, 0], np.inf)
        near, far = np.sort([(person_at(k) + s * PERSON_M / 2 - origin) / rays for s in (-1, 1)], axis=0)
    enter, leave = near.max(axis=1), far.min(axis=1)
    body = np.where((enter < leave) & (enter > 0), enter, np.inf)
    every = np.stack([ground, wall, body])
    return every.min(axis=0), CLASSES[every.argmin(axis=0)]


def classes_at(k: int) -> NDArray[np.uint8]:
    camera = rig_of().cameras[0]
    v, u = np.indices((camera.height, camera.width))
    rays = camera.camera.unproject(np.column_stack([u.ravel(), v.ravel()]).astype(float)) @ se3.OPTICAL_IN_BODY.T
    _, classes = cast(pose_at(k)[:3, 3] + CAMERA_M, rays, k)
    return classes.reshape(camera.height, camera.width)


def frame_at(k: int, boxes: bool = True) -> LabelFrame:
    azimuth, elevation = np.meshgrid(np.linspace(-1.3, 1.3, 300), np.linspace(-0.75, 0.25, 48))
    rays = np.column_stack([(np.cos(elevation) * np.cos(azimuth)).ravel(),
                            (np.cos(elevation) * np.sin(azimuth)).ravel(), np.sin(elevation).ravel()])
    lidar = np.array([0.0, 0.0, 1.0])
    range_m, _ = cast(pose_at(k)[:3, 3] + lidar, rays, k)
    points = (lidar + rays * (range_m + np.random.default_rng(k).normal(0, 0.01, len(rays)))[:, None])
    box = WorldBox(41, int(Sidewalk.PERSON), se3.make(np.eye(3), person_at(k)), PERSON_M, np.array([0.0, 1.0, 0.0]))
    return LabelFrame(
        stamp_ns=k * 500_000_000, images={"front": np.repeat(17 * classes_at(k)[:, :, None], 3, axis=2)},
        points_m=points.astype(np.float32), sensor_m=lidar[None], point_sensor=np.zeros(len(points), np.uint8),
        T_world_base=pose_at(k), boxes=(box,) if boxes else None)


def grid_at(k: int) -> TrueGrid:
    labels = np.full(SPEC.shape, FREE, np.uint8)
    labels[:, :, :10], labels[:, :, 10] = UNKNOWN, Sidewalk.SIDEWALK
    wall = round((WALL_M - STEP_M * k) / 0.1 - 0.5)
    labels[wall, :, 11:], labels[wall + 1:] = Sidewalk.WALL, UNKNOWN
    person = (np.abs(SPEC.centre_of(np.argwhere(np.ones(SPEC.shape))) - person_at(k) + (STEP_M * k, 0, 0))
              <= PERSON_M / 2).all(axis=1).reshape(SPEC.shape)
    labels[person] = Sidewalk.PERSON
    return TrueGrid(spec=SPEC, labels=labels, visible=labels != UNKNOWN, moving=np.argwhere(person),
                    T_world_grid=pose_at(k))


def write_scene(folder: Path, frames: int = 2, **about: object) -> Path:
    """The street as a simulation leaves it on disk."""
    folder.mkdir(parents=True)
    save_rig(rig_of(), folder / "rig.yaml")
    for k in range(frames):
        frame, grid = frame_at(k), grid_at(k)
        moving = grid.moving
        write_sample(folder, Sample(
            scene=folder.name, index=k, stamp_ns=frame.stamp_ns, rig=rig_of(), images=frame.images,
            semantics={"front": classes_at(k)}, T_grid_base=np.eye(4), spec=SPEC, T_world_grid=grid.T_world_grid,
            labels=grid.labels, visible=grid.visible, range_m={"front": np.ones((120, 160), np.float32)},
            points_m=frame.points_m, waypoints_m=np.full((10, 2), k, np.float32),
            flow=FlowField(SPEC, frame.stamp_ns, moving, np.zeros((len(moving), 3), np.float32),
                           np.ones(len(moving), np.float32))))
    (folder / "scene.yaml").write_text(yaml.safe_dump({
        "version": "1", "content_hash": "0", "seed": 3, "district": "residential", "night": True,
        "embodiment": "wheeled", "frames": frames, "images_only": False} | about))
    return folder


@dataclass(frozen=True)
class Street:
    """A `SceneRef` with a person who crosses."""

    name: str
    frames: int = 3

    def about(self) -> dict[str, Any]:
        return {"kind": "street"}

    def open(self) -> RawScene:
        truth = SceneTruth(classes=lambda _, stamp_ns, camera: classes_at(stamp_ns // 500_000_000),
                           grid=lambda stamp_ns: grid_at(stamp_ns // 500_000_000),
                           T_world_base=lambda stamp_ns: pose_at(stamp_ns // 500_000_000))
        return RawScene(clip=Clip(name=self.name, rig=rig_of(), frames=[frame_at(k) for k in range(self.frames)]),
                        area="residential", night=False, truth=truth)


@dataclass(frozen=True)
class Deadly(Street):
    """A scene over which a worker is killed, the first `deaths` times."""

    notes: Path = Path()
    deaths: int = 1

    def open(self) -> RawScene:
        tried = len(list(self.notes.glob(f"{self.name}-*")))
        (self.notes / f"{self.name}-{tried}").touch()
        if tried < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open()


@dataclass(frozen=True)
class Held(Street):
    """A scene that tells who labels it and then waits, until `told` is no pipe any more."""

    told: Path = Path()

    def open(self) -> RawScene:
        if self.told.is_fifo():
            self.told.write_text(str(os.getpid()))  # returns when somebody reads
            signal.pause()
        return super().open()


@dataclass(frozen=True)
class Cramped(Street):
    """A scene whose worker finds no room on the disk for more than a few bytes."""

    def open(self) -> RawScene:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().open()


@dataclass(frozen=True)
class Broken(Street):
    """A scene that trips over a fault of ours."""

    def open(self) -> RawScene:
        raise ZeroDivisionError("a fault")


@dataclass(frozen=True)
class Town:
    """A `Source` of given scenes; without any it is a file that cannot be read."""

    path: Path
    refs: Sequence[Any] = field(default=())

    def scenes(self) -> Sequence[Any]:
        if not self.refs:
            raise RecordingError("is cut off", where=str(self.path))
        return self.refs
