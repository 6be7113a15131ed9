"""The triangles of a world with what is painted on them, and rays through them (Embree).

Static matter is one Embree scene per world; what moves is a small second scene, rebuilt for every instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.simulation.ground import Ground
from occ_perception.simulation.scene import Actor, World
from occ_perception.simulation.shading import rays_meet_spheres, transformed
from occ_perception.simulation.solids import Solid

KINDS = {"ground": 0, "box": 1, "cylinder": 2, "ellipsoid": 3}
NO_HIT = -1


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Triangles float32 [T, 3, 3] in the world, and per triangle: label, texture, colour, glow, track id, frame.

    `frame` indexes the solid a triangle belongs to: `to_solid` float32 [F, 12] (row-major 3x4, world to solid),
    `kind` uint8 [F] of `KINDS`, `half_m` float32 [F, 3]. Patterns and smooth normals live in that frame.
    """

    triangles: NDArray[np.float32]
    label: NDArray[np.uint8]
    texture: NDArray[np.uint8]
    colour: NDArray[np.float32]
    glow: NDArray[np.float32]
    track_id: NDArray[np.uint32]
    frame: NDArray[np.int32]
    to_solid: NDArray[np.float32]
    kind: NDArray[np.uint8]
    half_m: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.triangles)


def join(parts: Sequence[Surfaces]) -> Surfaces:
    """All of them, one behind the other."""
    first_frame = np.cumsum([0, *(len(part.kind) for part in parts)])
    joined = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in parts[0].__dict__ if name != "frame"}
    frames = [part.frame + np.int32(first) for part, first in zip(parts, first_frame, strict=False)]
    return Surfaces(frame=np.concatenate(frames), **joined)


def ground_surfaces(ground: Ground) -> Surfaces:
    """The ground; its one frame is the world."""
    mesh = ground.mesh()
    n = len(mesh.triangles)
    return Surfaces(mesh.vertices[mesh.triangles].astype(np.float32), mesh.labels, mesh.textures, mesh.colours,
                    np.zeros(n, np.float32), np.zeros(n, np.uint32), np.zeros(n, np.int32),
                    np.eye(4, dtype=np.float32)[:3].reshape(1, 12), np.zeros(1, np.uint8), np.ones((1, 3), np.float32))


class SolidShapes:
    """Solids as arrays that do not depend on where they are. `track_ids` are 0 for what is not countable."""

    def __init__(self, solids: Sequence[Solid], track_ids: Sequence[int]) -> None:
        meshes = [solid.mesh() for solid in solids]
        local = [vertices[faces].reshape(-1, 3) for vertices, faces in meshes]
        counts = [len(faces) for _, faces in meshes]
        owner = np.repeat(np.arange(len(solids), dtype=np.int32), counts)
        self._local_m = np.concatenate([*local, np.zeros((0, 3))])  # [3 T, 3]
        self._owner = owner
        self._looks: dict[str, Any] = {
            "label": np.array([s.label for s in solids], np.uint8)[owner],
            "texture": np.array([s.texture for s in solids], np.uint8)[owner],
            "colour": np.array([s.colour for s in solids], np.float32).reshape(-1, 3)[owner],
            "glow": np.array([s.glow for s in solids], np.float32)[owner],
            "track_id": np.array(track_ids, np.uint32)[owner],
            "frame": owner,
            "kind": np.array([KINDS[s.kind] for s in solids], np.uint8),
            "half_m": 0.5 * np.array([s.size_m for s in solids], np.float32).reshape(-1, 3),
        }

    def placed(self, poses: NDArray[np.float64]) -> Surfaces:
        """Their triangles at T_world_solid [S, 4, 4]."""
        poses = np.asarray(poses, float).reshape(-1, 4, 4)
        rotation, shift = poses[:, :3, :3], poses[:, :3, 3]
        back = rotation.transpose(0, 2, 1)
        to_solid = np.concatenate([back, -back @ shift[:, :, None]], axis=2)
        corners = transformed(self._local_m, np.repeat(self._owner, 3), rotation, shift)
        return Surfaces(triangles=corners.reshape(-1, 3, 3), to_solid=to_solid.reshape(-1, 12).astype(np.float32),
                        **self._looks)


