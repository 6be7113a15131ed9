"""All scans of a clip become one static world and a cloud per moving thing (WalkOCC, appendix D.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling.clip import LabelFrame, WorldBox
from occ_perception.labeling.evidence import Evidence
from occ_perception.labeling.ground import SAME_LEVEL_M, GroundMap, ground_map, on_ground
from occ_perception.labeling.surfels import Surfels, Thinned, rows_within, surfels, thin
from occ_perception.labeling.vote import KnnVote, VoxelVote, knn_vote, voxel_keys, voxel_vote
from occ_perception.taxonomy import SIDEWALK, Sidewalk

_THINGS = np.isin(np.arange(256), sorted(SIDEWALK.things))
_PLACE_M = 0.5
_GROUND_COLUMNS = 2
"""Columns of the height map along a cell; with 4 the kerbs of the simulation gain less than a point of IoU."""
_GROUND = np.isin(np.arange(256), sorted(SIDEWALK.ground))
_BESIDE_THING_M = 0.3
"""Returns so near those of a thing may be its own: half the width of a person, hands and bags included."""
_ON_THING_M = 0.15
"""Unlabelled returns so near are its own even where no other frame saw through them, as beside it or in a lone frame;
farther ones may be of the bush it stands in."""
ARTICULATED = frozenset({Sidewalk.PERSON, Sidewalk.CYCLIST, Sidewalk.ANIMAL})
"""Things whose limbs move: only scans near in time show them in the same shape."""


@dataclass(frozen=True, kw_only=True)
class AccumulateSettings:
    """How scans are put together.

    Attributes:
        ground_gap_m: half the width of the widest gap in the ground that is closed.
        ground_step_m: not across steps higher than this.
        box_margin_m: boxes are grown by this much to all sides but the lower one.
        articulated_s: how far in time scans of a walking thing may lie from the frame they are used in.
        standing_s: without boxes, a thing stands (and belongs to the static world) when it was hit in the same place
            over at least this time, and in twice as many frames as it was seen through.
        remnant_ratio: returns from a cell that rays crossed in more than this many times the frames that hit it (as
            `Evidence` counts) are of something that passed, whatever their label; beside a thing, half is enough.

    Raises:
        ConfigurationError: all faults listed.
    """

    ground_gap_m: float = 1.0
    ground_step_m: float = 0.4
    box_margin_m: float = 0.1
    articulated_s: float = 0.3
    standing_s: float = 1.9
    remnant_ratio: float = 1.0

    def __post_init__(self) -> None:
        faults = [f"{name} must be a number of at least 0, got {value}" for name, value in vars(self).items()
                  if not 0 <= value < math.inf]
        if faults:
            raise ConfigurationError(faults, where="AccumulateSettings")


@dataclass(frozen=True, eq=False)
class SceneFrame:
    """What fusing needs of one frame. Positions are relative to the scene's origin.

    Attributes:
        stamp_ns, boxes: of the frame (no boxes where nobody knows them).
        T_scene_base: [4, 4].
        points_m, sensor_m, point_sensor: the scan, float32 [P, 3], float64 [S, 3], uint8 [P].
        loose: what moves and has no box, as this scan alone saw it; of the class of a thing, or of none.
    """

    stamp_ns: int
    T_scene_base: NDArray[np.float64]
    points_m: NDArray[np.float32]
    sensor_m: NDArray[np.float64]
    point_sensor: NDArray[np.uint8]
    boxes: tuple[WorldBox, ...]
    loose: Thinned


@dataclass(frozen=True, eq=False)
class TrackCloud:
    """Returns of one thing in the frame of its box, float32 [K, 3], and the stamp of the frame of each, int64 [K]."""

    label: int
    points_m: NDArray[np.float32]
    stamp_ns: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip put together. Positions are relative to `origin_m` [3] in the world, so that float32 is enough.

    Attributes:
        cell_m: voxels it was thinned for; points lie half of it apart.
        ground: height map with classes.
        solids: what else stands still.
        evidence: hits and passes of every cell near the robot's way.
        tracks: clouds of things by track id.
        frames: in order.
    """

    origin_m: NDArray[np.float64]
    cell_m: float
    ground: GroundMap
    solids: Surfels
    evidence: Evidence
    tracks: Mapping[int, TrackCloud]
    frames: tuple[SceneFrame, ...]
    settings: AccumulateSettings


