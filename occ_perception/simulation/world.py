"""From a seed to a world: plan, furnish, populate, send the robot on its way, and drop who would touch it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from occ_perception.simulation import crowd, population, robot
from occ_perception.simulation.actors import Shape
from occ_perception.simulation.furnish import Site, furnish
from occ_perception.simulation.ground import Ground
from occ_perception.simulation.layout import Street, build_ground, plan_street
from occ_perception.simulation.objects import placed
from occ_perception.simulation.scene import DISTRICTS, EMBODIMENTS, Actor, District, Embodiment, Lighting, Motion, World
from occ_perception.simulation.solids import Array

SIGHT_M = 40.0
"""Actors that never come nearer to the robot than this are left out."""


def make_world(seed: int, district: District, night: bool = False, embodiment: Embodiment = "wheeled",
               duration_s: float = 30.0) -> World:
    """The world of a seed. Equal arguments give equal worlds, on every machine.

    Args:
        seed: any integer >= 0.
        district: 'touristy', 'residential' or 'commercial'.
        night: lamps and headlights instead of the sun.
        embodiment: body of the robot: decides its sway.
        duration_s: length of the robot's track.
    """
    rng = np.random.default_rng([seed, DISTRICTS.index(district), int(night), EMBODIMENTS.index(embodiment)])
    speed = float(rng.uniform(0.8, 1.5))
    street = plan_street(rng, district, max(40.0, speed * duration_s))
    site = Site(street, build_ground(street), night)
    furnish(rng, site)
    side = 1 if rng.random() < 0.5 else -1
    parked, standing = population.park(rng, site), population.stand(rng, site)

    route = robot.plan_route(rng, street, side)
    still = population.Standing(parked.shapes + standing.shapes, parked.at + standing.at)
    still_poses = [site.pose(s, d, turn) for s, d, turn in still.at]
    thing_boxes = [robot.footprints(site.ground, thing) for thing in site.things]
    still_boxes = [_footprint(site.ground, shape, T) for shape, T in zip(still.shapes, still_poses, strict=True)]
    path = robot.plan_path(rng, route, np.concatenate([*thing_boxes, *still_boxes]))
    things = [k for k, box in enumerate(thing_boxes) if _keeps_clear(path.points_m, box)]
    stays = [k for k, box in enumerate(still_boxes) if _keeps_clear(path.points_m, box)]

    shapes, walkers = population.draw_walkers(rng, site, side, path.points_m[0], speed, duration_s)
    boxes = np.concatenate([*(_around(thing_boxes[k]) for k in things), *(still_boxes[k] for k in stays)])
    run = crowd.run_crowd(walkers, _beside_walks(street, boxes), path, speed, duration_s)
    track = robot.track(rng, site.ground, path, run.times_s, run.progress_m, embodiment, duration_s)
    robot_sd = path.at(run.progress_m)

    moving: list[tuple[Shape, Motion]] = []
    for k, shape in enumerate(shapes):
        if _meets(run.walkers_m[:, k], robot_sd, 0.5 * shape.size_m[0] + track.footprint_radius_m):
            moving.append((shape, _walk(site.ground, run.times_s, run.walkers_m[:, k], walkers.direction[k])))
    stops = _crosswalks_in_use(street, run.times_s, [robot_sd, *(run.walkers_m[:, k] for k in range(len(shapes)))])
    reach = float(robot_sd[-1, 0]) + SIGHT_M
    for shape, s, d, way in population.draw_traffic(rng, site, stops, duration_s, night, reach):
        line = np.column_stack([s, d])
        if _meets(line, robot_sd, 0.5 * shape.size_m[0] + 1.0):
            moving.append((shape, _walk(site.ground, run.times_s, line, np.array([float(way), 0.0]))))

    actors = [_actor(k + 1, shape, motion) for k, (shape, motion) in enumerate([
        *((still.shapes[k], _stand(still_poses[k])) for k in stays), *moving])]
    static = tuple(solid for k in things for solid in site.things[k])
    return World(seed, district, night, embodiment, site.ground, static, tuple(actors), track,
                 _lighting(rng, night, site.lamps_m))


def _footprint(ground: Ground, shape: Shape, T_world_actor: Array) -> Array:
    """One box [1, 4] around the parts of a standing actor."""
    return _around(robot.footprints(ground, placed(shape.solids, T_world_actor)))


def _around(boxes: Array) -> Array:
    """The box [1, 4] around those of one thing that are below head height."""
    low = boxes[boxes[:, 0] < 1e5]
    return np.array([[low[:, 0].min(), low[:, 1].max(), low[:, 2].min(), low[:, 3].max()]]) if len(low) else low


def _keeps_clear(path: Array, boxes: Array) -> bool:
    return bool(robot.distances(path[::2], boxes).min() > robot.FOOTPRINT_M + 0.05)


def _beside_walks(street: Street, boxes: Array) -> Array:
    """The boxes that walkers may meet: those over a walk."""
    e = np.abs(boxes[:, 2:]) - street.half_width_m
    return np.asarray(boxes[(e.max(axis=1) > 0.0) & (e.min(axis=1) < street.walk_outer_m)])


def _meets(line: Array, robot_sd: Array, touch_m: float) -> bool:
    """Whether an actor is ever in sight of the robot and never touches it."""
    nearest = float(np.linalg.norm(line - robot_sd, axis=1).min())
    return touch_m < nearest < SIGHT_M


def _walk(ground: Ground, times: Array, line_sd: Array, facing: Array) -> Motion:
    """A motion on the ground that looks where it goes, and keeps its heading while it waits."""
    smooth = gaussian_filter1d(line_sd, 1.5, axis=0, mode="nearest")
    xy = ground.to_world(smooth)
    velocity = gaussian_filter1d(np.gradient(xy, times, axis=0), 3.0, axis=0) + 0.15 * facing
    yaw = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
    return Motion(times, np.column_stack([xy, ground.height_m(xy)]), yaw)


def _stand(T_world_actor: Array) -> Motion:
    yaw = float(np.arctan2(T_world_actor[1, 0], T_world_actor[0, 0]))
    return Motion(np.zeros(1), T_world_actor[None, :3, 3], np.array([yaw]))


def _actor(track_id: int, shape: Shape, motion: Motion) -> Actor:
    lamps = shape.headlights_m if shape.headlights_m is not None else np.zeros((0, 3))
    return Actor(track_id, int(shape.label), shape.solids, shape.size_m, motion,
                 shape.swing if len(motion.times_s) > 1 else None, headlights_m=lamps)


def _crosswalks_in_use(street: Street, times: Array, lines: list[Array]) -> list[crowd.Stop]:
    """For every crosswalk over the street, when somebody is on it or about to step on it."""
    stops = []
    for s in street.main_crosswalks_m:
        for line in lines:
            on = (np.abs(line[:, 0] - s) < 2.2) & (np.abs(line[:, 1]) < street.half_width_m + 0.4)
            if on.any():
                stops.append(crowd.Stop(s, float(times[on][0]), float(times[on][-1])))
    return stops


def _lighting(rng: np.random.Generator, night: bool, lamps: list[Array]) -> Lighting:
    azimuth = float(rng.uniform(0, 2 * np.pi))
    elevation = float(rng.uniform(0.35, 1.25))
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    heads = np.array(lamps).reshape(-1, 3)
    if night:
        return Lighting(True, sun, (0.03, 0.035, 0.05), (0.05, 0.055, 0.075), (0.02, 0.025, 0.05), heads,
                        rng.uniform(5.0, 9.0, len(heads)))
    cloud = float(rng.random())
    warm = 0.25 * (1.0 - (elevation - 0.35) / 0.9)
    strength = 1.0 - 0.75 * cloud
    blue = 1.0 - cloud
    return Lighting(False, sun, (strength, strength * (1 - 0.4 * warm), strength * (1 - warm)),
                    (0.42 + 0.1 * cloud, 0.44 + 0.1 * cloud, 0.5 + 0.06 * cloud),
                    (0.8 - 0.3 * blue, 0.84 - 0.15 * blue, 0.88 + 0.04 * blue), heads, np.zeros(len(heads)))


__all__ = ["DISTRICTS", "EMBODIMENTS", "make_world"]
