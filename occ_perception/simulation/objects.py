"""Shapes of what stands still: buildings, fences, trees, street furniture. Each is a list of solids in its own frame.

The frame of an object: origin on the ground below its centre, x along the street, y to its left, z up. Objects that
belong to a side of the street face -y (towards the walk).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from occ_perception.simulation.solids import Array, Kind, Solid, Texture, pose
from occ_perception.taxonomy import Sidewalk

Colour = tuple[float, float, float]
Triple = tuple[float, float, float]

BRICKS: tuple[Colour, ...] = ((0.55, 0.28, 0.2), (0.62, 0.4, 0.28), (0.7, 0.6, 0.48), (0.48, 0.3, 0.26))
PLASTERS: tuple[Colour, ...] = ((0.82, 0.76, 0.62), (0.75, 0.7, 0.66), (0.8, 0.6, 0.45), (0.66, 0.72, 0.74),
                                (0.85, 0.82, 0.78), (0.72, 0.52, 0.42))
WOOD: Colour = (0.45, 0.3, 0.17)
IRON: Colour = (0.16, 0.17, 0.18)
STEEL: Colour = (0.55, 0.56, 0.58)


def part(kind: Kind, size_m: Triple, centre_m: Triple, label: int, colour: Colour,
         texture: Texture = Texture.PLAIN, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0,
         glow: float = 0.0) -> Solid:
    """A solid by its centre and angles in the object's frame."""
    return Solid(kind, size_m, pose(*centre_m, yaw, pitch, roll), label, colour, texture, glow)


def placed(solids: Iterable[Solid], T_world_object: Array) -> list[Solid]:
    """The same solids in the world."""
    return [Solid(s.kind, s.size_m, T_world_object @ s.T_parent_solid, s.label, s.colour, s.texture, s.glow)
            for s in solids]


def choose(rng: np.random.Generator, options: tuple[Colour, ...]) -> Colour:
    """One of the colours, a little off."""
    base = options[int(rng.integers(len(options)))]
    return jitter(rng, base, 0.04)


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """A colour near the given one."""
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-amount, amount, 3) + rng.uniform(-amount, amount), 0.02, 0.98)
    return float(r), float(g), float(b)


def building(rng: np.random.Generator, width_m: float, depth_m: float, height_m: float, texture: Texture,
             colour: Colour, shop: bool, night: bool) -> list[Solid]:
    """A house whose front lies in the plane y = 0 and whose body goes to +y; shops have a window and an awning."""
    wall = int(Sidewalk.WALL)
    lit = 0.35 if night and rng.random() < 0.6 else 0.0
    solids = [
        part("box", (width_m, depth_m, height_m + 0.5), (0, 0.5 * depth_m, 0.5 * height_m - 0.25), wall, colour,
             texture),
        part("box", (width_m + 0.1, depth_m, 0.3), (0, 0.5 * depth_m - 0.2, height_m), wall,
             jitter(rng, colour, 0.08)),
    ]
    door = float(rng.uniform(-0.35, 0.35)) * width_m
    solids.append(part("box", (1.1, 0.14, 2.2), (door, 0.0, 1.1), wall, jitter(rng, WOOD, 0.1), Texture.WOOD))
    if shop:
        solids.append(part("box", (0.42 * width_m, 0.12, 1.9), (-np.sign(door) * 0.22 * width_m, 0.0, 1.5), wall,
                           (0.18, 0.22, 0.26), Texture.GLASS, glow=lit))
        if rng.random() < 0.6:
            solids.append(part("box", (0.46 * width_m, 1.0, 0.06), (-np.sign(door) * 0.22 * width_m, -0.5, 2.75), wall,
                               jitter(rng, (0.6, 0.25, 0.2), 0.3), Texture.CLOTH, roll=0.25))
    elif rng.random() < 0.6:
        solids.append(part("box", (1.5, 0.7, 0.32), (door, -0.3, 0.16), wall, (0.6, 0.59, 0.57), Texture.STONE))
    return solids


def wall(length_m: float, height_m: float, colour: Colour, texture: Texture) -> list[Solid]:
    """A garden wall along x."""
    return [part("box", (length_m, 0.25, height_m + 0.3), (0, 0, 0.5 * height_m - 0.15), Sidewalk.WALL, colour,
                 texture)]


