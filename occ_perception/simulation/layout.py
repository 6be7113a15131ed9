"""The plan of a street (widths, crossings, driveways, district) and the ground that follows from it.

Street coordinates: s runs along the street, d to the left of its centre line. `e1` is the distance beyond the kerb
of the street, `e2` beyond that of the nearest side street; a block of houses is where both are positive, and
q = min(e1, e2) is the distance inwards from its kerb (negative on the carriageway).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.simulation.ground import Ground
from occ_perception.simulation.scene import District
from occ_perception.simulation.solids import Array, Texture
from occ_perception.taxonomy import Sidewalk

GUTTER_M, KERB_M, KERB_FACE_M = 0.35, 0.15, 0.02
GUTTER_DEPTH_M, RAMP_M, FLARE_M = 0.03, 1.2, 0.4
DROPPED_KERB_M = 0.02
CROSSWALK_M, STRIPE_M = 3.0, 0.5
KERB_COLOURS = ((0.74, 0.73, 0.7), (0.6, 0.6, 0.62), (0.42, 0.42, 0.44), (0.8, 0.68, 0.2), (0.66, 0.24, 0.2))
GUTTER_COLOURS = ((0.52, 0.52, 0.5), (0.6, 0.59, 0.56), (0.4, 0.4, 0.41), (0.46, 0.44, 0.4))


@dataclass(frozen=True)
class SideStreet:
    """A street that crosses at `s_m`, `half_width_m` from its centre to its kerbs."""

    s_m: float
    half_width_m: float


@dataclass(frozen=True)
class Driveway:
    """A drive from the road into the lots of one side (`side` +1 left, -1 right), centred at `s_m`."""

    side: int
    s_m: float
    half_width_m: float


@dataclass(frozen=True)
class Street:
    """The plan of a street.

    Attributes:
        district: decides materials and what stands on it.
        start_m, end_m: extent along s.
        half_width_m: centre line to kerb.
        kerb_height_m: gutter's bottom to kerb's top.
        verge_m: strip between kerb and walk, grass or paving (`verge_is_grass`).
        walk_m: width of the walk itself.
        setback_m: from the walk to the buildings.
        lot_is_grass: front gardens instead of paving.
        side_streets, mid_crossings_m, driveways: where the kerb is interrupted or lowered.
        bend: (amplitude m, wavelength m, phase) of the street's centre line.
        grade: rise per metre along s.
        tint: RGB offsets of road and paving, so that materials differ between worlds.
        kerb_colour, gutter_colour: RGB; concrete, granite or, rarely, paint.
    """

    district: District
    start_m: float
    end_m: float
    half_width_m: float
    kerb_height_m: float
    verge_m: float
    verge_is_grass: bool
    walk_m: float
    setback_m: float
    lot_is_grass: bool
    side_streets: tuple[SideStreet, ...]
    mid_crossings_m: tuple[float, ...]
    driveways: tuple[Driveway, ...]
    bend: tuple[float, float, float]
    grade: float
    tint: tuple[float, float]
    kerb_colour: tuple[float, float, float]
    gutter_colour: tuple[float, float, float]

    @property
    def walk_inner_m(self) -> float:
        """Distance from the kerb face to the kerb side of the walk."""
        return KERB_M + self.verge_m

    @property
    def walk_outer_m(self) -> float:
        """Distance from the kerb face to the house side of the walk."""
        return KERB_M + self.verge_m + self.walk_m

    @property
    def path_m(self) -> float:
        """Distance from the kerb face to the walk's centre line."""
        return KERB_M + self.verge_m + 0.5 * self.walk_m

    @property
    def building_m(self) -> float:
        """Distance from the kerb face to the fronts of the buildings."""
        return self.walk_outer_m + self.setback_m

    @property
    def crosswalk_m(self) -> tuple[float, float]:
        """Band, in distance from a kerb, over which crosswalks of the crossing street run."""
        low = max(FLARE_M + 0.2, self.path_m - 0.5 * CROSSWALK_M)
        return low, low + CROSSWALK_M

    @property
    def main_crosswalks_m(self) -> tuple[float, ...]:
        """Where crosswalks lead over this street: centres along s."""
        beside = 0.5 * sum(self.crosswalk_m)
        at_corners = [street.s_m + sign * (street.half_width_m + beside)
                      for street in self.side_streets for sign in (-1, 1)]
        return tuple(sorted([*at_corners, *self.mid_crossings_m]))

    def e1(self, d_m: Array) -> Array:
        """Distance beyond this street's kerb, by |d|."""
        return np.asarray(np.abs(d_m) - self.half_width_m)

    def e2(self, s_m: Array) -> Array:
        """Distance beyond the kerb of the nearest side street (100 where there is none)."""
        distance = np.full(np.shape(s_m), 100.0)
        for street in self.side_streets:
            distance = np.minimum(distance, np.abs(s_m - street.s_m) - street.half_width_m)
        return distance

    def is_free_of_crossings(self, s_m: float, margin_m: float = 0.0) -> bool:
        """Whether s is away from side streets and crosswalks by more than the margin."""
        beside = self.crosswalk_m[1] + margin_m
        return bool(self.e2(np.array(s_m)) > beside) and all(
            abs(s_m - m) > 0.5 * CROSSWALK_M + margin_m for m in self.mid_crossings_m)


