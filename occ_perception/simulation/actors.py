"""Shapes of what can move: people, riders, vehicles, animals, as solids in the actor's frame (x forward)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occ_perception.simulation.objects import IRON, Colour, Triple, choose, jitter, part
from occ_perception.simulation.solids import Array, Solid, Texture
from occ_perception.taxonomy import Sidewalk

CLOTHES: tuple[Colour, ...] = (
    (0.1, 0.1, 0.12), (0.2, 0.25, 0.4), (0.7, 0.7, 0.7), (0.6, 0.15, 0.15), (0.2, 0.4, 0.3), (0.75, 0.6, 0.3),
    (0.35, 0.3, 0.28), (0.85, 0.85, 0.82), (0.4, 0.25, 0.45), (0.3, 0.5, 0.7))
TROUSERS: tuple[Colour, ...] = ((0.12, 0.14, 0.2), (0.2, 0.25, 0.38), (0.3, 0.27, 0.22), (0.1, 0.1, 0.1),
                                (0.55, 0.5, 0.42))
SKIN: tuple[Colour, ...] = ((0.85, 0.66, 0.54), (0.7, 0.5, 0.38), (0.45, 0.3, 0.22), (0.9, 0.74, 0.62))
PAINTS: tuple[Colour, ...] = ((0.85, 0.85, 0.85), (0.12, 0.12, 0.13), (0.5, 0.52, 0.55), (0.55, 0.1, 0.1),
                              (0.12, 0.22, 0.45), (0.3, 0.33, 0.3), (0.72, 0.66, 0.5), (0.85, 0.6, 0.1))
WINDOW: Colour = (0.1, 0.12, 0.14)


@dataclass(frozen=True, eq=False)
class Shape:
    """An actor without a path: parts, their swing (see `Actor.swing`), box size, lamps."""

    label: int
    solids: tuple[Solid, ...]
    size_m: Triple
    swing: Array | None = None
    headlights_m: Array | None = None


def _limbs(solids: list[tuple[Solid, Triple]]) -> tuple[tuple[Solid, ...], Array]:
    return tuple(s for s, _ in solids), np.array([w for _, w in solids], float)


STILL: Triple = (0.0, 0.0, 0.0)


def person(rng: np.random.Generator, seated: bool = False, label: int = Sidewalk.PERSON) -> Shape:
    """A pedestrian of 1.5 to 1.95 m, one in ten a child of 0.95 to 1.4 m."""
    h = float(rng.uniform(0.95, 1.4) if rng.random() < 0.1 else np.clip(rng.normal(1.71, 0.1), 1.5, 1.95))
    top, legs, skin = choose(rng, CLOTHES), choose(rng, TROUSERS), choose(rng, SKIN)
    hair = choose(rng, ((0.1, 0.08, 0.06), (0.35, 0.22, 0.1), (0.6, 0.5, 0.3), (0.55, 0.55, 0.55)))
    b = float(rng.uniform(0.85, 1.2)) * h / 1.71
    lift = -0.22 * h if seated else 0.0
    parts: list[tuple[Solid, Triple]] = [
        (part("cylinder", (0.24 * b, 0.38 * b, 0.36 * h), (0, 0, 0.65 * h + lift), label, top, Texture.CLOTH), STILL),
        (part("ellipsoid", (0.22 * b, 0.4 * b, 0.12 * h), (0, 0, 0.82 * h + lift), label, top, Texture.CLOTH), STILL),
        (part("ellipsoid", (0.2, 0.16, 0.14 * h), (0.01, 0, 0.93 * h + lift), label, skin), STILL),
        (part("ellipsoid", (0.2, 0.18, 0.09 * h), (-0.02, 0, 0.96 * h + lift), label, hair), STILL),
    ]
    for side, phase in ((1.0, 0.0), (-1.0, np.pi)):
        if seated:
            parts += [(part("cylinder", (0.16 * b, 0.16 * b, 0.25 * h), (0.15 * h, side * 0.1 * b, 0.48 * h + lift),
                            label, legs, Texture.CLOTH, pitch=np.pi / 2), STILL),
                      (part("cylinder", (0.12 * b, 0.12 * b, 0.25 * h), (0.27 * h, side * 0.1 * b, 0.36 * h + lift),
                            label, legs, Texture.CLOTH), STILL)]
        else:
            parts.append((part("cylinder", (0.15 * b, 0.14 * b, 0.48 * h), (0, side * 0.09 * b, 0.24 * h), label,
                               legs, Texture.CLOTH), (0.45, phase, 0.24 * h)))
        parts.append((part("cylinder", (0.09 * b, 0.09 * b, 0.38 * h), (0, side * 0.235 * b, 0.63 * h + lift), label,
                           top, Texture.CLOTH), (0.0 if seated else 0.4, phase + np.pi, 0.19 * h)))
    if rng.random() < 0.25 and not seated:
        parts.append((part("box", (0.16, 0.3 * b, 0.42), (-0.2 * b, 0, 0.68 * h), label, choose(rng, CLOTHES),
                           Texture.CLOTH), STILL))
    solids, swing = _limbs(parts)
    return Shape(label, solids, (0.5, 0.55 * b, h + lift), swing)


def _wheels(radius_m: float, width_m: float, positions: tuple[tuple[float, float], ...], label: int) -> list[Solid]:
    return [part("cylinder", (2 * radius_m, 2 * radius_m, width_m), (x, y, radius_m), label, (0.06, 0.06, 0.06),
                 roll=np.pi / 2) for x, y in positions]


def _lights(length_m: float, width_m: float, z_m: float, night: bool) -> list[Solid]:
    glow = 1.0 if night else 0.0
    v = int(Sidewalk.VEHICLE)
    return [part("box", (0.06, 0.3, 0.14), (x, y, z_m), v, colour, glow=glow * strength)
            for x, colour, strength in ((0.5 * length_m, (0.95, 0.95, 0.9), 1.0),
                                        (-0.5 * length_m, (0.6, 0.05, 0.05), 0.5))
            for y in (-0.36 * width_m, 0.36 * width_m)]


def car(rng: np.random.Generator, lit: bool) -> Shape:
    """A saloon, hatchback or off-roader: body, bonnet line, cabin, wheels."""
    v = int(Sidewalk.VEHICLE)
    length, width, height = float(rng.uniform(3.7, 4.9)), float(rng.uniform(1.7, 1.92)), float(rng.uniform(1.4, 1.75))
    paint = choose(rng, PAINTS)
    belt = 0.55 * height
    cabin = float(rng.uniform(0.48, 0.66)) * length
    shift = float(rng.uniform(-0.5, 0.0)) * (length - cabin) * 0.5
    solids = [
        part("box", (length, width, belt - 0.35), (0, 0, 0.5 * (belt + 0.35)), v, paint, Texture.METAL),
        part("box", (0.94 * length, 0.94 * width, 0.2), (0, 0, 0.3), v, (0.12, 0.12, 0.12)),
        part("box", (cabin, 0.9 * width, 0.7 * (height - belt)), (shift, 0, belt + 0.35 * (height - belt)), v, WINDOW,
             Texture.GLASS),
        part("box", (0.82 * cabin, 0.84 * width, 0.3 * (height - belt)), (shift, 0, belt + 0.85 * (height - belt)), v,
             paint, Texture.METAL),
        *(part("box", (0.1, 0.12, 0.14), (shift + 0.45 * cabin, y * (0.5 * width + 0.06), belt + 0.05), v, paint)
          for y in (-1.0, 1.0)),
        *_wheels(0.32, 0.22, tuple((x * length, y * (0.5 * width - 0.1)) for x in (0.3, -0.3) for y in (-1, 1)), v),
        *_lights(length, width, 0.62 * belt + 0.12, lit)]
    lamps = np.array([[0.5 * length, y, 0.65] for y in (-0.6, 0.6)]) if lit else None
    return Shape(v, tuple(solids), (length, width + 0.2, height), None, lamps)


def van(rng: np.random.Generator, lit: bool) -> Shape:
    """A delivery van: one tall body and a short nose."""
    v = int(Sidewalk.VEHICLE)
    length, width, height = float(rng.uniform(4.8, 6.0)), float(rng.uniform(1.9, 2.1)), float(rng.uniform(2.0, 2.6))
    paint = choose(rng, PAINTS[:4] + PAINTS[6:])
    nose = 0.2 * length
    solids = [
        part("box", (length - nose, width, height - 0.35), (-0.5 * nose, 0, 0.5 * (height + 0.35)), v, paint),
        part("box", (nose, width, 0.75), (0.5 * (length - nose), 0, 0.72), v, paint),
        part("box", (0.9 * nose, 0.9 * width, 0.6), (0.5 * length - 0.85 * nose, 0, 1.35), v, WINDOW, Texture.GLASS,
             pitch=0.3),
        part("box", (0.16 * length, width + 0.02, 0.5), (0.5 * length - 1.6 * nose, 0, 0.68 * height), v, WINDOW,
             Texture.GLASS),
        *_wheels(0.35, 0.24, tuple((x * length, y * (0.5 * width - 0.1)) for x in (0.32, -0.3) for y in (-1, 1)), v),
        *_lights(length, width, 0.75, lit)]
    lamps = np.array([[0.5 * length, y, 0.75] for y in (-0.7, 0.7)]) if lit else None
    return Shape(v, tuple(solids), (length, width, height), None, lamps)


def truck(rng: np.random.Generator, lit: bool) -> Shape:
    """A lorry with a box body, or a bus."""
    v = int(Sidewalk.VEHICLE)
    length, width, height = float(rng.uniform(6.5, 9.0)), 2.35, float(rng.uniform(2.8, 3.2))
    paint = choose(rng, PAINTS)
    if rng.random() < 0.4:
        solids = [part("box", (length, width, height - 0.35), (0, 0, 0.5 * (height + 0.35)), v, paint, Texture.METAL),
                  part("box", (0.9 * length, width + 0.02, 0.9), (0, 0, 0.68 * height), v, WINDOW, Texture.GLASS)]
    else:
        solids = [part("box", (1.9, width, 2.1), (0.5 * length - 0.95, 0, 1.45), v, paint, Texture.METAL),
                  part("box", (0.1, 0.9 * width, 0.8), (0.5 * length, 0, 1.9), v, WINDOW, Texture.GLASS),
                  part("box", (length - 2.1, width, height - 0.8), (-1.05, 0, 0.5 * (height + 0.8)), v,
                       choose(rng, PAINTS[:3]))]
        solids.append(part("box", (length, 0.8, 0.25), (0, 0, 0.65), v, IRON))
    solids += _wheels(0.46, 0.28, tuple((x * length, y * (0.5 * width - 0.14)) for x in (0.33, -0.2, -0.34)
                                        for y in (-1, 1)), v)
    solids += _lights(length, width, 0.8, lit)
    lamps = np.array([[0.5 * length, y, 0.8] for y in (-0.8, 0.8)]) if lit else None
    return Shape(v, tuple(solids), (length, width, height), None, lamps)


def cyclist(rng: np.random.Generator) -> Shape:
    """A bicycle with its rider; both are one thing of class cyclist."""
    c = int(Sidewalk.CYCLIST)
    top, legs, skin = choose(rng, CLOTHES), choose(rng, TROUSERS), choose(rng, SKIN)
    frame = choose(rng, PAINTS)
    parts = [(s, STILL) for s in [
        *_wheels(0.34, 0.05, ((0.52, 0.0), (-0.52, 0.0)), c),
        part("box", (0.75, 0.05, 0.06), (-0.05, 0, 0.62), c, frame, pitch=-0.15),
        part("box", (0.05, 0.05, 0.62), (0.45, 0, 0.68), c, frame, pitch=-0.25),
        part("box", (0.05, 0.5, 0.05), (0.38, 0, 1.0), c, IRON),
        part("cylinder", (0.24, 0.36, 0.58), (-0.02, 0, 1.2), c, top, Texture.CLOTH, pitch=0.4),
        part("ellipsoid", (0.2, 0.17, 0.25), (0.17, 0, 1.62), c, skin),
        part("ellipsoid", (0.27, 0.2, 0.16), (0.15, 0, 1.7), c, choose(rng, PAINTS)),
        *(part("cylinder", (0.08, 0.08, 0.5), (0.24, y * 0.2, 1.2), c, top, Texture.CLOTH, pitch=0.9) for y in (-1, 1)),
    ]]
    for side, phase in ((1.0, 0.0), (-1.0, np.pi)):
        parts.append((part("cylinder", (0.14, 0.14, 0.72), (0.05, side * 0.1, 0.6), c, legs, Texture.CLOTH),
                      (0.35, phase, 0.36)))
    solids, swing = _limbs(parts)
    return Shape(c, solids, (1.75, 0.55, 1.78), swing)


def scooter(rng: np.random.Generator) -> Shape:
    """A kick scooter with its rider, one thing of class cyclist."""
    c = int(Sidewalk.CYCLIST)
    rider = person(rng, label=c)
    lifted = [part(s.kind, s.size_m, (float(s.T_parent_solid[0, 3]) - 0.1, float(s.T_parent_solid[1, 3]),
                                      float(s.T_parent_solid[2, 3]) + 0.14), c, s.colour, s.texture)
              for s in rider.solids]
    frame = [part("box", (0.9, 0.16, 0.06), (0, 0, 0.12), c, IRON),
             part("cylinder", (0.05, 0.05, 1.0), (0.42, 0, 0.62), c, jitter(rng, (0.3, 0.5, 0.3), 0.2), pitch=-0.1),
             part("box", (0.05, 0.45, 0.05), (0.36, 0, 1.1), c, IRON),
             *_wheels(0.11, 0.05, ((0.45, 0.0), (-0.45, 0.0)), c)]
    return Shape(c, (*lifted, *frame), (1.1, 0.55, rider.size_m[2] + 0.14))


def wheelchair(rng: np.random.Generator) -> Shape:
    """A wheelchair with its user, one thing of class cyclist (WalkOCC, Table 8)."""
    c = int(Sidewalk.CYCLIST)
    user = person(rng, seated=True, label=c)
    chair = [part("box", (0.45, 0.45, 0.08), (0, 0, 0.48), c, IRON),
             part("box", (0.06, 0.45, 0.5), (-0.24, 0, 0.75), c, IRON, Texture.CLOTH),
             *_wheels(0.3, 0.05, ((-0.08, 0.29), (-0.08, -0.29)), c),
             *_wheels(0.1, 0.05, ((0.36, 0.2), (0.36, -0.2)), c)]
    lift = 0.14
    seated = [part(s.kind, s.size_m, (float(s.T_parent_solid[0, 3]), float(s.T_parent_solid[1, 3]),
                                      float(s.T_parent_solid[2, 3]) + lift), c, s.colour, s.texture,
                   pitch=np.pi / 2 if abs(s.T_parent_solid[2, 2]) < 0.5 else 0.0) for s in user.solids]
    return Shape(c, (*seated, *chair), (1.0, 0.65, user.size_m[2] + lift))


def dog(rng: np.random.Generator) -> Shape:
    """A dog of 0.3 to 0.7 m at the shoulder, or a cat."""
    a = int(Sidewalk.ANIMAL)
    h = float(rng.uniform(0.3, 0.7))
    fur = choose(rng, ((0.35, 0.22, 0.12), (0.1, 0.09, 0.08), (0.75, 0.65, 0.5), (0.6, 0.4, 0.2), (0.85, 0.85, 0.82)))
    parts = [(s, STILL) for s in [
        part("ellipsoid", (1.25 * h, 0.42 * h, 0.5 * h), (0, 0, 0.78 * h), a, fur, Texture.CLOTH),
        part("ellipsoid", (0.5 * h, 0.32 * h, 0.36 * h), (0.72 * h, 0, 1.08 * h), a, fur),
        part("cylinder", (0.08 * h, 0.08 * h, 0.5 * h), (-0.68 * h, 0, 0.98 * h), a, fur, pitch=-0.7)]]
    for k, (x, y) in enumerate(((0.4, 0.13), (0.4, -0.13), (-0.4, 0.13), (-0.4, -0.13))):
        parts.append((part("cylinder", (0.14 * h, 0.14 * h, 0.65 * h), (x * h, y * h, 0.325 * h), a, fur),
                      (0.5, np.pi * (k in (1, 2)), 0.32 * h)))
    solids, swing = _limbs(parts)
    return Shape(a, solids, (1.6 * h, 0.45 * h, 1.26 * h), swing)
