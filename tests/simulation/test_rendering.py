"""Pictures and their truth agree with the world that was looked at."""

from __future__ import annotations

from collections.abc import Callable

import embreex  # noqa: F401
import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.geometry import se3
from occ_perception.simulation.rendering import CameraView
from occ_perception.simulation.scene import Actor, World
from occ_perception.simulation.sim import SidewalkSim
from occ_perception.taxonomy import OCCLUSION, Sidewalk

LENSES = {
    "pinhole": ((110.0, 110.0, 119.5, 67.5, -0.05, 0.01, 0.0, 0.0, 0.0), None),
    "equidistant": ((82.0, 82.0, 119.5, 67.5, -0.012, 0.004, -0.0015, 0.0002), 1.4),
    "mei": ((150.0, 150.0, 119.5, 67.5, 0.9, -0.02, 0.005, 0.0, 0.0), 1.3),
    "double_sphere": ((72.0, 72.0, 119.5, 67.5, -0.12, 0.58), 1.35),
}


def points_of(rig: Rig, view: CameraView) -> np.ndarray:
    """Every pixel's point in the base frame, [H, W, 3]."""
    camera = rig.cameras[0]
    return se3.apply(camera.T_base_camera, np.nan_to_num(camera.camera.rays()) * view.range_m[..., None])


@pytest.mark.parametrize("model", LENSES)
def test_range_along_the_ray_puts_every_pixel_on_its_solid_with_any_lens(
        make_yard: Callable[..., World], make_rig: Callable[..., Rig], model: str) -> None:
    world, rig = make_yard(), make_rig(model, *LENSES[model])
    view = SidewalkSim(world, rig).view("front", 0.0)
    points = points_of(rig, view)
    for solid in world.static:
        on_it = points[view.semantics == solid.label] - solid.T_parent_solid[:3, 3]
        assert len(on_it) > 50
        assert np.abs(solid.signed_distance_m(on_it)).max() < 2e-3
    ground = points[view.semantics == Sidewalk.SIDEWALK]
    assert np.abs(ground[:, 2]).max() < 2e-3


def test_pixels_outside_the_lens_are_black_and_labelled_occlusion(make_yard: Callable[..., World],
                                                                  small_rig: Rig) -> None:
    view = SidewalkSim(make_yard(), small_rig).view("front", 0.0)
    outside = np.isnan(small_rig.cameras[0].camera.rays()[..., 0])
    assert 0.02 < outside.mean() < 0.5
    assert (view.image[outside] == 0).all()
    assert (view.semantics[outside] == OCCLUSION).all()
    assert (view.range_m[outside] == 0).all()
    assert not (view.semantics[~outside] == OCCLUSION).any()
    sky = view.semantics == 0
    assert sky.any()
    assert (view.range_m[sky] == 0).all()
    assert view.image[sky].mean() > 60


def test_track_ids_mark_exactly_the_pixels_of_things(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig) -> None:
    world = make_yard(actors=[make_walker(7, (3.0, 0.5), (3.0, 0.5)), make_walker(31, (4.0, -1.0), (4.0, 1.0))])
    view = SidewalkSim(world, small_rig).view("front", 1.0)
    assert set(np.unique(view.track_ids)) == {0, 7, 31}
    assert ((view.track_ids > 0) == (view.semantics == Sidewalk.PERSON)).all()


def test_a_moving_person_moves_in_the_picture(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig) -> None:
    sim = SidewalkSim(make_yard([], [make_walker(3, (4.0, 2.0), (4.0, -2.0))]), small_rig)
    columns = [np.argwhere(sim.view("front", t).track_ids == 3)[:, 1].mean() for t in (1.0, 5.0, 9.0)]
    assert columns[0] < 100 < columns[1] < 140 < columns[2]


def test_things_cast_shadows_away_from_the_sun(make_yard: Callable[..., World], small_rig: Rig) -> None:
    bright = SidewalkSim(make_yard([]), small_rig).view("front", 0.0)
    world = make_yard([make_yard().static[0]])
    shaded = SidewalkSim(world, small_rig).view("front", 0.0)
    points = points_of(small_rig, shaded)
    sun = world.lighting.sun_direction
    foot = np.array([5.0, 2.0]) - 0.9 * sun[:2] / sun[2]  # on the ground, in the shadow of the box's upper part
    near = (shaded.semantics == Sidewalk.SIDEWALK) & (np.linalg.norm(points[..., :2] - foot, axis=-1) < 0.15)
    assert near.sum() >= 3
    assert shaded.image[near].mean() < 0.8 * bright.image[near].mean()


def test_nights_are_dark_but_for_the_lamps(make_yard: Callable[..., World], small_rig: Rig) -> None:
    day = SidewalkSim(make_yard([]), small_rig).view("front", 0.0)
    world = make_yard([], night=True, lamps_m=[(4.0, 0.0, 4.0)])
    view = SidewalkSim(world, small_rig).view("front", 0.0)
    points = points_of(small_rig, view)
    ground = view.semantics == Sidewalk.SIDEWALK
    below = ground & (np.linalg.norm(points[..., :2] - (4.0, 0.0), axis=-1) < 1.0)
    away = ground & (np.linalg.norm(points[..., :2] - (4.0, 0.0), axis=-1) > 9.0)
    assert view.image[ground].mean() < 0.8 * day.image[ground].mean()
    assert view.image[below].mean() > 1.5 * view.image[away].mean()


def test_noise_repeats_for_equal_seeds_and_differs_from_frame_to_frame(make_yard: Callable[..., World],
                                                                       small_rig: Rig) -> None:
    world = make_yard()
    first, again = (SidewalkSim(world, small_rig).view("front", 0.5).image for _ in range(2))
    other_seed = SidewalkSim(world, small_rig, seed=99).view("front", 0.5).image
    later = SidewalkSim(world, small_rig).view("front", 0.6).image  # the robot stands still
    assert (first == again).all()
    assert (first != other_seed).mean() > 0.2
    assert (first != later).mean() > 0.2
    assert np.abs(first.astype(int) - other_seed).mean() < 8
