"""Worlds repeat from their seed, keep the robot clear of everything, and hold what streets hold."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest

from occ_perception.simulation.crowd import Stop, run_lane
from occ_perception.simulation.layout import GUTTER_M, KERB_M, Street, build_ground, plan_street
from occ_perception.simulation.picture import top_down
from occ_perception.simulation.scene import DISTRICTS, EMBODIMENTS, District, World
from occ_perception.simulation.solids import Array, Solid
from occ_perception.simulation.world import make_world
from occ_perception.taxonomy import SIDEWALK, Sidewalk

HEIGHTS_M = (0.25, 0.7, 1.2)


@lru_cache(maxsize=4)
def small_world(district: District) -> World:
    return make_world(7, district, duration_s=16.0)


def test_equal_seeds_give_equal_worlds_in_other_processes_too() -> None:
    code = ("from occ_perception.simulation.world import make_world\n"
            "print(make_world(3, 'touristy', True, 'humanoid', 6.0).content_hash())")
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == make_world(3, "touristy", True, "humanoid", 6.0).content_hash()


def test_every_argument_changes_the_world() -> None:
    hashes = [make_world(*arguments).content_hash() for arguments in (
        (3, "touristy", False, "wheeled", 6.0), (4, "touristy", False, "wheeled", 6.0),
        (3, "commercial", False, "wheeled", 6.0), (3, "touristy", True, "wheeled", 6.0),
        (3, "touristy", False, "humanoid", 6.0), (3, "touristy", False, "wheeled", 7.0))]
    assert len(set(hashes)) == len(hashes)


def plain_stretch(street: Street) -> Array:
    """Positions along the street away from everything that lowers the kerb."""
    s = np.arange(street.start_m + 1, street.end_m - 1, 0.37)
    keep = [street.is_free_of_crossings(x, 1.0) and all(abs(x - drive.s_m) > drive.half_width_m + 0.5
                                                        for drive in street.driveways) for x in s.tolist()]
    return s[keep]


@pytest.mark.parametrize("district", DISTRICTS)
@pytest.mark.parametrize("seed", range(5))
def test_kerbs_are_steps_of_8_to_15_cm_beside_a_lower_gutter(district: District, seed: int) -> None:
    street = plan_street(np.random.default_rng(seed), district, 40.0)
    ground = build_ground(street)
    s = plain_stretch(street)

    def at(beyond_kerb_m: float, side: int) -> Array:
        return ground.to_world(np.column_stack([s, np.full(len(s), side * (street.half_width_m + beyond_kerb_m))]))

    for side in (-1, 1):
        step = ground.height_m(at(0.021, side)) - ground.height_m(at(-0.001, side))
        assert (step > 0.078).all()
        assert (step < 0.153).all()
        assert np.ptp(step) < 1e-3
        assert (ground.height_m(at(-0.01, side)) < ground.height_m(at(-GUTTER_M, side)) - 0.02).all()
        assert (ground.label(at(0.5 * KERB_M, side)) == Sidewalk.CURB).all()
        assert (ground.label(at(-0.5 * GUTTER_M, side)) == Sidewalk.GUTTER).all()
        assert (ground.label(at(-GUTTER_M - 0.1, side)) == Sidewalk.ROAD).all()
        assert (ground.label(at(street.path_m, side)) == Sidewalk.SIDEWALK).all()


def test_kerbs_are_lowered_at_crosswalks_and_driveways() -> None:
    found = 0
    for seed in range(12):
        street = plan_street(np.random.default_rng(seed), "residential", 40.0)
        ground = build_ground(street)
        places = [(s, side) for s in street.main_crosswalks_m for side in (-1, 1)]
        places += [(drive.s_m, drive.side) for drive in street.driveways]
        for s, side in places:
            if street.start_m < s < street.end_m:
                top, bottom = (ground.height_m(ground.to_world([[s, side * (street.half_width_m + e)]]))[0]
                               for e in (0.021, -0.001))
                assert 0.0 < top - bottom < 0.04
                found += 1
    assert found > 20


def test_crosswalks_are_striped_and_wide_enough() -> None:
    street = next(plan for plan in (plan_street(np.random.default_rng(seed), "commercial", 40.0) for seed in range(20))
                  if plan.main_crosswalks_m)
    ground = build_ground(street)
    s = street.main_crosswalks_m[0]
    d = np.arange(-street.half_width_m + 0.6, street.half_width_m - 0.6, 0.1)
    xy = ground.to_world(np.column_stack([np.full(len(d), s), d]))
    assert (ground.label(xy) == Sidewalk.CROSSWALK).all()
    mesh = ground.mesh()
    colours = np.unique(mesh.colours[mesh.labels == Sidewalk.CROSSWALK], axis=0)
    assert len(colours) == 2
    assert np.ptp(colours.mean(axis=1)) > 0.3


def clearance_m(solids: list[tuple[Solid, Array]], centre: Array) -> float:
    """Least signed distance of the robot's column (points on and inside its disc at three heights) to the solids."""
    angle = np.arange(24) * 2 * np.pi / 24
    disc = np.concatenate([r * np.column_stack([np.cos(angle), np.sin(angle)]) for r in (0.0, 0.2, 0.4)])
    column = np.concatenate([np.column_stack([disc, np.full(len(disc), z)]) for z in HEIGHTS_M]) + centre
    nearest = 10.0
    for solid, T in solids:
        if np.linalg.norm(T[:2, 3] - centre[:2]) < 0.5 * np.linalg.norm(solid.size_m) + 0.5:
            nearest = min(nearest, float(solid.signed_distance_m((column - T[:3, 3]) @ T[:3, :3]).min()))
    return nearest


