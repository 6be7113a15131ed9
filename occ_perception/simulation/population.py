"""Who is in a street: parked vehicles, people who stand, sit and walk, riders, animals, traffic."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from occ_perception.simulation import actors
from occ_perception.simulation.actors import Shape
from occ_perception.simulation.crowd import Stop, Walkers, run_lane
from occ_perception.simulation.furnish import Site
from occ_perception.simulation.layout import GUTTER_M, KERB_M, SideStreet
from occ_perception.simulation.solids import Array

PARKED_INSET_M = 1.1
_WALKERS_PER_M = {"touristy": 0.15, "residential": 0.07, "commercial": 0.11}
_GROUPS_SPACING_M = {"touristy": 13.0, "residential": 26.0, "commercial": 17.0}
_PARKED = {"touristy": 0.5, "residential": 0.6, "commercial": 0.55}
_HEADWAY_S = {"touristy": 9.0, "residential": 10.0, "commercial": 5.0}


@dataclass(eq=False)
class Standing:
    """Shapes that stand still, with (s, d, heading relative to the street) of each."""

    shapes: list[Shape] = field(default_factory=list)
    at: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, shape: Shape, s_m: float, d_m: float, turn: float) -> None:
        """One more."""
        self.shapes.append(shape)
        self.at.append((s_m, d_m, turn))


def vehicle(rng: np.random.Generator, lit: bool) -> Shape:
    """A car, more rarely a van, rarely a truck."""
    u = rng.random()
    return actors.car(rng, lit) if u < 0.74 else actors.van(rng, lit) if u < 0.93 else actors.truck(rng, lit)


def park(rng: np.random.Generator, site: Site) -> Standing:
    """Vehicles parked along both kerbs, and a few in driveways."""
    street, parked = site.street, Standing()
    for side in (-1, 1):
        s = street.start_m + 4.0
        dense = _PARKED[street.district] * float(rng.uniform(0.7, 1.4))
        while s < street.end_m - 4.0:
            # No lorries: they would reach into the lane.
            shape = actors.car(rng, False) if rng.random() < 0.8 else actors.van(rng, False)
            half = 0.5 * shape.size_m[0]
            s += half
            drive_free = all(drive.side != side or abs(drive.s_m - s) > drive.half_width_m + half + 0.4
                             for drive in street.driveways)
            if street.is_free_of_crossings(s, half + 0.8) and drive_free and rng.random() < dense:
                inset = 0.5 * shape.size_m[1] + float(rng.uniform(0.1, 0.3))
                parked.add(shape, s, site.d(side, -inset),
                           float(rng.normal(0.0, 0.03)) + (np.pi if (side > 0) == (rng.random() < 0.9) else 0.0))
            s += half + float(rng.uniform(0.6, 1.6))
        for drive in street.driveways:
            if drive.side == side and street.setback_m > 3.0 and rng.random() < 0.4:
                shape = actors.car(rng, False)
                if street.setback_m + 2.0 > shape.size_m[0]:
                    parked.add(shape, drive.s_m, site.d(side, street.walk_outer_m + 0.3 + 0.5 * shape.size_m[0]),
                               side * np.pi / 2 * (1.0 if rng.random() < 0.5 else -1.0))
    for other in street.side_streets:
        _wait_and_park_beside(rng, site, other, parked)
    return parked


def _wait_and_park_beside(rng: np.random.Generator, site: Site, other: SideStreet, parked: Standing) -> None:
    """Vehicles that wait at the crosswalks of a side street (they keep to the right), and parked ones behind them."""
    street = site.street
    stop_line = street.crosswalk_m[1] + 0.7
    for side in (-1, 1):
        turn = -side * np.pi / 2
        beyond = stop_line
        while rng.random() < 0.55 and beyond < 16.0:
            shape = vehicle(rng, site.night)
            parked.add(shape, other.s_m - side * 0.5 * other.half_width_m, site.d(side, beyond + 0.5 * shape.size_m[0]),
                       turn + float(rng.normal(0, 0.02)))
            beyond += shape.size_m[0] + float(rng.uniform(1.0, 2.5))
        if rng.random() < 0.5:
            shape = actors.car(rng, False)
            kerb = other.half_width_m - 0.5 * shape.size_m[1] - 0.25
            behind = stop_line + 3.5 + float(rng.uniform(0.0, 4.0))
            parked.add(shape, other.s_m + side * kerb, site.d(side, behind), turn)


def stand(rng: np.random.Generator, site: Site) -> Standing:
    """People who stand in groups or alone, wait, sit in wheelchairs; dogs beside some of them."""
    street, people = site.street, Standing()
    for side in (-1, 1):
        spacing = _GROUPS_SPACING_M[street.district]
        for s in np.arange(street.start_m, street.end_m, spacing).tolist():
            centre_s = s + float(rng.uniform(0.0, spacing))
            on_house_side = rng.random() < 0.6
            edge = (street.walk_outer_m - float(rng.uniform(0.0, 0.6)) if on_house_side
                    else KERB_M + float(rng.uniform(0.35, 0.8)))
            count = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.35, 0.15, 0.1]))
            if street.e2(np.array(centre_s)) < 1.0:
                continue
            for k in range(count):
                angle = 2 * np.pi * k / count + float(rng.uniform(0, 0.8))
                r = 0.0 if count == 1 else 0.45 + 0.08 * count
                ps, pd = centre_s + 1.3 * r * np.cos(angle), site.d(side, edge) + 0.6 * r * np.sin(angle)
                if site.is_free(ps, pd, 0.25):
                    shape = actors.wheelchair(rng) if rng.random() < 0.04 else actors.person(rng)
                    people.add(shape, ps, pd, angle + np.pi + float(rng.normal(0, 0.3)))
                    site.taken.append((ps, pd, 0.25))
            if rng.random() < 0.13:
                ps, pd = centre_s + 1.0, site.d(side, edge)
                if site.is_free(ps, pd, 0.35):
                    people.add(actors.dog(rng), ps, pd, float(rng.uniform(-3.1, 3.1)))
                    site.taken.append((ps, pd, 0.35))
    return people


def draw_walkers(rng: np.random.Generator, site: Site, side: int, start_m: Array, robot_speed_mps: float,
                 duration_s: float) -> tuple[list[Shape], Walkers]:
    """People, dogs, scooters and wheelchairs that walk both ways, more of them on the robot's side."""
    street = site.street
    shapes: list[Shape] = []
    rows: list[tuple[float, float, float, float, float, float, float]] = []  # s, d, u_s, u_d, speed, low, high

    def add(shape: Shape, s: float, d: float, u: tuple[float, float], speed: float, band: tuple[float, float]) -> None:
        shapes.append(shape)
        rows.append((s, d, *u, speed, *band))

    first, last = -12.0, float(start_m[0]) + duration_s * (robot_speed_mps + 1.3) + 8.0
    rate = _WALKERS_PER_M[street.district] * float(rng.uniform(0.75, 1.3))
    for this_side in (side, -side):
        count = int(rng.poisson(rate * (last - first) * (1.0 if this_side == side else 0.45)))
        ends = sorted((site.d(this_side, KERB_M + 0.3), site.d(this_side, street.walk_outer_m - 0.15)))
        band = (ends[0], ends[1])
        for _ in range(count):
            forward = rng.random() < 0.5
            # Those who go the robot's way start near it, or it would not meet them.
            s = float(rng.uniform(first, last if not forward else 0.55 * last))
            if abs(s - start_m[0]) < 2.0:
                continue
            u = (1.0, 0.0) if forward else (-1.0, 0.0)
            d = float(rng.uniform(band[0] + 0.1, band[1] - 0.1))
            speed = float(np.clip(rng.normal(1.25, 0.2), 0.7, 1.7))
            kind = rng.random()
            if kind < 0.06:
                add(actors.scooter(rng), s, d, u, float(rng.uniform(1.8, 3.0)), band)
            elif kind < 0.1:
                add(actors.wheelchair(rng), s, d, u, float(rng.uniform(0.7, 1.2)), band)
            elif kind < 0.15:
                add(actors.cyclist(rng), s, d, u, float(rng.uniform(2.0, 3.2)), band)
            else:
                add(actors.person(rng), s, d, u, speed, band)
                if rng.random() < 0.25:
                    mate_d = float(np.clip(d + rng.choice([-0.7, 0.7]), *band))
                    add(actors.person(rng), s + 0.1, mate_d, u, speed, band)
                elif rng.random() < 0.12:
                    add(actors.dog(rng), s + u[0] * 0.8, float(np.clip(d + 0.5, *band)), u, speed, band)
    for s_crossing in street.main_crosswalks_m:
        for _ in range(int(rng.poisson({"touristy": 4.0, "residential": 1.0, "commercial": 4.0}[street.district]))):
            way = 1.0 if rng.random() < 0.5 else -1.0
            away = street.half_width_m + street.path_m + float(rng.uniform(0.0, 1.3 * duration_s))
            add(actors.person(rng), s_crossing + float(rng.uniform(-1.2, 1.2)), -way * away, (0.0, way),
                float(rng.uniform(1.0, 1.5)), (-1e3, 1e3))
    table = np.array(rows, float).reshape(-1, 7)
    radius = np.array([0.3 if shape.size_m[0] < 0.9 else 0.4 for shape in shapes])
    return shapes, Walkers(table[:, :2], table[:, 2:4], table[:, 4], radius, table[:, 5:7])


