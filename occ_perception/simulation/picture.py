"""A picture of a world from above, for people who change it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.simulation.scene import World
from occ_perception.simulation.solids import Array, Solid
from occ_perception.taxonomy import SIDEWALK, Sidewalk


def top_down(world: World, t_s: float, centre_m: tuple[float, float], extent_m: tuple[float, float],
             pixels_per_m: float = 20.0) -> NDArray[np.uint8]:
    """RGB [H, W, 3] of labels from above at t_s, x to the right, y up; the robot's way white, its footprint red.

    Args:
        world: what to draw.
        t_s: instant.
        centre_m: world (x, y) of the picture's centre.
        extent_m: width and height shown.
        pixels_per_m: scale.
    """
    palette = SIDEWALK.palette()
    width, height = int(extent_m[0] * pixels_per_m), int(extent_m[1] * pixels_per_m)
    corner = np.array([centre_m[0] - 0.5 * extent_m[0], centre_m[1] + 0.5 * extent_m[1]])

    def pixel(xy: Array) -> NDArray[np.int32]:
        return np.asarray(np.round((xy - corner) * (pixels_per_m, -pixels_per_m)), np.int32)

    u, v = np.meshgrid(np.arange(width), np.arange(height))
    xy = np.stack([u.ravel() / pixels_per_m, -v.ravel() / pixels_per_m], 1) + corner
    height_m = world.ground.height_m(xy) - np.median(world.ground.height_m(xy))
    shade = np.clip(0.55 + 1.2 * height_m, 0.3, 1.0)
    image = (palette[world.ground.label(xy)] * shade[:, None]).astype(np.uint8).reshape(height, width, 3)
    solids: list[tuple[Solid, Array]] = [(solid, solid.T_parent_solid) for solid in world.static]
    for actor in world.actors:
        T = actor.pose_at(t_s)
        solids += [(solid, T @ part) for solid, part in zip(actor.solids, actor.part_poses(t_s), strict=True)]
    for solid, T in sorted(solids, key=lambda item: float(item[1][2, 3])):
        vertices, _ = solid.mesh()
        points = vertices @ T[:3, :3].T + T[:3, 3]
        hull = cv2.convexHull(pixel(points[:, :2]))
        if solid.label == Sidewalk.TREES and solid.kind == "ellipsoid":
            cv2.polylines(image, [hull], True, palette[solid.label].tolist(), 1)
        else:
            cv2.fillConvexPoly(image, hull, palette[solid.label].tolist())
            cv2.polylines(image, [hull], True, (0, 0, 0), 1)
    way = pixel(world.robot.motion.xyz_m[::10, :2])
    cv2.polylines(image, [way[:, None]], False, (255, 255, 255), 1)
    here = world.robot.pose_at(t_s)
    centre = [int(c) for c in pixel(here[None, :2, 3])[0]]
    cv2.circle(image, centre, int(world.robot.footprint_radius_m * pixels_per_m), (255, 0, 0), 2)
    view = np.array([[0, -5], [10, -5], [10, 5], [0, 5]]) @ here[:2, :2].T + here[:2, 3]
    cv2.polylines(image, [pixel(view)[:, None]], True, (255, 0, 0), 1)
    return image