@pytest.mark.parametrize("district", DISTRICTS)
def test_robot_never_touches_anything(district: District) -> None:
    world = small_world(district)
    for t in np.arange(0.0, 16.0, 0.25).tolist():
        centre = np.array(world.robot.motion.sample(t)[:3])
        solids = [(solid, solid.T_parent_solid) for solid in world.static]
        for actor in world.actors:
            T = actor.pose_at(t)
            if np.linalg.norm(T[:2, 3] - centre[:2]) < 6.0:
                solids += [(solid, T @ part)
                           for solid, part in zip(actor.solids, actor.part_poses(t), strict=True)]
        assert clearance_m(solids, centre) > 0.0, t


@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_robot_walks_on_walks_and_crosswalks_at_walking_speed(embodiment: str) -> None:
    world = make_world(11, "residential", False, embodiment, 20.0)  # type: ignore[arg-type]
    times = world.robot.motion.times_s
    on = world.ground.label(world.robot.motion.xyz_m[:, :2])
    assert np.isin(on, [Sidewalk.SIDEWALK, Sidewalk.CROSSWALK, Sidewalk.CURB, Sidewalk.GUTTER, Sidewalk.ROAD,
                        Sidewalk.GRASS]).all()
    assert np.isin(on, [Sidewalk.SIDEWALK, Sidewalk.CROSSWALK]).mean() > 0.85
    speeds = np.array([np.linalg.norm(world.robot.velocity_at(t)[:2]) for t in np.arange(0, 20, 0.1)])
    assert speeds.max() < 1.8
    assert speeds.mean() > 0.4
    assert np.diff(times) == pytest.approx(0.02)
    assert world.robot.duration_s == pytest.approx(20.0)


def test_bodies_sway_by_their_kind() -> None:
    sway = {body: np.std(make_world(5, "commercial", False, body, 12.0).robot.roll_rad) for body in EMBODIMENTS}
    assert sway["wheeled"] < sway["wheelchair"] < sway["humanoid"] < sway["quadruped"]


@pytest.mark.parametrize("district", DISTRICTS)
def test_ids_are_unique_and_labels_are_things(district: District) -> None:
    world = small_world(district)
    ids = [actor.track_id for actor in world.actors]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert {actor.label for actor in world.actors} <= SIDEWALK.things
    assert not {solid.label for solid in world.static} & SIDEWALK.things
    assert all(solid.label == actor.label for actor in world.actors for solid in actor.solids)


@pytest.mark.parametrize("district", DISTRICTS)
def test_actors_stand_on_the_ground_inside_their_boxes(district: District) -> None:
    world = small_world(district)
    for actor in world.actors:
        T = actor.pose_at(3.0)
        assert T[2, 3] == pytest.approx(world.ground.height_m(T[None, :2, 3])[0], abs=0.05)
        points = np.concatenate([solid.mesh()[0] @ part[:3, :3].T + part[:3, 3]
                                 for solid, part in zip(actor.solids, actor.part_poses(3.0), strict=True)])
        assert points[:, 2].min() > -0.12
        assert points[:, 2].max() < actor.size_m[2] + 0.1
        assert np.abs(points[:, :2]).max(axis=0).max() < 0.5 * max(actor.size_m[:2]) + 0.45


