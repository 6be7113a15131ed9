"""Writes a split to disk: scene by scene, in parallel processes, resumable."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from occ_perception.calibration import Rig, load_rig, save_rig
from occ_perception.datasets.files import new_file, new_folder
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.datasets.scene_folder import read_yaml, write_images, write_sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import se3
from occ_perception.simulation.scene import World
from occ_perception.simulation.sim import SidewalkSim
from occ_perception.simulation.splits import RIGS, SIM_VERSION, SceneSpec, Split
from occ_perception.simulation.world import make_world
from occ_perception.taxonomy import SIDEWALK


@dataclass(frozen=True)
class Generated:
    """What a generation left on disk."""

    split: str
    folder: Path
    scenes: int
    frames: int
    new_frames: int
    elapsed_s: float
    size_bytes: int
    content_hash: str

    def table(self) -> Table:
        """Figures for people."""
        table = Table(title=f"split {self.split}, simulation {SIM_VERSION}")
        for column in ("scenes", "frames", "new frames/s", "MB", "KB/frame", "content hash"):
            table.add_column(column, justify="right")
        rate = f"{self.new_frames / self.elapsed_s:.1f}" if self.new_frames else "-"
        table.add_row(str(self.scenes), str(self.frames), rate, f"{self.size_bytes / 1e6:.0f}",
                      f"{self.size_bytes / 1e3 / max(self.frames, 1):.0f}", self.content_hash[:16])
        return table


def build_world(spec: SceneSpec) -> World:
    """The world of a scene."""
    return make_world(spec.seed, spec.district, spec.night, spec.embodiment, spec.duration_s)


def image_sample(sim: SidewalkSim, scene: str, index: int, time_s: float) -> ImageSample:
    """What a robot without LiDAR contributes: its images, their classes and its tilt."""
    instant = sim.instant(time_s)
    views = {camera.name: sim.view(camera.name, time_s, instant) for camera in sim.rig.cameras}
    T_world_base = sim.world.robot.pose_at(time_s)
    return ImageSample(
        scene=scene, index=index, stamp_ns=sim.stamp_ns(time_s), rig=sim.rig,
        images={name: view.image for name, view in views.items()},
        semantics={name: view.semantics for name, view in views.items()},
        T_grid_base=se3.invert(se3.gravity_aligned(T_world_base)) @ T_world_base)


def full_sample(sim: SidewalkSim, scene: str, index: int, time_s: float) -> Sample:
    """What a data set keeps of a simulated instant."""
    frame = sim.frame(time_s, clouds=False)
    truth = frame.truth
    return Sample(
        scene=scene, index=index, stamp_ns=frame.stamp_ns, rig=sim.rig,
        images={name: view.image for name, view in frame.views.items()},
        semantics={name: view.semantics for name, view in frame.views.items()}, T_grid_base=truth.T_grid_base,
        spec=truth.grid.spec, T_world_grid=truth.T_world_grid, labels=truth.grid.labels, visible=truth.visible,
        range_m={name: view.range_m for name, view in frame.views.items()}, points_m=sim.points_m(time_s),
        waypoints_m=None if truth.trajectory is None else truth.trajectory.positions_m,
        instance_rows=truth.grid.instance_rows, track_ids=truth.grid.track_ids, flow=truth.flow)


def write_scene(spec: SceneSpec, folder: Path, rigs: Path, images_only: bool = False) -> str:
    """One scene into `folder` (written beside and renamed); returns its content hash. A finished one is left alone.

    Raises:
        DatasetError: the folder holds a scene of another simulation, specification or rig, or the disk is full.
    """
    rig = load_rig(rigs / f"{RIGS[spec.embodiment]}.yaml")
    if (folder / "scene.yaml").is_file():
        return _finished(spec, rig, folder, images_only)
    with new_folder(folder) as beside:
        save_rig(rig, beside / "rig.yaml")
        world = build_world(spec)
        sim = SidewalkSim(world, rig)
        about: dict[str, Any] = {"version": SIM_VERSION, "content_hash": "", **asdict(spec),
                                 "images_only": images_only}
        if images_only:
            about["tilts"] = []
        for index, time_s in enumerate(spec.times_s()):
            if images_only:
                images = image_sample(sim, spec.name, index, time_s)
                write_images(beside, images)
                about["tilts"].append(_tilt(images.T_grid_base))
            else:
                write_sample(beside, full_sample(sim, spec.name, index, time_s))
        digest = hashlib.sha256((SIM_VERSION + world.content_hash()).encode())
        digest.update((beside / "rig.yaml").read_bytes())
        about["content_hash"] = content_hash = digest.hexdigest()
        (beside / "scene.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    return content_hash


def _tilt(T_grid_base: NDArray[np.float64]) -> list[float]:
    """Roll and pitch, radians: T_grid_base = Ry(pitch) Rx(roll)."""
    return [float(np.arctan2(-T_grid_base[1, 2], T_grid_base[1, 1])),
            float(np.arctan2(-T_grid_base[2, 0], T_grid_base[0, 0]))]


def _finished(spec: SceneSpec, rig: Rig, folder: Path, images_only: bool) -> str:
    about = read_yaml(folder / "scene.yaml")
    wanted = {"version": SIM_VERSION, **asdict(spec), "images_only": images_only}
    differs = [f"{key} is {about.get(key)!r}, not {value!r}"
               for key, value in wanted.items() if about.get(key) != value]
    if not differs and load_rig(folder / "rig.yaml").model_dump() != rig.model_dump():
        differs = [f"its rig is not the present {rig.name}"]
    if differs:
        raise DatasetError(f"holds another scene: {'; '.join(differs)}", where=str(folder),
                           fix="Remove the folder or choose another root")
    return str(about["content_hash"])


def generate(split: Split, root: Path, rigs: Path, workers: int = 2, limit: int | None = None,
             console: Console | None = None) -> Generated:
    """Writes a split to `root/<name>/`, one folder per scene and at last `split.yaml`.

    Args:
        split: from `SPLITS`.
        rigs: folder with the rig files of `RIGS`.
        workers: processes; scenes are independent of each other.
        limit: stop after as many frames (whole scenes).
        console: where progress and the table go.

    Raises:
        DatasetError: the folder holds scenes of another simulation or rig, or more frames than asked for, or the disk
            is full.
    """
    split = split.limited(limit)
    folder = Path(root) / split.name
    if (folder / "split.yaml").is_file() and read_yaml(folder / "split.yaml").get("frames", 0) > split.frames:
        raise DatasetError("holds more frames than asked for", where=str(folder),
                           fix="Leave --limit away, or choose another root")
    missing = [scene for scene in split.scenes if not (folder / scene.name / "scene.yaml").is_file()]
    console = console or Console()
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    hashes: dict[str, str] = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{split.name}: scenes", total=len(split.scenes))
        for name, content_hash in _run(split, folder, Path(rigs), workers):
            hashes[name] = content_hash
            progress.advance(task)
    elapsed_s = time.perf_counter() - started
    digest = hashlib.sha256("".join(hashes[scene.name] for scene in split.scenes).encode()).hexdigest()
    about = {"split": split.name, "version": SIM_VERSION, "content_hash": digest, "taxonomy": SIDEWALK.name,
             "images_only": split.images_only, "frames": split.frames,
             "specification_hash": split.specification_hash(),
             "scenes": [{"name": scene.name, "frames": scene.frames} for scene in split.scenes]}
    with new_file(folder / "split.yaml") as beside:
        beside.write_text(yaml.safe_dump(about, sort_keys=False))
    size = sum(f.stat().st_size for scene in split.scenes for f in (folder / scene.name).iterdir())
    result = Generated(split.name, folder, len(split.scenes), split.frames, sum(s.frames for s in missing), elapsed_s,
                       size, digest)
    console.print(result.table())
    return result


def _run(split: Split, folder: Path, rigs: Path, workers: int) -> Iterator[tuple[str, str]]:
    """Name and content hash of every scene as it is finished."""
    if workers <= 1:
        for scene in split.scenes:
            yield scene.name, write_scene(scene, folder / scene.name, rigs, split.images_only)
        return
    context = multiprocessing.get_context("spawn")  # Embree and OpenCV have threads, which do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = {pool.submit(write_scene, scene, folder / scene.name, rigs, split.images_only): scene
                for scene in split.scenes}
        try:
            for job in as_completed(jobs):
                yield jobs[job].name, job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    """Each process keeps to one core."""
    import cv2

    cv2.setNumThreads(1)