def fence(length_m: float, height_m: float, colour: Colour) -> list[Solid]:
    """Posts every 2 m and boards between them, along x."""
    solids = [part("box", (length_m, 0.06, height_m - 0.12), (0, 0, 0.5 * height_m + 0.06), Sidewalk.WALL, colour,
                   Texture.WOOD)]
    for x in np.linspace(-0.5 * length_m, 0.5 * length_m, max(2, int(length_m / 2.0) + 1)).tolist():
        solids.append(part("box", (0.1, 0.1, height_m + 0.3), (x, 0, 0.5 * height_m - 0.1), Sidewalk.WALL, colour))
    return solids


def hedge(rng: np.random.Generator, length_m: float, height_m: float) -> list[Solid]:
    """A trimmed hedge along x."""
    return [part("box", (length_m, float(rng.uniform(0.5, 0.9)), height_m + 0.2), (0, 0, 0.5 * height_m - 0.1),
                 Sidewalk.TREES, jitter(rng, (0.16, 0.34, 0.12), 0.05), Texture.FOLIAGE)]


def tree(rng: np.random.Generator, height_m: float) -> list[Solid]:
    """A trunk and a crown of two to four blobs."""
    trunk_m = float(rng.uniform(0.16, 0.38))
    clear_m = float(rng.uniform(2.1, 3.0))
    leaf = jitter(rng, (0.2, 0.4, 0.14), 0.07)
    lean = float(rng.uniform(-0.04, 0.04))
    solids = [part("cylinder", (trunk_m, trunk_m, clear_m + 1.2), (0, 0, 0.5 * (clear_m + 0.8)), Sidewalk.TREES,
                   jitter(rng, (0.36, 0.27, 0.2), 0.05), Texture.WOOD, roll=lean)]
    crown_m = height_m - clear_m
    for _ in range(int(rng.integers(2, 4))):
        x, y = rng.uniform(-0.5, 0.5, 2).tolist()
        w = float(rng.uniform(0.5, 0.75)) * crown_m + 0.8
        solids.append(part("ellipsoid", (w, w, 0.8 * crown_m), (x, y, clear_m + 0.45 * crown_m), Sidewalk.TREES,
                           jitter(rng, leaf, 0.03), Texture.FOLIAGE))
    return solids


def cypress(rng: np.random.Generator) -> list[Solid]:
    """A slim evergreen that is green from the ground up."""
    w, h = float(rng.uniform(0.6, 1.1)), float(rng.uniform(2.0, 4.5))
    return [part("ellipsoid", (w, w, h), (0, 0, 0.48 * h), Sidewalk.TREES, jitter(rng, (0.13, 0.3, 0.15), 0.05),
                 Texture.FOLIAGE)]


def bush(rng: np.random.Generator) -> list[Solid]:
    """A round shrub."""
    w, h = float(rng.uniform(0.5, 1.1)), float(rng.uniform(0.4, 0.9))
    return [part("ellipsoid", (w, w, h), (0, 0, 0.42 * h), Sidewalk.TREES, jitter(rng, (0.22, 0.4, 0.15), 0.07),
                 Texture.FOLIAGE)]


def planter(rng: np.random.Generator) -> list[Solid]:
    """A trough or a pot with a plant; trees and potted plants are one class."""
    colour = jitter(rng, (0.5, 0.42, 0.36), 0.15)
    h = float(rng.uniform(0.35, 0.6))
    green = jitter(rng, (0.22, 0.42, 0.16), 0.08)
    if rng.random() < 0.5:
        w = float(rng.uniform(0.7, 1.3))
        return [part("box", (w, 0.4, h), (0, 0, 0.5 * h), Sidewalk.TREES, colour, Texture.STONE),
                part("ellipsoid", (w, 0.5, 0.6), (0, 0, h + 0.1), Sidewalk.TREES, green, Texture.FOLIAGE)]
    w = float(rng.uniform(0.4, 0.6))
    return [part("cylinder", (w, w, h), (0, 0, 0.5 * h), Sidewalk.TREES, colour, Texture.STONE),
            part("ellipsoid", (1.3 * w, 1.3 * w, 0.9), (0, 0, h + 0.3), Sidewalk.TREES, green, Texture.FOLIAGE)]


