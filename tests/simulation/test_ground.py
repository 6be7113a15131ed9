"""Heights and labels of the ground are those of its triangles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ShapeError
from occ_perception.simulation.ground import Ground


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_ground_heights_and_labels_are_those_of_the_triangle_above_the_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, d = np.cumsum(rng.uniform(0.05, 2.0, 6)), np.cumsum(rng.uniform(0.02, 2.0, 5))
    ground = Ground(s, d, rng.normal(0, 0.5, 6), rng.normal(0, 0.3, (6, 5)),
                    rng.integers(1, 14, (5, 4)).astype(np.uint8), np.zeros((5, 4, 3), np.float32),
                    np.zeros((5, 4), np.uint8))
    mesh = ground.mesh()
    xy = ground.to_world(np.column_stack([rng.uniform(s[0], s[-1], 20), rng.uniform(d[0], d[-1], 20)]))
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    for point, z, label in zip(xy, ground.height_m(xy), ground.label(xy), strict=True):
        def cross(p: np.ndarray, q: np.ndarray, at: np.ndarray = point) -> np.ndarray:
            return (q[:, 0] - p[:, 0]) * (at[1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (at[0] - p[:, 0])
        weights = np.stack([cross(b, c), cross(c, a), cross(a, b)], 1)
        area = weights.sum(1)
        assert (area > 0).all()  # every triangle faces up
        hit = int((weights.min(1) / area).argmax())
        assert weights[hit].min() / area[hit] > -1e-9
        expected = weights[hit] / area[hit] @ np.array([a[hit, 2], b[hit, 2], c[hit, 2]])
        assert z == pytest.approx(expected, abs=1e-9)
        assert label == mesh.labels[hit]


def test_ground_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="grid lines"):
        Ground(np.arange(3.0), np.arange(3.0), np.zeros(3), np.zeros((2, 3)), np.zeros((2, 2), np.uint8),
               np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.uint8))
