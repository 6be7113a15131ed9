"""A segmenter for tests of all that follows it: the truth of a simulation with the errors real segmenters make.

Borders are shifted and eroded, small things are missed, regions and things are taken for what looks like them; some of
it lasts for seconds, some flickers from frame to frame. How many pixels are wrong is a setting that is met.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from occ_perception.calibration import Rig
from occ_perception.datasets.sample import ImageSample
from occ_perception.errors import ConfigurationError, DatasetError, ShapeError
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.prompts import require_size
from occ_perception.taxonomy import FREE, OCCLUSION, Sidewalk

Truth = Callable[[str, int, str], NDArray[np.uint8]]
"""True classes, uint8 [H, W], of (scene, stamp_ns, camera)."""
Classes = NDArray[np.uint8]

LOOK_ALIKES: dict[int, dict[int, float]] = {
    Sidewalk.ROAD: {Sidewalk.SIDEWALK: 0.4, Sidewalk.CROSSWALK: 0.2, Sidewalk.GUTTER: 0.15, FREE: 0.25},
    Sidewalk.SIDEWALK: {Sidewalk.ROAD: 0.5, Sidewalk.CURB: 0.15, Sidewalk.GRASS: 0.15, FREE: 0.2},
    Sidewalk.CROSSWALK: {Sidewalk.ROAD: 0.8, Sidewalk.SIDEWALK: 0.2},
    Sidewalk.GRASS: {Sidewalk.SIDEWALK: 0.3, Sidewalk.TREES: 0.4, FREE: 0.3},
    Sidewalk.WALL: {Sidewalk.OBSTACLE: 0.3, Sidewalk.TREES: 0.2, FREE: 0.5},
    Sidewalk.TREES: {Sidewalk.GRASS: 0.4, Sidewalk.WALL: 0.3, FREE: 0.3},
    Sidewalk.VEHICLE: {Sidewalk.OBSTACLE: 0.4, Sidewalk.WALL: 0.3, FREE: 0.3},
    Sidewalk.CYCLIST: {Sidewalk.PERSON: 0.7, Sidewalk.OBSTACLE: 0.2, FREE: 0.1},
    Sidewalk.ANIMAL: {Sidewalk.OBSTACLE: 0.4, Sidewalk.PERSON: 0.2, FREE: 0.4},
    Sidewalk.OBSTACLE: {Sidewalk.WALL: 0.4, Sidewalk.PERSON: 0.1, Sidewalk.TREES: 0.2, FREE: 0.3},
    Sidewalk.PERSON: {Sidewalk.CYCLIST: 0.5, Sidewalk.OBSTACLE: 0.3, FREE: 0.2},
    Sidewalk.CURB: {Sidewalk.SIDEWALK: 0.5, Sidewalk.ROAD: 0.2, Sidewalk.GUTTER: 0.2, FREE: 0.1},
    Sidewalk.GUTTER: {Sidewalk.ROAD: 0.6, Sidewalk.CURB: 0.4},
}
"""For which class a class is taken, with what share; 0 is not found at all. Assumed, after the confusions that WalkOCC
E.3 names: adjacent ground classes, the gutter missed for the road, bare ground that is grass."""

_CELLS = 17
"""Regions of surfaces: cells of 1/17 of the image height (32 px of 544)."""
_SMALL = 2e-3
"""A thing below this share of the image is small (32 x 32 px of 544 x 960) and may be missed."""
_COARSE = 4
"""Things are found in an image so many times smaller."""
_CLASSES = OCCLUSION + 1
_COUNTABLE = (Sidewalk.VEHICLE, Sidewalk.CYCLIST, Sidewalk.ANIMAL, Sidewalk.PERSON, Sidewalk.OBSTACLE)


@dataclass(frozen=True, kw_only=True)
class SimulatedErrors:
    """How wrong a simulated segmenter is.

    Attributes:
        error_rate: share of the pixels of classes 1..13 whose class is wrong; met to 0.01 where there are enough.
        border_share: of those, at most so many are wrong because borders moved.
        border_px: typical shift of borders at an error rate of 0.1 in an image of 544 rows, pixels; in proportion to
            the rate.
        missed: share of the small things that are missed at an error rate of 0.1.
        flicker: 0 where wrong regions last `lasting_s`, 1 where every frame has its own.
        lasting_s: how long the slow part of the errors stays at its place in the image, seconds.
        seed: errors of the same scene, stamp, camera and seed are the same.
    """

    error_rate: float = 0.1
    border_share: float = 0.4
    border_px: float = 2.0
    missed: float = 0.3
    flicker: float = 0.5
    lasting_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [f"{name} must be in 0..1, got {getattr(self, name)}"
                  for name in ("error_rate", "border_share", "missed", "flicker") if not 0 <= getattr(self, name) <= 1]
        if self.border_px < 0:
            faults.append(f"border_px must not be negative, got {self.border_px}")
        if self.lasting_s <= 0:
            faults.append(f"lasting_s must be positive, got {self.lasting_s}")
        if faults:
            raise ConfigurationError(faults, where="simulated segmenter")


def truth_of(samples: Iterable[ImageSample]) -> Truth:
    """The true classes of these samples by scene, stamp and camera; all are kept in memory.

    The function raises DatasetError for a frame that is not among them.
    """
    kept = {(sample.scene, sample.stamp_ns, camera): classes
            for sample in samples for camera, classes in sample.semantics.items()}

    def truth(scene: str, stamp_ns: int, camera: str) -> Classes:
        try:
            return kept[scene, stamp_ns, camera]
        except KeyError:
            raise DatasetError(f"has no true classes of camera {camera} at {stamp_ns} ns",
                               where=f"scene {scene}", fix="Give the samples this clip was made of") from None

    return truth


class SimulatedSegmenter:
    """A `FrameSegmenter` that looks the true classes of a frame up and makes errors in them."""

    def __init__(self, truth: Truth, errors: SimulatedErrors | None = None) -> None:
        self.truth, self.errors = truth, errors or SimulatedErrors()

    @property
    def name(self) -> str:
        """With error rate and seed."""
        return f"simulated, error rate {self.errors.error_rate:g}, seed {self.errors.seed}"

    def segment_frame(self, scene: str, frame: LabelFrame, rig: Rig) -> dict[str, Classes]:
        """As of `FrameSegmenter`.

        Raises:
            DatasetError: there is no truth of this frame.
            ShapeError: a truth is not of its camera's size.
        """
        found = {}
        for camera in frame.images:
            truth = self.truth(scene, frame.stamp_ns, camera)
            require_size(truth, rig.camera(camera))
            found[camera] = with_errors(truth, self.errors, f"{scene}/{camera}", frame.stamp_ns)
        return found


def with_errors(truth: Classes, errors: SimulatedErrors, stream: str, stamp_ns: int) -> Classes:
    """The classes as a segmenter with such errors would find them, uint8 [H, W]; occlusion stays as it is.

    Args:
        truth: uint8 [H, W], 0 background, 1..13, 14 occlusion.
        stream: scene and camera; what lasts is the same for frames of one stream that are close in time.

    Raises:
        ShapeError: not uint8 [H, W] of those classes.
    """
    if truth.dtype != np.uint8 or truth.ndim != 2 or truth.max(initial=0) > OCCLUSION:
        raise ShapeError(f"must be uint8 [H, W] of classes 0..{OCCLUSION}, got {truth.dtype} {truth.shape} up to "
                         f"{truth.max(initial=0)}", where="truth of the simulated segmenter")
    labelled = (truth != FREE) & (truth != OCCLUSION)
    wanted = errors.error_rate * float(np.count_nonzero(labelled))
    if wanted < 1.0:
        return truth.copy()
    key = [errors.seed, zlib.crc32(stream.encode())]
    noise = _Noise(np.random.default_rng([*key, int(stamp_ns // (errors.lasting_s * 1e9)), 1]),
                   np.random.default_rng([*key, stamp_ns, 2]), errors.flicker)
    found = _moved_borders(truth, labelled, errors, wanted, noise)
    found = _confused_regions(found, truth, labelled, wanted, errors, noise)
    return np.where(truth == OCCLUSION, truth, found)


@dataclass(frozen=True)
class _Noise:
    """Random numbers of which a part lasts and a part is new in every frame."""

    lasting: np.random.Generator
    fleeting: np.random.Generator
    flicker: float

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Standard normal, float32."""
        slow, fast = (rng.standard_normal(shape, np.float32) for rng in (self.lasting, self.fleeting))
        return np.asarray(np.sqrt(1 - self.flicker) * slow + np.sqrt(self.flicker) * fast, np.float32)

    def uniform(self, *shape: int) -> NDArray[np.float32]:
        """Uniform in 0..1, float32."""
        return np.asarray(ndtr(self.normal(*shape)))


