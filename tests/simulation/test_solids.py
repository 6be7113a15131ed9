"""Primitives and their meshes are the same surface."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import ShapeError
from occ_perception.simulation.solids import Kind, Solid
from occ_perception.taxonomy import Sidewalk

TRIANGLES: dict[Kind, int] = {"box": 12, "cylinder": 44, "ellipsoid": 80}


def solid(kind: Kind, size: tuple[float, float, float]) -> Solid:
    return Solid(kind, size, np.eye(4), int(Sidewalk.OBSTACLE), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("kind", TRIANGLES)
def test_mesh_is_closed_wound_outwards_and_lies_on_the_analytic_surface(kind: Kind) -> None:
    primitive = solid(kind, (1.2, 0.7, 2.0))
    vertices, triangles = primitive.mesh()
    assert len(triangles) == TRIANGLES[kind]
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    volume = np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6.0
    exact = 1.2 * 0.7 * 2.0 * {"box": 1.0, "cylinder": np.pi / 4, "ellipsoid": np.pi / 6}[kind]
    assert 0.85 * exact < volume <= exact * (1 + 1e-9)
    np.testing.assert_allclose(primitive.signed_distance_m(vertices), 0.0, atol=1e-9)


def test_signed_distance_of_box_and_round_cylinder_is_exact() -> None:
    box = solid("box", (2.0, 4.0, 6.0))
    np.testing.assert_allclose(box.signed_distance_m([[0, 0, 0], [4, 6, 0], [0.5, 0, 0]]), [-1.0, 5.0, -0.5])
    cylinder = solid("cylinder", (2.0, 2.0, 4.0))
    np.testing.assert_allclose(cylinder.signed_distance_m([[3, 4, 0], [4, 0, 6], [0, 0, 1.9]]), [4.0, 5.0, -0.1])


def test_ellipsoid_separates_inside_from_outside() -> None:
    ellipsoid = solid("ellipsoid", (2.0, 1.0, 4.0))
    p = np.random.default_rng(0).uniform(-2.5, 2.5, (500, 3))
    inside = (p**2 / np.array([1.0, 0.25, 4.0])).sum(1) < 1
    assert ((ellipsoid.signed_distance_m(p) < 0) == inside).all()
    assert ellipsoid.signed_distance_m(np.zeros((1, 3)))[0] < 0


def test_solid_refuses_sizes_that_are_not_positive() -> None:
    with pytest.raises(ShapeError, match="positive sizes"):
        solid("box", (1.0, 0.0, 1.0))
