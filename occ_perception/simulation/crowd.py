"""Who moves, and how: walkers that keep clear of each other and of the robot, a robot that yields, cars in lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occ_perception.simulation.robot import FOOTPRINT_M, Path, distances
from occ_perception.simulation.solids import Array

STEP_S = 0.1


@dataclass(frozen=True, eq=False)
class Walkers:
    """Agents that walk along lines in street coordinates; arrays over the N agents.

    Attributes:
        start_m: [N, 2] position at t = 0.
        direction: [N, 2] unit vector of their line.
        speed_mps: [N] wish.
        radius_m: [N].
        band_m: [N, 2] lowest and highest d they may take (ignored by those who cross the street).
    """

    start_m: Array
    direction: Array
    speed_mps: Array
    radius_m: Array
    band_m: Array


@dataclass(frozen=True, eq=False)
class CrowdRun:
    """What happened: times [T], walkers [T, N, 2] in street coordinates, the robot's progress [T] along its path."""

    times_s: Array
    walkers_m: Array
    progress_m: Array


def run_crowd(walkers: Walkers, boxes: Array, path: Path, robot_speed_mps: float, duration_s: float) -> CrowdRun:
    """Walk everybody for `duration_s`: wishes, repulsion from where others will be soon, walls; the robot yields."""
    times = np.arange(int(np.ceil(duration_s / STEP_S)) + 2) * STEP_S
    n = len(walkers.start_m)
    position, velocity = walkers.start_m.copy(), walkers.direction * walkers.speed_mps[:, None]
    left = np.column_stack([-walkers.direction[:, 1], walkers.direction[:, 0]])
    radius = np.concatenate([walkers.radius_m, [FOOTPRINT_M + 0.25]])
    reach = radius[:n, None] + radius[None, :]
    # Everybody looks further ahead for the robot than for each other.
    sight = np.array([3.5] * n + [6.0])
    along_street = np.abs(walkers.direction[:, 0]) > 0.5
    progress, speed = 0.0, robot_speed_mps
    positions, lengths = np.zeros((len(times), n, 2)), np.zeros(len(times))
    ends = path.at(np.array([0.0, 0.1]))
    heading, robot = (ends[1] - ends[0]) / 0.1, ends[0]
    for step in range(len(times)):
        positions[step], lengths[step] = position, progress
        now = np.vstack([position, robot])
        speeds = np.vstack([velocity, heading * speed])
        offset = now[None] - position[:, None]
        soon = offset + 0.7 * (speeds[None] - velocity[:, None])
        offset[np.arange(n), np.arange(n)] = soon[np.arange(n), np.arange(n)] = 1e3
        push = np.zeros((n, 2))
        for gap, strength in ((offset, 2.2), (soon, 1.3)):
            distance = np.linalg.norm(gap, axis=2)
            force = strength * np.exp(-np.clip(distance - reach, -0.3, None) / 0.25)
            push -= (gap * (force / np.maximum(distance, 0.05))[..., None] * (distance < 3.0)[..., None]).sum(axis=1)
        # Head-on meetings: step aside, to the right when in doubt.
        ahead = np.einsum("nmk,nk->nm", offset, walkers.direction)
        aside = np.einsum("nmk,nk->nm", offset, left)
        meeting = (ahead > 0) & (ahead < sight) & (np.abs(aside) < reach + 0.15)
        dodge = np.where(aside > -0.1, -1.0, 1.0) * meeting * (1.2 - ahead / sight)
        wish = np.clip(np.einsum("nk,nk->n", walkers.start_m - position, left), -0.6, 0.6) * 0.7
        lateral = np.clip(wish + 0.8 * dodge[:, :n].sum(axis=1) + 1.2 * dodge[:, n], -0.8, 0.8)
        if len(boxes):
            margin = distances(position, boxes) - walkers.radius_m[:, None]
            nearest = margin.argmin(axis=1)
            box = boxes[nearest]
            closest = np.column_stack([np.clip(position[:, 0], box[:, 0], box[:, 1]),
                                       np.clip(position[:, 1], box[:, 2], box[:, 3])])
            away = position - closest
            away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 0.05)
            push += away * (2.0 * np.exp(-np.clip(margin.min(axis=1), -0.2, None) / 0.15))[:, None]
        inside = np.clip(position[:, 1], walkers.band_m[:, 0], walkers.band_m[:, 1])
        push[:, 1] += np.where(along_street, 4.0 * np.clip(inside - position[:, 1], -1, 1), 0.0)
        target = walkers.direction * walkers.speed_mps[:, None] + left * lateral[:, None] + push
        target *= np.minimum(1.0, (1.35 * walkers.speed_mps + 0.2) / np.maximum(np.linalg.norm(target, axis=1), 1e-6)
                             )[:, None]
        velocity += (target - velocity) * (STEP_S / 0.35)
        position = position + velocity * STEP_S
        speed = _yield(speed, robot_speed_mps, position - robot, velocity, heading, walkers.radius_m)
        progress = min(progress + speed * STEP_S, float(path.length_m[-1]) - 0.2)
        ends = path.at(np.array([progress, progress + 0.1]))
        heading, robot = (ends[1] - ends[0]) / 0.1, ends[0]
    return CrowdRun(np.asarray(times, float), positions, lengths)


