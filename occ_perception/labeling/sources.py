"""Where scenes come from. A reference is small and can be pickled; a worker on another machine opens it.

`sources_of` finds what a path is: a bag, or a folder of simulated scenes. `Source.scenes` lists references, which may
take a pass over a bag; `SceneRef.open` reads one scene, and nothing else, into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig, load_rig
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import read_sample, read_yaml
from occ_perception.datasets.sidewalk3d import AREAS
from occ_perception.errors import ConfigurationError, DatasetError, RecordingError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling.clip import Clip, LabelFrame, WorldBox
from occ_perception.labeling.clips import ClipSettings, Span
from occ_perception.labeling.levelling import Levelling, level
from occ_perception.labeling.recording import Recording
from occ_perception.labeling.segmenters.simulated import Truth, truth_of
from occ_perception.simulation.scene import World
from occ_perception.simulation.splits import SIM_VERSION, SceneSpec
from occ_perception.simulation.world import make_world
from occ_perception.types import FlowField

BOXES_WITHIN_M = 25.0
"""How far around the robot a perfect tracker would know things."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueGrid:
    """What is true of one frame.

    Attributes:
        spec: the grid.
        labels, visible: uint8 and bool [nx, ny, nz].
        moving: int64 [N, 3], cells of what moves.
        T_world_grid: [4, 4].
    """

    spec: VoxelGridSpec
    labels: NDArray[np.uint8]
    visible: NDArray[np.bool_]
    moving: NDArray[np.int64]
    T_world_grid: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneTruth:
    """The truth of a simulated scene.

    Attributes:
        classes: of images, as the simulated segmenter takes it.
        grid: by stamp.
        T_world_base: true pose [4, 4] by stamp, in any world.
    """

    classes: Truth
    grid: Callable[[int], TrueGrid]
    T_world_base: Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RawScene:
    """A scene ready to be labelled.

    Attributes:
        clip: its frames.
        area, night: as the Sidewalk3D layout states them.
        truth: where it is known.
        drops: messages and keyframes left out while reading, by reason.
        levelling: how its poses were levelled, where they were estimated.
    """

    clip: Clip
    area: str
    night: bool
    truth: SceneTruth | None = None
    drops: Counter[str] = field(default_factory=Counter)
    levelling: Levelling | None = None


class SceneRef(Protocol):
    """One scene that can be opened anywhere its files are."""

    @property
    def name(self) -> str:
        """Of the scene, and of the folder its labels go to."""

    def about(self) -> dict[str, Any]:
        """Where it comes from, for reports; plain values."""

    def open(self) -> RawScene:
        """Read it; raises an OccPerceptionError where it cannot be read."""


class Source(Protocol):
    """One file or folder with scenes."""

    @property
    def path(self) -> Path:
        """Of the file or folder."""

    def scenes(self) -> Sequence[SceneRef]:
        """References to its scenes; raises an OccPerceptionError where it cannot be read."""


# --- simulated scenes on disk ---


@dataclass(frozen=True, kw_only=True)
class SimulatedScenes:
    """A folder of simulated scenes, finished as a split or not.

    Args:
        boxes: whether the boxes of things are known, as by a perfect tracker.
    """

    path: Path
    boxes: bool = True

    def scenes(self) -> list[SimulatedScene]:
        """As of `Source`."""
        own = [self.path] if (self.path / "scene.yaml").is_file() else []
        return [SimulatedScene(folder=folder, boxes=self.boxes)
                for folder in own or sorted(file.parent for file in self.path.glob("*/scene.yaml"))]