LAMP_HEIGHT_M = 4.6
LAMP_ARM_M = 0.9


def lamp(night: bool) -> list[Solid]:
    """A street lamp whose arm reaches towards +y."""
    return [part("cylinder", (0.14, 0.14, LAMP_HEIGHT_M), (0, 0, 0.5 * LAMP_HEIGHT_M), Sidewalk.OBSTACLE, IRON,
                 Texture.METAL),
            part("cylinder", (0.26, 0.26, 0.5), (0, 0, 0.25), Sidewalk.OBSTACLE, IRON, Texture.METAL),
            part("box", (0.08, LAMP_ARM_M, 0.08), (0, 0.5 * LAMP_ARM_M, LAMP_HEIGHT_M), Sidewalk.OBSTACLE, IRON),
            part("box", (0.25, 0.5, 0.12), (0, LAMP_ARM_M, LAMP_HEIGHT_M - 0.05), Sidewalk.OBSTACLE,
                 (0.95, 0.9, 0.75), glow=1.0 if night else 0.0)]


def sign(rng: np.random.Generator) -> list[Solid]:
    """A traffic sign on a pole, facing along x."""
    h = float(rng.uniform(2.2, 2.7))
    colour = choose(rng, ((0.75, 0.1, 0.1), (0.1, 0.25, 0.65), (0.9, 0.9, 0.9), (0.9, 0.75, 0.1)))
    plate = (part("box", (0.04, 0.6, 0.6), (0.06, 0, h - 0.3), Sidewalk.OBSTACLE, colour) if rng.random() < 0.5 else
             part("cylinder", (0.6, 0.6, 0.04), (0.06, 0, h - 0.3), Sidewalk.OBSTACLE, colour, pitch=np.pi / 2))
    return [part("cylinder", (0.08, 0.08, h), (0, 0, 0.5 * h), Sidewalk.OBSTACLE, STEEL, Texture.METAL), plate]


def traffic_light(night: bool) -> list[Solid]:
    """A pole with a signal head at 2.6 m."""
    return [part("cylinder", (0.14, 0.14, 3.2), (0, 0, 1.6), Sidewalk.OBSTACLE, IRON, Texture.METAL),
            part("box", (0.28, 0.28, 0.85), (0, 0, 2.7), Sidewalk.OBSTACLE, (0.1, 0.1, 0.1)),
            part("box", (0.3, 0.16, 0.16), (0, 0, 2.95), Sidewalk.OBSTACLE, (0.9, 0.15, 0.1),
                 glow=0.8 if night else 0.3)]


def bollard() -> list[Solid]:
    """A short post."""
    return [part("cylinder", (0.16, 0.16, 0.95), (0, 0, 0.475), Sidewalk.OBSTACLE, IRON, Texture.METAL)]


def hydrant(rng: np.random.Generator) -> list[Solid]:
    """A fire hydrant."""
    red = choose(rng, ((0.75, 0.12, 0.1), (0.85, 0.7, 0.1)))
    return [part("cylinder", (0.24, 0.24, 0.6), (0, 0, 0.3), Sidewalk.OBSTACLE, red, Texture.METAL),
            part("ellipsoid", (0.28, 0.28, 0.3), (0, 0, 0.62), Sidewalk.OBSTACLE, red),
            part("cylinder", (0.12, 0.12, 0.42), (0, 0, 0.45), Sidewalk.OBSTACLE, red, roll=np.pi / 2)]


def trash_bin(rng: np.random.Generator) -> list[Solid]:
    """A litter bin or a wheeled bin."""
    if rng.random() < 0.5:
        return [part("cylinder", (0.45, 0.45, 0.95), (0, 0, 0.475), Sidewalk.OBSTACLE, jitter(rng, IRON, 0.1),
                     Texture.METAL)]
    return [part("box", (0.55, 0.65, 1.0), (0, 0, 0.55), Sidewalk.OBSTACLE,
                 choose(rng, ((0.12, 0.3, 0.15), (0.15, 0.2, 0.35), (0.25, 0.25, 0.25)))),
            part("box", (0.58, 0.7, 0.08), (0, 0, 1.07), Sidewalk.OBSTACLE, IRON)]