def vote(frames: Sequence[LabelFrame], labels: Sequence[NDArray[np.uint8]],
         settings: VoxelVote | KnnVote) -> list[NDArray[np.uint8]]:
    """Stage 3 of WalkOCC's algorithm 1: all scans in the world, one vote, split back to the scans."""
    if not frames:
        return []
    origin = frames[0].T_world_base[:3, 3]
    points = np.concatenate([_in_scene(frame, origin) for frame in frames])
    every = np.concatenate(list(labels))
    counts = [len(part) for part in labels]
    if isinstance(settings, KnnVote):
        voted = knn_vote(points, every, settings)
    else:
        scan = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        voted = voxel_vote(points, every, settings, scan=scan)
    return np.split(voted, np.cumsum(counts)[:-1])


def accumulate(frames: Sequence[LabelFrame], labels: Sequence[NDArray[np.uint8]], spec: VoxelGridSpec,
               settings: AccumulateSettings | None = None) -> Scene:
    """The static world and the moving things of a clip.

    Returns within a box belong to its track, whatever their label. Where boxes are known, a thing's label outside of
    them is an error of the 2D labels, and the return counts as unlabelled. Where they are not, returns labelled as
    things are kept in their own frame, unless they stand (`standing_s`), and take along what their label missed. So is
    everything that other frames see through (`remnant_ratio`). What is left is the static world.

    Args:
        frames: all with boxes or all without.
        labels: uint8 [P] for each frame (0 unlabelled), from `lift_labels` and a vote.
        spec: grid in which the scene is to be fused: its cells and how far it reaches.

    Raises:
        ConfigurationError: no frames, labels that do not fit them, or boxes in some frames only.
    """
    settings = settings or AccumulateSettings()
    _require(frames, labels)
    origin, cell = frames[0].T_world_base[:3, 3].copy(), float(spec.cell.min())
    corners = np.abs([spec.minimum_m, spec.maximum_m]).max(axis=0)
    reach = float(np.hypot(*corners[:2])) + 1.0
    evidence = Evidence(_lattice(frames, origin, spec, reach, cell))
    unboxed: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    members: dict[int, list[tuple[NDArray[np.float32], int]]] = {}
    owners: dict[int, int] = {}
    for frame, own in zip(frames, labels):
        points = _in_scene(frame, origin)
        here = frame.T_world_base[:3, 3] - origin
        near = np.hypot(*(points[:, :2] - here[:2].astype(np.float32)).T) < 1.5 * reach
        points, own = points[near], own[near]
        evidence.add(points, se3.apply(_base_in_scene(frame, origin), frame.sensor_m), frame.point_sensor[near], reach)
        boxed = np.full(len(points), -1, np.int32)
        for row, box in enumerate(frame.boxes or ()):
            local, inside = _in_box(points, box, origin, settings.box_margin_m)
            boxed[inside] = row
            members.setdefault(box.track_id, []).append((local, frame.stamp_ns))
            owners[box.track_id] = box.label
        if frame.boxes is not None:
            own = np.where(_THINGS[own], np.uint8(0), own)
        unboxed.append((points[boxed < 0], own[boxed < 0]))
    stands = _standing(unboxed, [frame.stamp_ns for frame in frames], evidence, settings.standing_s)
    things = [_THINGS[own] & ~stood for (_, own), stood in zip(unboxed, stands)]
    static = [(points[~thing], own[~thing]) for (points, own), thing in zip(unboxed, things)]
    ground, raised = _ground(*_joined(static), evidence, cell, settings)
    loose, solid = [], []
    for (points, own), thing in zip(unboxed, things):
        kinds, moves = _moving(points, own, thing, ground, evidence, settings.remnant_ratio)
        loose.append(thin(points[moves], kinds[moves], cell / 2))
        rest = ~moves & ~_GROUND[own]
        solid.append((points[rest], own[rest]))
    solids = _solids(thin(*_joined(solid), cell / 2) + raised, ground, evidence, cell, settings.remnant_ratio)
    scene_frames = tuple(
        SceneFrame(frame.stamp_ns, _base_in_scene(frame, origin), _in_scene(frame, origin),
                   se3.apply(_base_in_scene(frame, origin), frame.sensor_m), frame.point_sensor,
                   tuple(frame.boxes or ()), seen)
        for frame, seen in zip(frames, loose))
    tracks = {track: TrackCloud(owners[track], np.concatenate([part for part, _ in parts]),
                                np.concatenate([np.full(len(part), stamp, np.int64) for part, stamp in parts]))
              for track, parts in members.items()}
    return Scene(origin, cell, ground, solids, evidence, tracks, scene_frames, settings)


