"""The interactive view: exactly the faces that can be seen, every class that is there, and clear words otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from occ_perception.errors import RecordingError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.recordings import BagWriter, MessageEncoder
from occ_perception.recordings.messages import make
from occ_perception.replay.viewer import class_surface, grids_of, write_view
from occ_perception.taxonomy import UNKNOWN, Sidewalk
from occ_perception.types import VoxelGrid

SPEC = VoxelGridSpec((0, -1, 0), (2, 1, 1), 0.5)


def grid(stamp_ns: int = 0) -> VoxelGrid:
    labels = np.zeros(SPEC.shape, np.uint8)
    labels[1, 1, 0], labels[2, 1, 0], labels[0, 0, 0] = Sidewalk.PERSON, Sidewalk.WALL, UNKNOWN
    return VoxelGrid(SPEC, stamp_ns, labels)


def bag(folder: Path, topics: int = 1) -> Path:
    path = folder / "grids.mcap"
    with BagWriter(path) as writer:
        for stamp_ns in range(0, 5_000_000_000, 1_000_000_000):
            for number in range(topics):
                writer.write(f"/voxels{number}", stamp_ns, MessageEncoder(make).voxel_grid(grid(stamp_ns)))
    return path


def test_the_face_between_two_solid_cells_is_left_out():
    vertices, triangles = class_surface(grid().labels, Sidewalk.PERSON, SPEC)
    assert len(triangles) == 2 * 5
    assert vertices.min(0).tolist() == [0.5, -0.5, 0.0]
    assert vertices.max(0).tolist() == [1.0, 0.0, 0.5]


def test_faces_look_outwards():
    vertices, triangles = class_surface(grid().labels, Sidewalk.PERSON, SPEC)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    outwards = (a + b + c) / 3 - [0.75, -0.25, 0.25]
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), outwards) > 0).all()


def test_grids_are_spread_over_the_bag(tmp_path):
    assert [g.stamp_ns for g in grids_of(bag(tmp_path), None, 3)] == [0, 2_000_000_000, 4_000_000_000]


def test_a_bag_with_several_grids_asks_which_and_one_without_says_what_to_record(tmp_path):
    with pytest.raises(RecordingError, match="--topic: /voxels0, /voxels1"):
        grids_of(bag(tmp_path, topics=2), None, 1)
    with pytest.raises(RecordingError, match="/voxels9"):
        grids_of(bag(tmp_path / "other"), "/voxels9", 1)


def test_the_page_holds_the_classes_that_are_there_and_nothing_is_left_beside_it(tmp_path):
    pytest.importorskip("plotly", reason="needs the extra viz")
    write_view([grid(0), grid(1_000_000_000)], tmp_path / "view.html")
    page = (tmp_path / "view.html").read_text()
    assert '"name":"person"' in page
    assert "1.0 s" in page
    assert [p.name for p in tmp_path.iterdir()] == ["view.html"]
