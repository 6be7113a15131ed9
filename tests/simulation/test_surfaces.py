"""Rays meet the surfaces that the analytic solids describe, standing or moving."""

from __future__ import annotations

from collections.abc import Callable

import embreex  # noqa: F401  (without rays there is nothing to test)
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.simulation.scene import Actor, World
from occ_perception.simulation.shading import rays_meet_spheres
from occ_perception.simulation.solids import Solid, pose
from occ_perception.simulation.surfaces import WorldCaster
from occ_perception.taxonomy import Sidewalk


def directions_of(rng: np.random.Generator, n: int) -> np.ndarray:
    d = rng.normal(size=(n, 3))
    return (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def from_origin(origin: tuple[float, float, float], directions: np.ndarray) -> np.ndarray:
    return np.tile(np.array(origin, np.float32), (len(directions), 1))


def test_hits_lie_on_the_surface_of_the_box_they_name(make_yard: Callable[..., World]) -> None:
    world = make_yard()
    instant = WorldCaster(world).at(0.0, np.zeros(3))
    directions = directions_of(np.random.default_rng(1), 4000)
    range_m, index = instant.cast(from_origin((0.0, 0.0, 1.0), directions), directions)
    hit = index >= 0
    points = np.array([0.0, 0.0, 1.0]) + range_m[hit, None] * directions[hit]
    labels = instant.surfaces.label[index[hit]]
    for solid in world.static:
        on_it = points[labels == solid.label] - solid.T_parent_solid[:3, 3]
        assert len(on_it) > 20
        assert np.abs(solid.signed_distance_m(on_it)).max() < 1e-4
    assert (np.abs(points[labels == Sidewalk.SIDEWALK][:, 2]) < 1e-4).all()
    assert np.isinf(range_m[~hit]).all()


@pytest.mark.parametrize(("kind", "sagitta_m"), [("cylinder", 0.02), ("ellipsoid", 0.06)])
def test_round_solids_are_hit_within_their_tessellation(make_yard: Callable[..., World], kind: str,
                                                        sagitta_m: float) -> None:
    solid = Solid(kind, (1.0, 1.0, 1.0), pose(3.0, 0.0, 1.0, yaw=0.3), Sidewalk.TREES, (0.1, 0.5, 0.1))  # type: ignore[arg-type]
    instant = WorldCaster(make_yard([solid])).at(0.0, np.zeros(3))
    directions = directions_of(np.random.default_rng(2), 20000)
    range_m, index = instant.cast(from_origin((0.0, 0.0, 1.0), directions), directions)
    on_it = (index >= 0) & (instant.surfaces.label[index] == Sidewalk.TREES)
    points = np.array([0.0, 0.0, 1.0]) + range_m[on_it, None] * directions[on_it] - solid.T_parent_solid[:3, 3]
    distance = solid.signed_distance_m(points @ solid.T_parent_solid[:3, :3])
    assert on_it.sum() > 100
    assert distance.max() < 1e-4
    assert distance.min() > -sagitta_m


def test_the_nearer_of_standing_and_moving_matter_is_hit_at_its_time(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor]) -> None:
    world = make_yard(actors=[make_walker(9, (4.0, -1.0), (4.0, 1.0))])
    caster = WorldCaster(world)
    ahead = np.array([[1.0, 0.0, 0.0]], np.float32)
    origin = from_origin((0.0, 0.0, 1.0), ahead)
    seen = []
    for time_s in (0.0, 5.0, 10.0):
        instant = caster.at(time_s, np.zeros(3))
        range_m, index = instant.cast(origin, ahead)
        seen.append((round(float(range_m[0]), 2), int(instant.surfaces.track_id[index[0]])))
        assert instant.blocked(origin, ahead)[0]
    assert seen == [(8.0, 0), (3.75, 9), (8.0, 0)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_no_ray_that_meets_a_sphere_is_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 70))
    base = rng.normal(size=3)
    directions = (base + 0.3 * rng.normal(size=(n, 3))).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = (0.1 * rng.normal(size=(n, 3))).astype(np.float32)
    spheres = np.column_stack([rng.normal(size=(3, 3)) * 4, rng.uniform(0.1, 1.5, 3)]).astype(np.float32)
    towards = spheres[None, :, :3] - origins[:, None]
    along = np.maximum((towards * directions[:, None]).sum(-1), 0.0)
    nearest = np.linalg.norm(towards - along[..., None] * directions[:, None], axis=-1)
    really = (nearest < spheres[:, 3] - 1e-4).any(axis=1)
    assert not (really & ~rays_meet_spheres(origins, directions, spheres)).any()