def plan_street(rng: np.random.Generator, district: District, length_m: float) -> Street:
    """Draw the plan of a street whose middle `length_m` metres (s from 0) are walked along."""
    start, end = -25.0, length_m + 35.0
    half_width = {"touristy": rng.uniform(3.6, 4.6), "residential": rng.uniform(3.6, 4.8),
                  "commercial": rng.uniform(4.5, 6.8)}[district]
    grass_verge = rng.random() < {"touristy": 0.1, "residential": 0.8, "commercial": 0.15}[district]
    verge = rng.uniform(0.7, 1.6) if grass_verge else rng.uniform(0.0, 0.5)
    walk = {"touristy": rng.uniform(2.6, 3.8), "residential": rng.uniform(1.7, 2.4),
            "commercial": rng.uniform(3.0, 4.2)}[district]
    setback = {"touristy": rng.uniform(0.0, 0.8), "residential": rng.uniform(2.0, 5.0),
               "commercial": rng.uniform(0.0, 2.0)}[district]
    side_streets: list[SideStreet] = []
    if rng.random() < 0.55:
        side_streets.append(SideStreet(float(rng.uniform(18.0, max(20.0, length_m - 10.0))),
                                       float(rng.uniform(2.8, 4.0))))
    mid_crossings: list[float] = []
    if rng.random() < (0.35 if side_streets else 0.5):
        s = float(rng.uniform(8.0, max(10.0, length_m - 5.0)))
        if all(abs(s - street.s_m) > street.half_width_m + 12.0 for street in side_streets):
            mid_crossings.append(s)
    driveways: list[Driveway] = []
    spacing = {"touristy": 60.0, "residential": 14.0, "commercial": 35.0}[district]
    for side in (-1, 1):
        s = start + float(rng.uniform(0.0, spacing))
        while s < end:
            clear = all(abs(s - street.s_m) > street.half_width_m + 9.0 for street in side_streets)
            if clear and all(abs(s - m) > 5.0 for m in mid_crossings):
                driveways.append(Driveway(side, s, float(rng.uniform(1.3, 2.2))))
            s += float(rng.uniform(0.6, 1.5)) * spacing
    return Street(
        district, start, end, half_width, float(rng.uniform(0.08, 0.15)), verge, grass_verge, walk, setback,
        district == "residential", tuple(side_streets), tuple(mid_crossings), tuple(driveways),
        (float(rng.uniform(-1.5, 1.5)), float(rng.uniform(70.0, 120.0)), float(rng.uniform(0.0, 6.28))),
        float(rng.uniform(-0.02, 0.02)), (float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.1, 0.1))),
        KERB_COLOURS[int(rng.choice(len(KERB_COLOURS), p=(0.45, 0.25, 0.2, 0.06, 0.04)))],
        GUTTER_COLOURS[int(rng.integers(len(GUTTER_COLOURS)))])


