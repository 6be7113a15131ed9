"""Votes over the points of a whole clip against semantic flicker (WalkOCC, appendix D.3), which spare thin classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry.lens import jit
from occ_perception.taxonomy import SIDEWALK, Sidewalk

CLASSES = len(SIDEWALK)
THIN = frozenset({Sidewalk.CURB, Sidewalk.GUTTER, Sidewalk.OBSTACLE})
"""Classes that are narrower than the paper's voxel of 0.5 m; poles are obstacles."""
_GROUP = np.array([2 if label in SIDEWALK.things else 1 for label in range(CLASSES)], np.uint8)
"""1 the static world, 2 things: labels change within their group only. 0 unlabelled."""
_GROUP[0] = 0
_CHUNK = 200_000


@dataclass(frozen=True, kw_only=True)
class VoxelVote:
    """Settings of `voxel_vote`.

    Attributes:
        voxel_m: edge of the voxels of the vote (0.5 m in the paper).
        fine_voxel_m: edge of the voxels that decide within them, which `voxel_m` is a multiple of; None: the paper's
            vote, in which all points of a voxel take its winner.
        prior_votes: how many votes the surrounding voxel is worth in a fine one.

    Raises:
        ConfigurationError: sizes that do not fit; all faults listed.
    """

    voxel_m: float = 0.5
    fine_voxel_m: float | None = 0.1
    prior_votes: float = 3.0

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.voxel_m < math.inf:
            faults.append(f"voxel_m must be positive, got {self.voxel_m}")
        elif self.fine_voxel_m is not None and (self.fine_voxel_m <= 0 or not math.isclose(
                self.ratio * self.fine_voxel_m, self.voxel_m, rel_tol=1e-6)):
            faults.append(f"voxel_m must be a multiple of fine_voxel_m, got {self.voxel_m} and {self.fine_voxel_m}")
        if not 0 <= self.prior_votes < math.inf:
            faults.append(f"prior_votes must not be negative, got {self.prior_votes}")
        if faults:
            raise ConfigurationError(faults, where="VoxelVote")

    @property
    def ratio(self) -> int:
        """Fine voxels along the edge of a voxel."""
        fine = self.fine_voxel_m
        return 1 if fine is None else max(1, round(self.voxel_m / fine)) if fine > 0 else 1


@dataclass(frozen=True, kw_only=True)
class KnnVote:
    """Settings of `knn_vote`.

    Attributes:
        neighbours: k; the point itself is one of them.
        ratio: share of its neighbours a class needs to replace a label (0.6 in the paper).
        radius_m: neighbours that lie farther away have no vote.
        thin_radius_m: the same for points whose own class is thin.

    Raises:
        ConfigurationError: all faults listed.
    """

    neighbours: int = 10
    ratio: float = 0.6
    radius_m: float = 0.5
    thin_radius_m: float = 0.1

    def __post_init__(self) -> None:
        faults = []
        if self.neighbours < 1:
            faults.append(f"neighbours must be at least 1, got {self.neighbours}")
        if not 0 < self.ratio <= 1:
            faults.append(f"ratio must be in (0, 1], got {self.ratio}")
        if not 0 < self.thin_radius_m <= self.radius_m < math.inf:
            faults.append(f"0 < thin_radius_m <= radius_m must hold, got {self.thin_radius_m} and {self.radius_m}")
        if faults:
            raise ConfigurationError(faults, where="KnnVote")


@jit
def _blocks(cells: Any, ratio: int, keys: Any) -> None:
    """Key of the block of `ratio` cells that each cell lies in; 21 bits per axis."""
    for i in range(len(cells)):
        key = 0
        for a in range(3):
            key = key << 21 | (math.floor(cells[i, a] / ratio) + (1 << 20))
        keys[i] = key