def _ground(points_m: NDArray[np.float32], labels: NDArray[np.uint8], evidence: Evidence, cell_m: float,
            settings: AccumulateSettings) -> tuple[GroundMap, Thinned]:
    """The ground, and what is labelled as ground above it: matter, but nobody knows of which class."""
    level, plain = _GROUND[labels], labels == 0
    flat = thin(points_m[level], labels[level], cell_m / _GROUND_COLUMNS)
    others = thin(points_m[plain], labels[plain], cell_m / 2)
    # kerbs are too low for this test: rays to the pavement behind cross the cells of their edges
    feet = _crossed(flat.points_m, evidence, settings.remnant_ratio) & (flat.labels != Sidewalk.CURB)
    lies = on_ground(flat.points_m, feet)
    others = others[~_crossed(others.points_m, evidence, settings.remnant_ratio)]
    ground = ground_map(flat.points_m[lies], flat.returns[lies], flat.labels[lies], others.points_m,
                        column_m=cell_m / _GROUND_COLUMNS, gap_m=settings.ground_gap_m,
                        step_m=settings.ground_step_m)
    odd = flat[~lies]
    return ground, Thinned(odd.points_m, odd.returns, np.zeros_like(odd.labels))


def _crossed(points_m: NDArray[np.float32], evidence: Evidence, ratio: float) -> NDArray[np.bool_]:
    """Which points [N, 3] lie where more than `ratio` times as many frames saw through as ended there; bool [N]."""
    hits, passes = evidence.at(points_m)
    return np.asarray(passes > ratio * hits)


def _rises(points_m: NDArray[np.float32], ground: GroundMap) -> NDArray[np.bool_]:
    """Which points [N, 3] do not lie on the ground; rays that graze it cross its cells, which says nothing of it."""
    return np.asarray(~(np.abs(points_m[:, 2] - ground.height_at(points_m[:, :2])) < SAME_LEVEL_M))