def _yield(speed: float, wish: float, offset: Array, velocity: Array, heading: Array, radius: Array) -> float:
    """The robot's next speed: it slows for who is, or within 0.8 s will be, in the 2.5 m ahead of it."""
    free = 10.0
    for seconds in (0.0, 0.4, 0.8):
        there = offset + seconds * velocity
        ahead = there @ heading
        aside = np.abs(there @ np.array([-heading[1], heading[0]]))
        blocking = (ahead > 0.0) & (aside < FOOTPRINT_M + radius)
        free = min(free, float(np.where(blocking, ahead - FOOTPRINT_M - radius, 10.0).min(initial=10.0)))
    target = wish * float(np.clip((free - 0.1) / 1.0, 0.0, 1.0))
    return float(np.clip(target, speed - 2.5 * STEP_S, speed + 0.8 * STEP_S))


@dataclass(frozen=True, eq=False)
class Stop:
    """A crosswalk at `s_m` that vehicles must leave free between two times."""

    s_m: float
    from_s: float
    until_s: float


def run_lane(starts_m: Array, lengths_m: Array, speeds_mps: Array, direction: int, stops: list[Stop],
             duration_s: float) -> Array:
    """Positions s [T, N] of the vehicles of one lane: each follows the one before it and waits at crosswalks.

    Args:
        starts_m: s at t = 0, [N], the leader first.
        lengths_m, speeds_mps: of each vehicle.
        direction: +1 or -1 along s.
        stops: crosswalks in use.
        duration_s: how long; one row each STEP_S.
    """
    steps = int(np.ceil(duration_s / STEP_S)) + 2
    out = np.zeros((steps, len(starts_m)))
    for k in range(len(starts_m)):
        x, v = direction * float(starts_m[k]), float(speeds_mps[k])
        for step in range(steps):
            out[step, k] = direction * x
            t, room = step * STEP_S, 1e3
            if k:
                room = direction * out[step, k - 1] - x - 0.5 * float(lengths_m[k] + lengths_m[k - 1]) - 1.5
            for stop in stops:
                gap = direction * stop.s_m - x - 0.5 * float(lengths_m[k]) - 2.2
                if stop.from_s - 4.0 < t < stop.until_s and gap > -0.8:
                    room = min(room, gap)
            allowed = np.sqrt(2.0 * 2.0 * max(room, 0.0))
            v = min(float(speeds_mps[k]), float(allowed), v + 1.5 * STEP_S)
            x += v * STEP_S
    return out