def build_ground(street: Street) -> Ground:
    """The ground of a street."""
    s, d = _lines_along(street), _lines_across(street)
    amplitude, wavelength, phase = street.bend
    bend = amplitude * (np.sin(2 * np.pi * s / wavelength + phase) - np.sin(phase))
    grid_s, grid_d = np.meshgrid(s, d, indexing="ij")
    z = _height(street, grid_s, grid_d)
    centre_s, centre_d = np.meshgrid(0.5 * (s[1:] + s[:-1]), 0.5 * (d[1:] + d[:-1]), indexing="ij")
    labels, colours, textures = _surface(street, centre_s, centre_d)
    return Ground(s, d, bend, z, labels, colours, textures)


def _kerb_lines(street: Street) -> list[float]:
    """Distances from a kerb face at which something changes."""
    low, high = street.crosswalk_m
    feature = [-3.0, -GUTTER_M, 0.0, KERB_FACE_M, KERB_M, KERB_M + RAMP_M / 2, KERB_M + RAMP_M, street.walk_inner_m,
               street.walk_outer_m, low - FLARE_M, low, high, high + FLARE_M, street.building_m]
    return [*feature, *np.arange(street.building_m + 2.0, 24.0, 4.0).tolist()]


def _merge(features: list[float], fill: Array) -> Array:
    """Feature lines, and those fill lines that keep 0.3 m from every one of them."""
    kept = np.unique(np.round(features, 4))
    kept = kept[np.concatenate([[True], np.diff(kept) > 0.004])]
    spare = fill[np.abs(fill[:, None] - kept).min(axis=1) > 0.3]
    return np.sort(np.concatenate([kept, spare]))


def _lines_across(street: Street) -> Array:
    features = [sign * (street.half_width_m + e) for e in _kerb_lines(street) for sign in (-1, 1)
                if e > -street.half_width_m + 0.3]
    if street.main_crosswalks_m:
        features += _stripes(street.half_width_m - GUTTER_M)
    return _merge(features, np.arange(-street.half_width_m, street.half_width_m, 1.5))


def _lines_along(street: Street) -> Array:
    features = [street.start_m, street.end_m]
    for side in street.side_streets:
        features += [side.s_m + sign * (side.half_width_m + e) for e in _kerb_lines(street) for sign in (-1, 1)
                     if e > -side.half_width_m + 0.3]
        features += [side.s_m + x for x in _stripes(side.half_width_m - GUTTER_M)]
    for centre, half in [*((m, 0.5 * CROSSWALK_M) for m in street.mid_crossings_m),
                         *((drive.s_m, drive.half_width_m) for drive in street.driveways)]:
        features += [centre + sign * (half + e) for e in (0.0, FLARE_M) for sign in (-1, 1)]
    inside = [x for x in features if street.start_m <= x <= street.end_m]
    return _merge(inside, np.arange(street.start_m, street.end_m, 2.0))


def _stripes(half_m: float) -> list[float]:
    count = int(2 * half_m / STRIPE_M)
    return [(k - 0.5 * count) * STRIPE_M for k in range(count + 1)]


def _trapezoid(x: Array, half: float, flare: float) -> Array:
    return np.asarray(np.clip((half + flare - np.abs(x)) / flare, 0.0, 1.0))


def _height(street: Street, s: Array, d: Array) -> Array:
    e1, e2 = street.e1(d), street.e2(s)
    q, m = np.minimum(e1, e2), np.maximum(e1, e2)
    low, high = street.crosswalk_m
    lowered = _trapezoid(m - 0.5 * (low + high), 0.5 * (high - low), FLARE_M)
    for centre in street.mid_crossings_m:
        lowered = np.maximum(lowered, _trapezoid(s - centre, 0.5 * CROSSWALK_M, FLARE_M))
    for drive in street.driveways:
        lowered = np.maximum(lowered, np.where(d * drive.side > 0,
                                               _trapezoid(s - drive.s_m, drive.half_width_m, FLARE_M), 0.0))
    top = street.kerb_height_m
    climb = np.clip((q - KERB_M) / RAMP_M, 0.0, 1.0)
    kerb = top - lowered * (1.0 - climb) * (top - DROPPED_KERB_M)
    face = np.clip(q / KERB_FACE_M, 0.0, 1.0)
    block = -GUTTER_DEPTH_M + face * kerb + 0.012 * np.clip(q - KERB_M, 0.0, 6.0)
    road = 0.02 * np.clip(-q - GUTTER_M, 0.0, 2.65)
    gutter = -GUTTER_DEPTH_M * np.clip(1.0 + q / GUTTER_M, 0.0, 1.0)
    return np.asarray(np.where(q > 0, block, np.where(q > -GUTTER_M, gutter, road)) + street.grade * s)


