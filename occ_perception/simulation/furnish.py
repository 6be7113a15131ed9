"""What stands along a street, by district: houses, gardens, trees, lamps, street furniture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from occ_perception.simulation import objects
from occ_perception.simulation.ground import Ground
from occ_perception.simulation.layout import KERB_M, Street
from occ_perception.simulation.objects import Colour
from occ_perception.simulation.solids import Array, Solid, Texture, pose


@dataclass(eq=False)
class Site:
    """A street being furnished: where things stand, and what is taken.

    Attributes:
        street, ground: the plan and its surface.
        night: lamps are lit.
        things: solids of each thing placed so far, in the world.
        lamps_m: lamp heads in the world.
        taken: (s, d, radius) of everything placed on or beside the walks.
    """

    street: Street
    ground: Ground
    night: bool
    things: list[list[Solid]] = field(default_factory=list)
    lamps_m: list[Array] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def pose(self, s_m: float, d_m: float, turn: float = 0.0, sunk_m: float = 0.0) -> Array:
        """T_world_object on the ground at (s, d), x along the street, turned by `turn`."""
        xy = self.ground.to_world(np.array([[s_m, d_m], [s_m + 0.5, d_m], [s_m - 0.5, d_m]]))
        tangent = xy[1] - xy[2]
        z = float(self.ground.height_m(xy[:1])[0])
        return pose(float(xy[0, 0]), float(xy[0, 1]), z - sunk_m, float(np.arctan2(tangent[1], tangent[0])) + turn)

    def is_free(self, s_m: float, d_m: float, radius_m: float) -> bool:
        """Whether nothing placed before is within the radius."""
        return all((s_m - s) ** 2 + (d_m - d) ** 2 > (radius_m + r) ** 2 for s, d, r in self.taken)

    def d(self, side: int, beyond_kerb_m: float) -> float:
        """Street coordinate d of a distance beyond the kerb of one side."""
        return side * (self.street.half_width_m + beyond_kerb_m)

    def put(self, solids: Iterable[Solid], s_m: float, side: int, beyond_kerb_m: float, radius_m: float = 0.0,
            turn: float = 0.0) -> bool:
        """Place a thing facing the road of its side; False if the place is taken. Radius 0 never collides."""
        d = self.d(side, beyond_kerb_m)
        if radius_m and not self.is_free(s_m, d, radius_m):
            return False
        T = self.pose(s_m, d, (0.0 if side > 0 else np.pi) + turn)
        self.things.append(objects.placed(solids, T))
        if radius_m:
            self.taken.append((s_m, d, radius_m))
        return True


def furnish(rng: np.random.Generator, site: Site) -> None:
    """Everything that stands still on both sides."""
    for side in (-1, 1):
        _houses(rng, site, side)
        _lamps(rng, site, side)
        {"touristy": _touristy, "residential": _residential, "commercial": _commercial}[site.street.district](
            rng, site, side)
    _corners(rng, site)
    _ends(rng, site)


def _along(rng: np.random.Generator, site: Site, spacing_m: float, margin_m: float = 0.5) -> list[float]:
    """Irregular positions along the street, away from side streets, crosswalks."""
    street = site.street
    count = int((street.end_m - street.start_m) / spacing_m)
    if count == 0:
        return []
    at = street.start_m + (np.arange(count) + rng.uniform(0.1, 0.9, count)) * spacing_m
    return [s for s in at.tolist() if street.is_free_of_crossings(s, margin_m)]


def _off_drives(site: Site, side: int, s_m: float, margin_m: float) -> bool:
    return all(drive.side != side or abs(drive.s_m - s_m) > drive.half_width_m + margin_m
               for drive in site.street.driveways)


def _houses(rng: np.random.Generator, site: Site, side: int) -> None:
    street = site.street
    front = street.building_m
    s = street.start_m - 6.0
    while s < street.end_m + 6.0:
        width = float(rng.uniform(7.0, 13.0) if street.district != "commercial" else rng.uniform(10.0, 20.0))
        gap = float(rng.uniform(2.5, 5.0)) if street.district == "residential" else 0.0
        for other in street.side_streets:
            reach = other.half_width_m + street.building_m
            if s < other.s_m + reach and s + width > other.s_m - reach:
                width = other.s_m - reach - s
                if width < 4.0:
                    s, width = other.s_m + reach, 9.0
        centre = s + 0.5 * width
        step_back = 0.0 if street.district == "residential" else float(rng.uniform(0.0, 0.25))
        height, texture, colour = _facade(rng, street)
        site.put(objects.building(rng, width - 0.05, 12.0, height, texture, colour, street.district != "residential",
                                  site.night), centre, side, front + step_back)
        s += width + gap


def _facade(rng: np.random.Generator, street: Street) -> tuple[float, Texture, Colour]:
    brick, plaster = objects.choose(rng, objects.BRICKS), objects.choose(rng, objects.PLASTERS)
    if street.district == "commercial":
        if rng.random() < 0.55:
            return float(rng.uniform(12, 24)), Texture.GLASS, objects.jitter(rng, (0.35, 0.45, 0.52), 0.08)
        return float(rng.uniform(9, 18)), Texture.WINDOWS, objects.jitter(rng, (0.6, 0.58, 0.55), 0.12)
    if street.district == "touristy":
        return float(rng.uniform(7, 14)), Texture.WINDOWS if rng.random() < 0.75 else Texture.BRICK, (
            plaster if rng.random() < 0.65 else brick)
    return float(rng.uniform(4.5, 8)), Texture.WINDOWS if rng.random() < 0.5 else Texture.BRICK, (
        brick if rng.random() < 0.5 else plaster)


def _lamps(rng: np.random.Generator, site: Site, side: int) -> None:
    for s in _along(rng, site, float(rng.uniform(14.0, 20.0))):
        if _off_drives(site, side, s, 0.6) and site.put(objects.lamp(site.night), s, side, KERB_M + 0.3, 0.3, np.pi):
            head = site.pose(s, site.d(side, KERB_M + 0.3 - objects.LAMP_ARM_M))
            site.lamps_m.append(head[:3, 3] + (0.0, 0.0, objects.LAMP_HEIGHT_M - 0.15))


def _touristy(rng: np.random.Generator, site: Site, side: int) -> None:
    street = site.street
    kerb, wall = KERB_M + 0.35, street.walk_outer_m + 0.5 * street.setback_m
    for s in _along(rng, site, 6.0):
        kind = int(rng.integers(6))
        if kind < 2:
            site.put(objects.cafe_table(rng), s, side, wall - 0.35, 1.1)
            if rng.random() < 0.6:
                site.put(objects.cafe_table(rng), s + 2.4, side, wall - 0.3, 1.1)
        elif kind == 2:
            for k in range(int(rng.integers(1, 4))):
                site.put(objects.planter(rng), s + 1.3 * k, side, wall - 0.2, 0.5)
        elif kind == 3:
            site.put(objects.signboard(rng), s, side, wall - float(rng.uniform(0.3, 1.0)), 0.4)
        elif kind == 4:
            site.put(objects.bench(), s, side, wall - 0.15, 0.8)
        elif kind == 5 and rng.random() < 0.4:
            site.put(objects.stall(rng), s, side, wall - 0.2, 1.2)
    for s in _along(rng, site, 5.0):
        kind = int(rng.integers(10))
        if not _off_drives(site, side, s, 1.0):
            continue
        if kind < 2:
            for k in range(int(rng.integers(2, 5))):
                site.put(objects.bollard(), s + 1.4 * k, side, kerb - 0.1, 0.2)
        elif kind == 2:
            site.put(objects.tree(rng, float(rng.uniform(4.5, 7.0))), s, side, kerb + 0.1, 0.5)
        elif kind == 3:
            site.put(objects.planter(rng), s, side, kerb + 0.1, 0.6)
        elif kind == 4:
            site.put(objects.trash_bin(rng), s, side, kerb, 0.4)
        elif kind == 5:
            site.put(objects.bike_rack(rng), s, side, kerb + 0.3, 1.4)
        elif kind == 6:
            site.put(objects.hydrant(rng), s, side, kerb, 0.3)
        elif kind == 7:
            site.put(objects.cabinet(rng), s, side, kerb, 0.5)
        elif kind == 8 and rng.random() < 0.4:
            site.put(objects.cones(rng), s, side, kerb + 0.1, 1.3)
        else:
            site.put(objects.sign(rng), s, side, kerb - 0.1, 0.3)


def _residential(rng: np.random.Generator, site: Site, side: int) -> None:
    street = site.street
    verge = KERB_M + max(0.35, 0.5 * street.verge_m)
    for s in _along(rng, site, float(rng.uniform(7.0, 12.0))):
        if _off_drives(site, side, s, 0.9) and street.verge_m > 0.5:
            site.put(objects.tree(rng, float(rng.uniform(4.5, 8.0))), s, side, verge, 0.6)
    for s in _along(rng, site, 9.0):
        kind = int(rng.integers(6))
        if not _off_drives(site, side, s, 0.6):
            continue
        if kind == 0:
            site.put(objects.hydrant(rng), s, side, verge - 0.1, 0.3)
        elif kind == 1:
            for k in range(int(rng.integers(1, 4))):
                site.put(objects.trash_bin(rng), s + 0.8 * k, side, verge, 0.35)
        elif kind == 2:
            site.put(objects.sign(rng), s, side, KERB_M + 0.25, 0.3)
        elif kind == 3 and street.verge_is_grass:
            site.put(objects.bush(rng), s, side, verge + 0.1, 0.5)
        elif kind == 4:
            site.put(objects.cabinet(rng) if rng.random() < 0.7 else objects.cones(rng), s, side, verge, 0.6)
    edge = street.walk_outer_m + 0.3
    for s in np.arange(street.start_m + 3.0, street.end_m - 3.0, 6.0).tolist():
        if not street.is_free_of_crossings(s, 3.5) or not _off_drives(site, side, s, 3.0):
            continue
        style = rng.random()
        if style < 0.22:
            site.put(objects.fence(6.0, float(rng.uniform(0.9, 1.5)), objects.jitter(rng, (0.6, 0.55, 0.5), 0.25)), s,
                     side, edge)
        elif style < 0.42:
            site.put(objects.hedge(rng, 5.6, float(rng.uniform(0.7, 1.6))), s, side, edge + 0.3)
        elif style < 0.58:
            site.put(objects.wall(6.0, float(rng.uniform(0.5, 1.2)), objects.choose(rng, objects.BRICKS),
                                  Texture.BRICK), s, side, edge)
        for _ in range(int(rng.integers(0, 3))):
            green = rng.random()
            plant = (objects.bush(rng) if green < 0.6 else objects.cypress(rng) if green < 0.75
                     else objects.tree(rng, float(rng.uniform(3.5, 5.5))))
            inside = float(rng.uniform(1.1, max(1.2, street.setback_m - 0.5)))
            site.put(plant, s + float(rng.uniform(-2.5, 2.5)), side, street.walk_outer_m + inside, 0.6)


def _commercial(rng: np.random.Generator, site: Site, side: int) -> None:
    street = site.street
    kerb, wall = KERB_M + 0.45, street.walk_outer_m + 0.3 * street.setback_m
    for s in _along(rng, site, float(rng.uniform(8.0, 12.0))):
        if _off_drives(site, side, s, 1.0):
            site.put(objects.tree(rng, float(rng.uniform(5.0, 7.5))), s, side, kerb + 0.15, 0.6)
    for s in _along(rng, site, 6.0):
        kind = int(rng.integers(11))
        if not _off_drives(site, side, s, 1.2):
            continue
        if kind == 0:
            site.put(objects.bike_rack(rng), s, side, kerb + 0.4, 1.5)
        elif kind == 1:
            site.put(objects.bench(), s, side, kerb + 0.2, 0.9, np.pi)
        elif kind == 2:
            site.put(objects.trash_bin(rng), s, side, kerb, 0.4)
        elif kind == 3:
            site.put(objects.sign(rng), s, side, KERB_M + 0.25, 0.3)
        elif kind == 4:
            site.put(objects.hydrant(rng), s, side, kerb, 0.3)
        elif kind == 5:
            site.put(objects.planter(rng), s, side, wall - 0.3, 0.7)
        elif kind == 6:
            site.put(objects.signboard(rng), s, side, wall - float(rng.uniform(0.4, 1.2)), 0.4)
        elif kind == 7:
            site.put(objects.stroller(rng), s, side, wall - 0.4, 0.6)
        elif kind == 8 and rng.random() < 0.5:
            site.put(objects.bus_shelter(), s, side, kerb + 0.5, 1.8, np.pi)
        elif kind == 9 and rng.random() < 0.5:
            site.put(objects.cones(rng), s, side, kerb + 0.2, 1.3)
        else:
            site.put(objects.cabinet(rng), s, side, kerb, 0.5)


def _corners(rng: np.random.Generator, site: Site) -> None:
    """Signals and signs beside crosswalks."""
    street = site.street
    low, _ = street.crosswalk_m
    for other in street.side_streets:
        lights = rng.random() < (0.3 if street.district == "residential" else 0.8)
        for side in (-1, 1):
            for sign in (-1, 1):
                s = other.s_m + sign * (other.half_width_m + KERB_M + 0.25)
                site.put(objects.traffic_light(site.night) if lights else objects.sign(rng), s, side,
                         min(KERB_M + 0.25, low - 0.2), 0.25)
    for s in street.mid_crossings_m:
        for side in (-1, 1):
            site.put(objects.sign(rng), s + 2.1, side, KERB_M + 0.25, 0.25)


def _ends(rng: np.random.Generator, site: Site) -> None:
    """A house across each end, so that the street is closed."""
    street = site.street
    for s, turn in ((street.start_m - 1.0, np.pi / 2), (street.end_m + 1.0, -np.pi / 2)):
        height, texture, colour = _facade(rng, street)
        solids = objects.building(rng, 70.0, 8.0, height, texture, colour, False, site.night)
        site.things.append(objects.placed(solids, site.pose(s, 0.0, turn)))