class ActorShapes:
    """An actor as arrays; only its pose is computed for every instant."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self._solids = SolidShapes(actor.solids, [actor.track_id] * len(actor.solids))

    def at(self, time_s: float) -> Surfaces:
        """All its parts where they are at `time_s`."""
        return self._solids.placed(self.actor.pose_at(time_s) @ self.actor.part_poses(time_s))


class Caster:
    """Rays through triangles [T, 3, 3]; an empty set is fine."""

    def __init__(self, triangles: NDArray[np.float32]) -> None:
        # embreex comes with the extra `train`; a robot never renders
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene() if len(triangles) else None
        if self._scene is not None:
            TriangleMesh(self._scene, np.ascontiguousarray(triangles, np.float32))

    def cast(self, origins: NDArray[np.float32], directions: NDArray[np.float32]
             ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Range along unit directions [N, 3] (inf where nothing is hit) and triangle [N] (-1 there)."""
        if self._scene is None or not len(directions):
            return np.full(len(directions), np.inf, np.float32), np.full(len(directions), NO_HIT, np.int32)
        hits = self._scene.run(origins, directions, output=1)
        index = hits["primID"]
        return np.where(index >= 0, hits["tfar"], np.float32(np.inf)), index

    def blocked(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether anything lies on each ray [N]."""
        if self._scene is None or not len(directions):
            return np.zeros(len(directions), np.bool_)
        return np.asarray(self._scene.run(origins, directions, query="OCCLUDED") >= 0)


class WorldCaster:
    """Rays through a world at any instant."""

    def __init__(self, world: World) -> None:
        static = SolidShapes(world.static, [0] * len(world.static))
        shapes = [ActorShapes(actor) for actor in world.actors]
        self._moving = [s for s in shapes if s.actor.moves]
        standing = [s.at(0.0) for s in shapes if not s.actor.moves]  # limbs swing only when somebody walks
        poses = np.array([solid.T_parent_solid for solid in world.static])
        self._fixed = join([ground_surfaces(world.ground), static.placed(poses), *standing])
        self._fixed_caster = Caster(self._fixed.triangles)

    def at(self, time_s: float, centre_m: NDArray[np.float64], radius_m: float = 60.0) -> Instant:
        """The world at `time_s`; moving actors beyond `radius_m` of `centre_m` (x, y) are left out."""
        near = [shapes for shapes in self._moving
                if np.hypot(*(shapes.actor.pose_at(time_s)[:2, 3] - centre_m[:2]))
                < radius_m + max(shapes.actor.size_m)]
        surfaces = join([self._fixed, *(shapes.at(time_s) for shapes in near)])
        first = len(self._fixed)
        return Instant(surfaces, first, self._fixed_caster, Caster(surfaces.triangles[first:]),
                       _spheres([shapes.actor for shapes in near], time_s))


def _spheres(actors: Sequence[Actor], time_s: float) -> NDArray[np.float32]:
    """Bounding spheres (centre, radius) of actors, [N, 4]; limbs may swing 0.4 m out of the box."""
    spheres = np.zeros((len(actors), 4), np.float32)
    for row, actor in zip(spheres, actors, strict=True):
        row[:3] = actor.pose_at(time_s)[:3, 3] + (0.0, 0.0, actor.size_m[2] / 2)
        row[3] = 0.5 * np.linalg.norm(actor.size_m) + 0.4
    return spheres


@dataclass(frozen=True, eq=False)
class Instant:
    """A world frozen at one time: `surfaces` with the moving triangles from `first_moving` on."""

    surfaces: Surfaces
    first_moving: int
    fixed: Caster
    moving: Caster
    spheres: NDArray[np.float32]

    def cast(self, origins: NDArray[np.float32], directions: NDArray[np.float32]
             ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Range [N] (inf: nothing) and triangle of `surfaces` [N] (-1: nothing) on unit rays [N, 3]."""
        range_m, index = self.fixed.cast(origins, directions)
        rows = np.flatnonzero(rays_meet_spheres(origins, directions, self.spheres))
        if len(rows):
            moving_m, moving_index = self.moving.cast(origins[rows], directions[rows])
            nearer = moving_m < range_m[rows]
            range_m[rows[nearer]] = moving_m[nearer]
            index[rows[nearer]] = moving_index[nearer] + self.first_moving
        return range_m, index

    def blocked(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether anything lies on each ray [N]."""
        blocked = self.fixed.blocked(origins, directions)
        rows = np.flatnonzero(rays_meet_spheres(origins, directions, self.spheres) & ~blocked)
        blocked[rows] = self.moving.blocked(origins[rows], directions[rows])
        return blocked