def _surface(street: Street, s: Array, d: Array
             ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Label, colour and texture of cells with the given centres."""
    e1, e2 = street.e1(d), street.e2(s)
    q, m = np.minimum(e1, e2), np.maximum(e1, e2)
    low, high = street.crosswalk_m
    on_drive = np.zeros(s.shape, bool)
    for drive in street.driveways:
        on_drive |= (np.abs(s - drive.s_m) < drive.half_width_m) & (d * drive.side > 0)

    carriage = q < -GUTTER_M
    across_side = carriage & (e1 > low) & (e1 < high) & (e2 < 0)
    across_main = carriage & (e2 > low) & (e2 < high) & (e1 < 0)
    for centre in street.mid_crossings_m:
        across_main |= carriage & (np.abs(s - centre) < 0.5 * CROSSWALK_M) & (e1 < 0)
    side_centre = np.zeros_like(s)
    for side in street.side_streets:
        side_centre = np.where(np.abs(s - side.s_m) < side.half_width_m, side.s_m, side_centre)
    # Stripes run with the traffic they stop; they are painted by whole cells between stripe lines.
    offset = np.where(across_side, s - side_centre, d)
    half = np.where(across_side, street.half_width_m, street.half_width_m)
    for side in street.side_streets:
        half = np.where(across_side & (side_centre == side.s_m), side.half_width_m, half)
    count = np.floor(2 * (half - GUTTER_M) / STRIPE_M)
    painted = (np.floor(offset / STRIPE_M + 0.5 * count) % 2 == 0)
    crosswalk = across_side | across_main

    paved_corner = m < high + 1.0
    verge = (q > KERB_M) & (q < street.walk_inner_m)
    beyond = q > street.walk_outer_m
    conditions = [
        crosswalk, carriage, q < 0, q < KERB_M,
        verge & on_drive, verge & paved_corner, verge,
        beyond & on_drive, beyond, np.ones_like(carriage)]
    labels = [
        Sidewalk.CROSSWALK, Sidewalk.ROAD, Sidewalk.GUTTER, Sidewalk.CURB,
        Sidewalk.ROAD, Sidewalk.SIDEWALK, Sidewalk.GRASS if street.verge_is_grass else Sidewalk.SIDEWALK,
        Sidewalk.ROAD, Sidewalk.GRASS if street.lot_is_grass else Sidewalk.SIDEWALK, Sidewalk.SIDEWALK]
    label = np.select(conditions, [np.full(s.shape, int(x), np.uint8) for x in labels])

    road_tint, paving_tint = street.tint
    warm = {"touristy": (0.62, 0.55, 0.47), "residential": (0.62, 0.61, 0.58), "commercial": (0.56, 0.57, 0.59)}
    paint = {
        Sidewalk.CROSSWALK: (0.3, 0.3, 0.31), Sidewalk.ROAD: (0.3, 0.3, 0.31), Sidewalk.GUTTER: street.gutter_colour,
        Sidewalk.CURB: street.kerb_colour, Sidewalk.SIDEWALK: warm[street.district], Sidewalk.GRASS: (0.3, 0.45, 0.16)}
    tints = {Sidewalk.ROAD: road_tint, Sidewalk.CROSSWALK: road_tint, Sidewalk.SIDEWALK: paving_tint}
    patterns = {
        Sidewalk.CROSSWALK: Texture.ASPHALT, Sidewalk.ROAD: Texture.ASPHALT, Sidewalk.GUTTER: Texture.STONE,
        Sidewalk.CURB: Texture.STONE, Sidewalk.GRASS: Texture.FOLIAGE, Sidewalk.SIDEWALK: Texture.SLABS}
    colours = np.zeros((256, 3), np.float32)
    textures = np.zeros(256, np.uint8)
    for kind, rgb in paint.items():
        colours[kind] = np.asarray(rgb) + tints.get(kind, 0.0)
        textures[kind] = patterns[kind]
    colour = colours[label]
    colour[crosswalk & painted] = (0.86, 0.86, 0.83)
    return label, colour, textures[label]