def voxel_keys(points_m: NDArray[np.floating[Any]], voxel_m: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells int64 [N, 3] of points [N, 3] on a lattice through the origin, and one number for each, int64 [N].

    Raises:
        ShapeError: a point lies more than a million voxels from the origin, or is not finite.
    """
    scaled = np.floor(points_m / voxel_m)
    if not (np.abs(scaled) < 1 << 20).all():
        raise ShapeError("points must be finite and within a million voxels of the origin", where="voxel lattice",
                         fix="Take positions relative to the clip's first pose")
    cells, keys = scaled.astype(np.int64), np.empty(len(points_m), np.int64)
    _blocks(cells, 1, keys)
    return cells, keys


@jit
def _shares(own: Any, labels: Any, scan: Any, votes: Any) -> None:
    """Adds the votes of a fine voxel, whose points come scan by scan: every scan has one, shared among its points."""
    first = 0
    while first < len(own):
        last, labelled = first, 0
        while last < len(own) and scan[own[last]] == scan[own[first]]:
            labelled += 1 if labels[own[last]] > 0 else 0
            last += 1
        for k in range(first, last):
            if labels[own[k]] > 0:
                votes[labels[own[k]]] += 1.0 / labelled
        first = last


@jit
def _winners(order: Any, starts: Any, block: Any, blocks: int, labels: Any, scan: Any, group: Any, prior: float,
             voted: Any) -> None:
    around, total = np.zeros((blocks, len(group)), np.float32), np.zeros((blocks, 3), np.float32)
    votes = np.zeros((len(starts), len(group)), np.float32)
    n = len(starts)
    for s in range(n):
        _shares(order[starts[s]: starts[s + 1] if s + 1 < n else len(order)], labels, scan, votes[s])
        for label in range(1, len(group)):
            around[block[s], label] += votes[s, label]
            total[block[s], group[label]] += votes[s, label]
    winner, most = np.zeros(3, np.uint8), np.zeros(3)
    for s in range(n):
        winner[:], most[:] = 0, 0.0
        still, things = 0.0, 0.0
        for label in range(1, len(group)):
            g = group[label]
            if around[block[s], label] == 0:
                continue
            still += votes[s, label] if g == 1 else 0.0
            things += votes[s, label] if g == 2 else 0.0
            score = votes[s, label] + prior * around[block[s], label] / total[block[s], g]
            if score >= most[g]:  # ties to the higher id, as in datasets/shrink.py
                most[g], winner[g] = score, label
        for i in order[starts[s]: starts[s + 1] if s + 1 < n else len(order)]:
            if labels[i] > 0:
                voted[i] = winner[group[labels[i]]]
            elif things == 0.0 and still > 0.0:
                voted[i] = winner[1]


def voxel_vote(points_m: NDArray[np.floating[Any]], labels: NDArray[np.uint8],
               settings: VoxelVote | None = None, *, scan: NDArray[np.int32] | None = None) -> NDArray[np.uint8]:
    """Labels after a majority vote in voxels, uint8 [N].

    A plain vote in voxels of 0.5 m erases a kerb of 0.15 m and moves every border by up to a quarter of a metre.
    Here the vote of a voxel is only the prior of the fine voxels in it: in each of those the class c with the most
    `n_c + prior_votes * share_c` wins, n_c being its votes there and share_c its share of the whole voxel (the mode of
    a Dirichlet posterior). With the defaults a lonely wrong vote in a unanimous voxel loses, a narrow strip that is a
    fifth of its voxel keeps its own fine voxels with two votes each, and with many the prior does not matter.
    Unlabelled points have no vote; they take the label of the fine voxel they lie in where no thing shares it.
    Things and the static world vote apart from each other: a label never leaves its group.

    Args:
        points_m: [N, 3] of all frames, in one frame that stands still.
        labels: uint8 [N], 0 unlabelled.
        scan: int32 [N], not falling: the scan of each point. A scan then has one vote in a fine voxel, which its
            points share, because they are wrong together. Without it every point has one.

    Raises:
        ShapeError: arrays that do not fit, or points too far from the origin.
    """
    _require(points_m, labels, "voxel_vote")
    settings = settings or VoxelVote()
    cells, keys = voxel_keys(points_m, settings.fine_voxel_m or settings.voxel_m)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    blocks = np.empty(len(starts), np.int64)
    _blocks(cells[order[starts]], settings.ratio, blocks)
    known, block = np.unique(blocks, return_inverse=True)
    voted = labels.copy()
    prior = settings.prior_votes if settings.fine_voxel_m is not None else 0.0
    scan = np.arange(len(labels), dtype=np.int32) if scan is None else scan
    _winners(order, starts, block, len(known), labels, scan, _GROUP, prior, voted)
    return voted


@jit
def _majority(near: Any, distance: Any, labels: Any, thin: Any, radius: float, thin_radius: float, ratio: float,
              voted: Any) -> None:
    votes = np.zeros(len(thin), np.int64)
    for i in range(len(labels)):
        votes[:] = 0
        reach = thin_radius if thin[labels[i]] else radius
        count = 0
        for k in range(near.shape[1]):
            if distance[i, k] <= reach:
                votes[near[i, k]] += 1
                count += 1
        winner = votes.argmax()
        if votes[winner] > ratio * count:
            voted[i] = winner


def knn_vote(points_m: NDArray[np.floating[Any]], labels: NDArray[np.uint8],
             settings: KnnVote | None = None) -> NDArray[np.uint8]:
    """Labels after each point asked its nearest neighbours, uint8 [N]; unlabelled points stay so.

    A label is replaced where more than `ratio` of the neighbours agree on another. Points of thin classes ask only
    those within `thin_radius_m`: farther ones lie beside a kerb, not on it. Things and the static world vote apart.

    Args and errors as in `voxel_vote`.
    """
    _require(points_m, labels, "knn_vote")
    settings = settings or KnnVote()
    thin = np.isin(np.arange(CLASSES), sorted(THIN))
    voted = labels.copy()
    for group in (1, 2):
        own = np.flatnonzero(_GROUP[labels] == group)
        if not len(own):
            continue
        tree = cKDTree(points_m[own])
        k = min(settings.neighbours, len(own))
        for first in range(0, len(own), _CHUNK):
            chunk = own[first: first + _CHUNK]
            distance, near = tree.query(points_m[chunk], k=np.arange(1, k + 1))
            after = labels[chunk]
            _majority(labels[own][near], distance, labels[chunk], thin, settings.radius_m, settings.thin_radius_m,
                      settings.ratio, after)
            voted[chunk] = after
    return voted


def _require(points_m: NDArray[np.floating[Any]], labels: NDArray[np.uint8], where: str) -> None:
    if points_m.ndim != 2 or points_m.shape[1] != 3:
        raise ShapeError(f"points must be [N, 3], got {points_m.shape}", where=where)
    if labels.dtype != np.uint8 or labels.shape != (len(points_m),):
        raise ShapeError(f"labels must be uint8 [{len(points_m)}], got {labels.dtype} {labels.shape}", where=where)
    if labels.max(initial=0) >= CLASSES:
        raise ShapeError(f"labels must be 0..{CLASSES - 1}, go up to {labels.max()}", where=where)