@dataclass(frozen=True, kw_only=True)
class SimulatedScene:
    """One of them."""

    folder: Path
    boxes: bool = True

    @property
    def name(self) -> str:
        """As of `SceneRef`."""
        return self.folder.name

    def about(self) -> dict[str, Any]:
        """As of `SceneRef`."""
        about = read_yaml(self.folder / "scene.yaml")
        return {"kind": "simulated", "folder": str(self.folder), "version": about.get("version"),
                "content_hash": about.get("content_hash"), "boxes": self.boxes}

    def open(self) -> RawScene:
        """As of `SceneRef`.

        Raises:
            DatasetError: a file is broken, there are only images, or boxes are asked for of another simulator's world.
        """
        path = self.folder / "scene.yaml"
        about = read_yaml(path)
        try:
            spec = SceneSpec(int(about["seed"]), about["district"], bool(about["night"]), about["embodiment"],
                             int(about["frames"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"does not describe a simulated scene: {error!r}", where=str(path)) from error
        if about.get("images_only"):
            raise DatasetError("is a scene of images alone, without scans", where=str(self.folder))
        if self.boxes and about.get("version") != SIM_VERSION:
            raise DatasetError(f"was simulated by version {about.get('version')!r}, this is {SIM_VERSION!r}",
                               where=str(path), fix="Simulate it again, or label without boxes")
        rig = load_rig(self.folder / "rig.yaml")
        samples = [read_sample(self.folder, k, rig) for k in range(spec.frames)]
        world = make_world(spec.seed, spec.district, spec.night, spec.embodiment,
                           spec.duration_s) if self.boxes else None
        by_stamp = {sample.stamp_ns: sample for sample in samples}
        truth = SceneTruth(classes=truth_of(samples), grid=lambda stamp_ns: _grid_of(by_stamp[stamp_ns]),
                           T_world_base=lambda stamp_ns: _pose_of(by_stamp[stamp_ns]))
        return RawScene(clip=Clip(name=self.name, rig=rig, frames=[_frame_of(sample, world) for sample in samples]),
                        area=spec.district, night=spec.night, truth=truth)


def _pose_of(sample: Sample) -> NDArray[np.float64]:
    return sample.T_world_grid @ sample.T_grid_base


def _grid_of(sample: Sample) -> TrueGrid:
    return TrueGrid(spec=sample.spec, labels=sample.labels, visible=sample.visible, moving=_moving(sample.flow),
                    T_world_grid=sample.T_world_grid)


def _frame_of(sample: Sample, world: World | None) -> LabelFrame:
    points = sample.points_m if sample.points_m is not None else np.zeros((0, 3), np.float32)
    T_world_base = _pose_of(sample)
    return LabelFrame(
        stamp_ns=sample.stamp_ns, images=sample.images, points_m=points,
        # scans of several LiDARs were joined: which point is whose is not known, and the first stands for all
        sensor_m=np.array([lidar.T_base_lidar[:3, 3] for lidar in sample.rig.lidars[:1]]).reshape(-1, 3),
        point_sensor=np.zeros(len(points), np.uint8), T_world_base=T_world_base,
        boxes=None if world is None else boxes_at(world, sample.stamp_ns * 1e-9, T_world_base))


def _moving(flow: FlowField | None) -> NDArray[np.int64]:
    return flow.cells if flow is not None else np.zeros((0, 3), np.int64)


def boxes_at(world: World, time_s: float, T_world_base: NDArray[np.float64]) -> tuple[WorldBox, ...]:
    """The things around the robot as a perfect tracker on board would report them.

    Args:
        T_world_base: where the robot believes to be; boxes are where they truly are as seen from it.
    """
    true = world.robot.pose_at(time_s)
    T_believed_true = T_world_base @ se3.invert(true)
    found = []
    for actor in world.actors:
        T = actor.pose_at(time_s)
        if np.hypot(*(T - true)[:2, 3]) < BOXES_WITHIN_M:
            middle = se3.make(np.eye(3), (0.0, 0.0, actor.size_m[2] / 2))
            found.append(WorldBox(actor.track_id, int(actor.label), T_believed_true @ T @ middle,
                                  np.asarray(actor.size_m, float), T_believed_true[:3, :3] @ actor.velocity_at(time_s)))
    return tuple(found)


# --- bags ---


@dataclass(frozen=True, kw_only=True)
class Bag:
    """A bag; one of a simulated drive has its truth and its boxes at hand.

    Args:
        rig: its sensors.
        area, night: where and when it was recorded, as the Sidewalk3D layout states it.
        boxes: whether the boxes of things are known, of a simulated drive.
        topics: by sensor, instead of the default ones.
        settings: what makes a scene.
    """

    path: Path
    rig: Rig
    area: str
    night: bool = False
    boxes: bool = True
    topics: Mapping[str, str] = field(default_factory=dict)
    settings: ClipSettings = field(default_factory=ClipSettings)

    def scenes(self) -> list[BagScene]:
        """As of `Source`; one pass over the bag.

        Raises:
            RecordingError: it cannot be read, or holds no scene; says what was left out.
        """
        with Recording(self.path, self.rig, self.settings, topics=self.topics) as recording:
            found = [BagScene(bag=self, name=name, span=span, logged=recording.logged_around(span))
                     for name, span in recording.scenes.items()]
            left_out = recording.selection.dropped_s()
        if not found:
            parts = ", ".join(f"{reason} {seconds:.1f} s" for reason, seconds in left_out.items())
            raise RecordingError(f"holds no scene; left out: {parts or 'nothing, it is empty'}", where=str(self.path))
        return found


@dataclass(frozen=True, kw_only=True)
class BagScene:
    """A scene of a bag: its stamps, and the log times between which the bag is read for it."""

    bag: Bag
    name: str
    span: Span
    logged: Span

    def about(self) -> dict[str, Any]:
        """As of `SceneRef`."""
        return {"kind": "bag", "bag": str(self.bag.path), "rig": self.bag.rig.name, "start_ns": self.span.start_ns,
                "end_ns": self.span.end_ns}

    def open(self) -> RawScene:
        """As of `SceneRef`.

        Raises:
            RecordingError: the bag cannot be read, or its card does not fit.
        """
        bag = self.bag
        with Recording(bag.path, bag.rig, bag.settings, topics=bag.topics, logged=self.logged) as recording:
            clip = recording.clip(self.name, self.span)
            drops = +recording.drops
        levelling = level(clip.frames)
        clip, truth = _with_truth(replace(clip, frames=levelling.frames), bag)
        return RawScene(clip=clip, area=bag.area, night=bag.night, truth=truth, drops=drops, levelling=levelling)


def _with_truth(clip: Clip, bag: Bag) -> tuple[Clip, SceneTruth | None]:
    """The clip with its boxes, and the truth, where the bag has a card of a simulated drive."""
    if not bag.path.with_suffix(".yaml").is_file():
        return clip, None
    from occ_perception.simulation.cards import load_drive  # what renders is not installed everywhere

    sim = load_drive(bag.path, bag.rig)
    if sim is None:
        return clip, None

    def time_s(stamp_ns: int) -> float:
        return (stamp_ns - sim.start_ns) * 1e-9

    def grid(stamp_ns: int) -> TrueGrid:
        truth = sim.truth(time_s(stamp_ns))
        return TrueGrid(spec=truth.grid.spec, labels=truth.grid.labels, visible=truth.visible,
                        moving=_moving(truth.flow), T_world_grid=truth.T_world_grid)

    truth = SceneTruth(classes=lambda _, stamp_ns, camera: sim.view(camera, time_s(stamp_ns)).semantics, grid=grid,
                       T_world_base=lambda stamp_ns: sim.world.robot.pose_at(time_s(stamp_ns)))
    if bag.boxes:
        clip = replace(clip, frames=[
            replace(frame, boxes=boxes_at(sim.world, time_s(frame.stamp_ns), frame.T_world_base))
            for frame in clip.frames])
    return clip, truth


def sources_of(paths: Sequence[Path], *, rig: Rig | None = None, area: str | None = None, night: bool = False,
               boxes: bool = True, topics: Mapping[str, str] | None = None) -> list[Source]:
    """What each path is; nothing is read yet. Arguments as of `Bag`, which needs `rig` and `area`.

    Raises:
        ConfigurationError: a path does not exist, or lacks what it needs; all faults listed.
    """
    found: list[Source] = []
    faults = []
    for path in paths:
        if not path.exists():
            faults.append(f"{path} does not exist")
        elif (path / "scene.yaml").is_file() or any(path.glob("*/scene.yaml")):
            found.append(SimulatedScenes(path=path, boxes=boxes))
        elif rig is None or area not in AREAS:
            faults.append(f"{path} is a bag, which needs a rig and an area ({', '.join(AREAS)}); got "
                          f"{'no rig' if rig is None else rig.name} and {area or 'no area'}")
        else:
            found.append(Bag(path=path, rig=rig, area=area, night=night, boxes=boxes, topics=dict(topics or {})))
    if faults:
        raise ConfigurationError(faults, where="sources")
    return found