def _moved(image: NDArray[Any], shift_px: NDArray[np.float32]) -> NDArray[Any]:
    """The image read at shifted places; `shift_px` float32 [H, W, 2] as x, y."""
    u, v = cv2.split(shift_px + _places(*image.shape))
    return np.asarray(cv2.remap(image, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> NDArray[np.float32]:
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1)


def _waves(height: int, width: int, noise: _Noise) -> NDArray[np.float32]:
    """Smooth random shifts of about unit size, float32 [H, W, 2], that change over half a cell."""
    step = max(height // (2 * _CELLS), 2)
    coarse = noise.normal(height // step + 2, width // step + 2, 2)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def _moved_borders(truth: Classes, labelled: NDArray[np.bool_], errors: SimulatedErrors, wanted: float,
                   noise: _Noise) -> Classes:
    """The truth read at places that are off by a few pixels, less where that alone makes too many errors."""
    height, width = truth.shape
    size_px = errors.border_px * height / 544 * errors.error_rate / 0.1
    waves = _waves(height, width, noise)
    for _ in range(4):
        found = _moved(truth, size_px * waves)
        found = np.where(found == OCCLUSION, truth, found)  # the rim of the lens is known and never spills over
        wrong = int(np.count_nonzero((found != truth) & labelled))  # a NumPy 2 integer would make the shifts float64
        if wrong <= errors.border_share * wanted:
            return found
        size_px *= 0.9 * errors.border_share * wanted / wrong
    return truth


def _confused_regions(found: Classes, truth: Classes, labelled: NDArray[np.bool_], wanted: float,
                      errors: SimulatedErrors, noise: _Noise) -> Classes:
    """Small things missed and whole regions given to look-alikes until `wanted` labelled pixels are wrong."""
    regions, count = _regions(found, noise)
    right = labelled & (found == truth)
    gains = np.bincount(np.where(right, regions, count).ravel(), minlength=count)[:count]
    label_of = np.tile(np.arange(_CLASSES, dtype=np.uint8), count // _CLASSES)
    order, missing, choice = noise.normal(count), noise.uniform(count), noise.uniform(count)
    small = np.isin(label_of, _COUNTABLE) & (gains <= _SMALL * truth.size)
    missed = small & (missing < errors.missed * errors.error_rate / 0.1)
    order[missed] -= 100.0  # these come first
    budget = wanted - np.count_nonzero((found != truth) & labelled)
    becomes = label_of.copy()
    candidates = np.flatnonzero(gains)
    for region in candidates[np.argsort(order[candidates])]:
        if gains[region] <= budget:
            budget -= gains[region]
            becomes[region] = FREE if missed[region] else _look_alike(int(label_of[region]), choice[region])
    return becomes[regions]


def _look_alike(label: int, at: float) -> int:
    """The class it is taken for, where a number `at` in 0..1 falls on the shares."""
    choices = LOOK_ALIKES[label]
    row = int(np.searchsorted(np.cumsum(list(choices.values())), at))
    return int(list(choices)[min(row, len(choices) - 1)])


def _regions(found: Classes, noise: _Noise) -> tuple[NDArray[np.int32], int]:
    """Number of the region of each pixel, int32 [H, W], and how many numbers there are.

    A region is the pixels of one class in one cell of a grid with wavy borders, its number cell * classes + class; a
    thing belongs to the cell of its centre as a whole, so that its errors last while it stays there.
    """
    height, width = found.shape
    side = max(height // _CELLS, 2)
    rows, columns = -(-height // side), -(-width // side)
    grid = (np.arange(height)[:, None] // side * columns + np.arange(width) // side).astype(np.uint16)
    cells = _moved(grid, side / 3 * _waves(height, width, noise))
    cells = _cells_of_things(found, grid, cells)
    return cells.astype(np.int32) * _CLASSES + found, rows * columns * _CLASSES


def _cells_of_things(found: Classes, grid: NDArray[np.uint16], cells: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """`cells` with the cell of the centre of every thing at all its pixels, uint16 [H, W]."""
    height, width = found.shape
    coarse = np.ascontiguousarray(found[_COARSE // 2::_COARSE, _COARSE // 2::_COARSE])
    thing, centre = np.zeros_like(coarse), np.zeros(coarse.shape, np.uint16)
    for label in _COUNTABLE:
        own = coarse == label
        if own.any():
            _, parts, _, at = cv2.connectedComponentsWithStats(own.view(np.uint8), connectivity=4)
            u, v = (at * _COARSE).astype(int).clip(0, (width - 1, height - 1)).T
            thing[own], centre[own] = label, grid[v, u][parts[own]]
    things = cv2.resize(thing, (width, height), interpolation=cv2.INTER_NEAREST)
    centres = np.asarray(cv2.resize(centre, (width, height), interpolation=cv2.INTER_NEAREST), np.uint16)
    return np.where((things == found) & (things > 0), centres, cells)