def bench() -> list[Solid]:
    """A bench along x whose back is at +y."""
    solids = [part("box", (1.6, 0.45, 0.06), (0, 0, 0.45), Sidewalk.OBSTACLE, WOOD, Texture.WOOD),
              part("box", (1.6, 0.06, 0.4), (0, 0.24, 0.72), Sidewalk.OBSTACLE, WOOD, Texture.WOOD, roll=-0.15)]
    return solids + [part("box", (0.07, 0.45, 0.45), (x, 0, 0.22), Sidewalk.OBSTACLE, IRON) for x in (-0.65, 0.65)]


def cafe_table(rng: np.random.Generator) -> list[Solid]:
    """A round table with two chairs, sometimes under a parasol."""
    colour = jitter(rng, (0.5, 0.4, 0.3), 0.2)
    solids = [part("cylinder", (0.7, 0.7, 0.04), (0, 0, 0.73), Sidewalk.OBSTACLE, colour, Texture.WOOD),
              part("cylinder", (0.07, 0.07, 0.72), (0, 0, 0.36), Sidewalk.OBSTACLE, IRON)]
    for x in (-0.65, 0.65):
        solids += [part("box", (0.42, 0.42, 0.05), (x, 0, 0.45), Sidewalk.OBSTACLE, colour),
                   part("box", (0.05, 0.42, 0.45), (x * 1.32, 0, 0.68), Sidewalk.OBSTACLE, colour),
                   part("box", (0.36, 0.36, 0.44), (x, 0, 0.22), Sidewalk.OBSTACLE, IRON)]
    if rng.random() < 0.35:
        cloth = jitter(rng, (0.7, 0.3, 0.25), 0.25)
        solids += [part("cylinder", (0.05, 0.05, 2.5), (0, 0, 1.25), Sidewalk.OBSTACLE, WOOD),
                   part("ellipsoid", (2.4, 2.4, 0.5), (0, 0, 2.5), Sidewalk.OBSTACLE, cloth, Texture.CLOTH)]
    return solids


def signboard(rng: np.random.Generator) -> list[Solid]:
    """A board that stands on the pavement in front of a shop."""
    colour = jitter(rng, (0.25, 0.25, 0.25), 0.2)
    return [part("box", (0.05, 0.6, 1.0), (x, 0, 0.48), Sidewalk.OBSTACLE, colour, pitch=p)
            for x, p in ((-0.12, 0.22), (0.12, -0.22))]


def bike_rack(rng: np.random.Generator) -> list[Solid]:
    """Two to four hoops, some with a bicycle leaning on them; all of it is a generic obstacle."""
    solids = []
    count = int(rng.integers(2, 5))
    for k in range(count):
        x = (k - 0.5 * (count - 1)) * 0.8
        solids += [part("cylinder", (0.06, 0.06, 0.8), (x, y, 0.4), Sidewalk.OBSTACLE, STEEL, Texture.METAL)
                   for y in (-0.3, 0.3)]
        solids.append(part("box", (0.06, 0.66, 0.06), (x, 0, 0.8), Sidewalk.OBSTACLE, STEEL, Texture.METAL))
        if rng.random() < 0.5:
            colour = jitter(rng, (0.4, 0.3, 0.3), 0.3)
            solids += [part("cylinder", (0.64, 0.64, 0.05), (x + 0.15, y, 0.33), Sidewalk.OBSTACLE, IRON,
                            roll=0.0, pitch=np.pi / 2) for y in (-0.5, 0.5)]
            solids.append(part("box", (0.05, 1.0, 0.06), (x + 0.15, 0, 0.62), Sidewalk.OBSTACLE, colour))
    return solids