def draw_traffic(rng: np.random.Generator, site: Site, stops: list[Stop], duration_s: float, night: bool,
                 reach_m: float) -> list[tuple[Shape, Array, Array, int]]:
    """Vehicles and cyclists on the carriageway: shape, s [T], d [T], direction; lanes keep clear of parked cars."""
    street = site.street
    lane = street.half_width_m - GUTTER_M - 2.0 - 1.25
    two_way = lane > 1.2
    out: list[tuple[Shape, Array, Array, int]] = []
    ways = (1, -1) if two_way else ((1,) if rng.random() < 0.5 else (-1,))
    for way in ways:
        d = -way * max(lane, 1.3) if two_way else 0.0
        limit = float(rng.uniform(4.5, 8.5))
        travelled = limit * duration_s
        # Spread over all that will come past; the leader first.
        x = (reach_m if way > 0 else 0.0)
        shapes, starts = [], []
        while x > -travelled - 10.0:
            shape = actors.cyclist(rng) if rng.random() < 0.22 else vehicle(rng, night)
            shapes.append(shape)
            starts.append(x if way > 0 else reach_m - x)
            x -= 0.5 * shape.size_m[0] + 6.0 + float(rng.exponential(_HEADWAY_S[street.district] * limit))
        speeds = np.array([limit * float(rng.uniform(0.8, 1.0)) for _ in shapes])
        lengths = np.array([shape.size_m[0] for shape in shapes])
        positions = run_lane(np.array(starts), lengths, speeds, way, stops, duration_s)
        out += [(shape, positions[:, k], np.full(len(positions), d), way) for k, shape in enumerate(shapes)]
    return out