def _moving(points_m: NDArray[np.float32], labels: NDArray[np.uint8], thing: NDArray[np.bool_], ground: GroundMap,
            evidence: Evidence, remnant_ratio: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Classes of a scan's returns outside of boxes, uint8 [N], and which of them move, bool [N].

    Move do returns of `thing` [N]; those beside them which their label has missed, and which take their class; and
    what other frames see through, which has no class: what is static does not move. A return without a class that no
    other frame confirms counts as moving, because things are what 2D labels miss most where it matters.
    """
    kinds, moves = labels.copy(), thing.copy()
    rest = np.flatnonzero(~thing & ~_GROUND[labels])
    rest = rest[_rises(points_m[rest], ground)]
    hits, passes = evidence.at(points_m[rest])
    plain = labels[rest] == 0
    gone = (passes > remnant_ratio * hits) | (plain & (hits <= 1))
    kinds[rest[gone]] = 0
    moves[rest[gone]] = True
    things = np.flatnonzero(thing)
    if len(things) and len(rest):
        distance, nearest = cKDTree(points_m[things]).query(points_m[rest], distance_upper_bound=_BESIDE_THING_M)
        crossed = passes > np.where(plain, 0.0, 0.5 * remnant_ratio * hits)
        own = np.isfinite(distance) & (crossed | (plain & (distance < _ON_THING_M)))
        kinds[rest[own]] = labels[things[nearest[own]]]
        moves[rest[own]] = True
    return kinds, moves


def _solids(cloud: Thinned, ground: GroundMap, evidence: Evidence, cell_m: float, remnant_ratio: float) -> Surfels:
    """What stands on the ground. Thinned points lie in other cells than their returns, and so have passed or not."""
    passed = _crossed(cloud.points_m, evidence, remnant_ratio)
    return surfels(cloud[_rises(cloud.points_m, ground) & ~passed], cell_m)


def _standing(clouds: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]], stamps_ns: Sequence[int],
              evidence: Evidence, standing_s: float) -> list[NDArray[np.bool_]]:
    """Which returns of each frame are of things and lie where something stood for a while."""
    counts = [len(part) for part, _ in clouds]
    points, labels = _joined(clouds)
    thing = np.flatnonzero(_THINGS[labels])
    stood = np.zeros(len(points), np.bool_)
    if len(thing):
        time_s = np.repeat((np.asarray(stamps_ns, np.int64) - stamps_ns[0]) * 1e-9, counts)[thing]
        _, place = np.unique(voxel_keys(points[thing], _PLACE_M)[1], return_inverse=True)
        first, last = np.full(place.max() + 1, np.inf), np.full(place.max() + 1, -np.inf)
        np.minimum.at(first, place, time_s)
        np.maximum.at(last, place, time_s)
        hits, passes = evidence.at(points[thing])
        stood[thing] = ((last - first)[place] >= standing_s) & (2 * passes <= hits)
    return np.split(stood, np.cumsum(counts)[:-1])


def _joined(parts: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]]
            ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    return np.concatenate([points for points, _ in parts]), np.concatenate([labels for _, labels in parts])


def _base_in_scene(frame: LabelFrame, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    return se3.make(frame.T_world_base[:3, :3], frame.T_world_base[:3, 3] - origin)


def _in_scene(frame: LabelFrame, origin: NDArray[np.float64]) -> NDArray[np.float32]:
    return se3.apply(_base_in_scene(frame, origin), frame.points_m).astype(np.float32)


def _in_box(points: NDArray[np.float32], box: WorldBox, origin: NDArray[np.float64], margin_m: float
            ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points in the frame of the box, float32 [K, 3], and which they are; the ground below it is left out."""
    T_box_scene = se3.invert(se3.make(box.T_world_object[:3, :3], box.T_world_object[:3, 3] - origin))
    radius = 0.5 * float(np.linalg.norm(box.size_m)) + margin_m
    middle = box.T_world_object[:3, 3] - origin
    close = rows_within(points, middle - radius, middle + radius)
    local = se3.apply(T_box_scene, points[close])
    high = 0.5 * box.size_m + margin_m
    low = -high + np.array([0.0, 0.0, margin_m + SAME_LEVEL_M])
    inside = ((local > low) & (local < high)).all(axis=1)
    return local[inside].astype(np.float32), close[inside]


def _lattice(frames: Sequence[LabelFrame], origin: NDArray[np.float64], spec: VoxelGridSpec, reach_m: float,
             cell_m: float) -> VoxelGridSpec:
    """Cells around the robot's way, on a lattice through the origin."""
    way = np.stack([frame.T_world_base[:3, 3] for frame in frames]) - origin
    low = way.min(axis=0) + (-reach_m, -reach_m, spec.minimum_m[2])
    high = way.max(axis=0) + (reach_m, reach_m, spec.maximum_m[2])
    low, high = np.floor(low / cell_m) * cell_m, np.ceil(high / cell_m) * cell_m
    return VoxelGridSpec(tuple(low.tolist()), tuple(high.tolist()), cell_m)


def _require(frames: Sequence[LabelFrame], labels: Sequence[NDArray[np.uint8]]) -> None:
    faults = [] if frames else ["a clip needs at least one frame"]
    if len(frames) != len(labels):
        faults.append(f"there are {len(frames)} frames and labels of {len(labels)}")
    faults += [f"frame {i} has {len(frame.points_m)} points and {len(own)} labels"
               for i, (frame, own) in enumerate(zip(frames, labels)) if len(frame.points_m) != len(own)]
    if len({frame.boxes is None for frame in frames}) > 1:
        faults.append("some frames have boxes and some have none")
    if faults:
        raise ConfigurationError(faults, where="accumulate")