def test_people_are_between_a_child_and_195_cm() -> None:
    heights = [actor.size_m[2] for seed in range(6) for actor in make_world(seed, "touristy", duration_s=4.0).actors
               if actor.label == Sidewalk.PERSON]
    assert min(heights) >= 0.95
    assert max(heights) <= 1.95
    assert 0.03 < np.mean(np.array(heights) < 1.45) < 0.2


def in_view(world: World, t_s: float) -> set[int]:
    """Classes within the 10 x 10 m ahead of the robot."""
    x, y, _, yaw = world.robot.motion.sample(t_s)
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    gx, gy = np.meshgrid(np.arange(0.1, 10, 0.2), np.arange(-4.9, 5, 0.2))
    seen = set(world.ground.label(np.column_stack([gx.ravel(), gy.ravel()]) @ rotation.T + (x, y)).tolist())
    for actor in world.actors:
        T, (length, width, _) = actor.pose_at(t_s), actor.size_m
        u, v = np.meshgrid(np.linspace(-0.45, 0.45, 5) * length, np.linspace(-0.45, 0.45, 3) * width)
        box = np.column_stack([u.ravel(), v.ravel()]) @ T[:2, :2].T + T[:2, 3]
        ahead = (box - (x, y)) @ rotation
        if ((ahead[:, 0] > 0) & (ahead[:, 0] < 10) & (np.abs(ahead[:, 1]) < 5)).any():
            seen.add(actor.label)
    return seen


def test_classes_are_as_frequent_as_on_real_walks() -> None:
    worlds = [make_world(1000 + seed, DISTRICTS[seed % 3], duration_s=6.0) for seed in range(30)]
    views = [in_view(world, t) for world in worlds for t in (0.0, 2.0, 4.0, 6.0)]
    share = {kind: np.mean([kind in view for view in views]) for kind in Sidewalk}
    assert share[Sidewalk.CURB] > 0.7
    assert share[Sidewalk.GUTTER] > 0.7
    assert share[Sidewalk.PERSON] > 0.6
    assert share[Sidewalk.VEHICLE] > 0.45
    for kind in (Sidewalk.CROSSWALK, Sidewalk.GRASS):
        assert 0.1 < share[kind] < 0.7
    for kind in (Sidewalk.CYCLIST, Sidewalk.ANIMAL):
        assert 0.03 < share[kind] < 0.5


def test_night_lights_lamps_and_headlights() -> None:
    night, day = (make_world(2, "commercial", dark, duration_s=8.0) for dark in (True, False))
    assert len(night.lighting.lamps_m) > 5
    assert night.lighting.lamp_power.min() > 0
    assert max(night.lighting.sun_colour) < 0.1 < 0.2 < min(day.lighting.sun_colour)
    assert any(len(actor.headlights_m) for actor in night.actors if actor.moves)
    assert not any(len(actor.headlights_m) for actor in day.actors)


def test_vehicles_of_a_lane_keep_apart_and_wait_at_crosswalks() -> None:
    starts, lengths, speeds = np.array([20.0, 8.0, -4.0]), np.array([4.0, 5.0, 4.0]), np.array([4.0, 9.0, 9.0])
    s = run_lane(starts, lengths, speeds, 1, [Stop(50.0, 4.0, 14.0)], 25.0)
    assert ((s[:, :-1] - s[:, 1:]) > 0.5 * (lengths[:-1] + lengths[1:])).all()
    waiting = s[40:140, 0]
    assert waiting.max() < 50.0 - 1.5 - 2.0
    assert s[-1, 0] > 60.0
    mirrored = run_lane(-starts, lengths, speeds, -1, [Stop(-50.0, 4.0, 14.0)], 25.0)
    np.testing.assert_allclose(mirrored, -s)


def test_picture_shows_the_robot_where_it_is() -> None:
    world = small_world("residential")
    x, y = world.robot.pose_at(1.0)[:2, 3]
    image = top_down(world, 1.0, (x, y), (6.0, 4.0), 20.0)
    assert image.shape == (80, 120, 3)
    ring = image[40, 60 - 8] if (image[40, 60 - 8] == (255, 0, 0)).all() else image[40, 60 + 8]
    assert tuple(ring.tolist()) == (255, 0, 0)