def cabinet(rng: np.random.Generator) -> list[Solid]:
    """A utility cabinet, a post box or a parking meter."""
    kind = int(rng.integers(3))
    if kind == 0:
        h = float(rng.uniform(0.9, 1.5))
        return [part("box", (float(rng.uniform(0.5, 1.1)), 0.4, h), (0, 0, 0.5 * h), Sidewalk.OBSTACLE,
                     jitter(rng, (0.5, 0.55, 0.5), 0.1), Texture.METAL)]
    if kind == 1:
        colour = choose(rng, ((0.75, 0.15, 0.12), (0.15, 0.25, 0.55), (0.85, 0.7, 0.15)))
        return [part("box", (0.5, 0.45, 0.9), (0, 0, 0.65), Sidewalk.OBSTACLE, colour, Texture.METAL),
                part("cylinder", (0.45, 0.5, 0.5), (0, 0, 1.1), Sidewalk.OBSTACLE, colour, pitch=np.pi / 2),
                part("box", (0.4, 0.35, 0.2), (0, 0, 0.1), Sidewalk.OBSTACLE, IRON)]
    return [part("cylinder", (0.07, 0.07, 1.1), (0, 0, 0.55), Sidewalk.OBSTACLE, STEEL, Texture.METAL),
            part("box", (0.16, 0.14, 0.35), (0, 0, 1.25), Sidewalk.OBSTACLE, jitter(rng, IRON, 0.1), Texture.METAL)]


def cones(rng: np.random.Generator) -> list[Solid]:
    """Two to four traffic cones in a row."""
    count = int(rng.integers(2, 5))
    orange = (0.9, 0.35, 0.08)
    solids = []
    for k in range(count):
        x, y = (k - 0.5 * (count - 1)) * 0.8, float(rng.uniform(-0.1, 0.1))
        solids += [part("box", (0.36, 0.36, 0.04), (x, y, 0.02), Sidewalk.OBSTACLE, orange),
                   part("cylinder", (0.24, 0.24, 0.3), (x, y, 0.17), Sidewalk.OBSTACLE, orange),
                   part("cylinder", (0.14, 0.14, 0.4), (x, y, 0.5), Sidewalk.OBSTACLE, (0.9, 0.88, 0.85))]
    return solids


def bus_shelter() -> list[Solid]:
    """Three glazed sides and a roof, open towards -y, with a bench."""
    solids = [part("box", (3.2, 1.3, 0.1), (0, 0, 2.45), Sidewalk.OBSTACLE, IRON),
              part("box", (3.2, 0.05, 2.2), (0, 0.6, 1.25), Sidewalk.OBSTACLE, (0.5, 0.6, 0.62), Texture.GLASS),
              part("box", (2.2, 0.35, 0.06), (0, 0.35, 0.5), Sidewalk.OBSTACLE, WOOD, Texture.WOOD)]
    return solids + [part("box", (0.06, 1.2, 2.4), (x, 0, 1.2), Sidewalk.OBSTACLE, (0.45, 0.5, 0.5), Texture.METAL)
                     for x in (-1.57, 1.57)]


def stall(rng: np.random.Generator) -> list[Solid]:
    """A market stall: a table with goods under a roof of cloth."""
    cloth = jitter(rng, (0.75, 0.4, 0.3), 0.2)
    solids = [part("box", (2.0, 0.8, 0.85), (0, 0, 0.425), Sidewalk.OBSTACLE, WOOD, Texture.WOOD),
              part("box", (2.3, 1.3, 0.06), (0, 0, 2.25), Sidewalk.OBSTACLE, cloth, Texture.CLOTH, roll=0.15)]
    solids += [part("cylinder", (0.05, 0.05, 2.2), (x, y, 1.1), Sidewalk.OBSTACLE, IRON)
               for x in (-1.0, 1.0) for y in (-0.42, 0.42)]
    return solids + [part("ellipsoid", (0.4, 0.4, 0.25), (x, 0, 0.92), Sidewalk.OBSTACLE,
                          jitter(rng, (0.6, 0.5, 0.2), 0.3)) for x in (-0.7, -0.2, 0.3, 0.75)]


def stroller(rng: np.random.Generator) -> list[Solid]:
    """A parked baby stroller."""
    colour = jitter(rng, (0.3, 0.3, 0.4), 0.25)
    solids = [part("box", (0.7, 0.42, 0.3), (0, 0, 0.6), Sidewalk.OBSTACLE, colour, Texture.CLOTH),
              part("ellipsoid", (0.45, 0.44, 0.5), (0.15, 0, 0.85), Sidewalk.OBSTACLE, colour, Texture.CLOTH)]
    return solids + [part("cylinder", (0.26, 0.26, 0.05), (x, y, 0.13), Sidewalk.OBSTACLE, IRON, roll=np.pi / 2)
                     for x in (-0.3, 0.3) for y in (-0.22, 0.22)]
