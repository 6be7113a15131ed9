"""An interactive page of voxel grids (plotly, extra `viz`): turn, zoom, switch classes off, slide through time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import RecordingError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Taxonomy, get_taxonomy
from occ_perception.types import VoxelGrid

GRID_TYPE = "occ_perception_msgs/msg/VoxelGrid"

# Corners of the face of a unit cell across each axis, counter-clockwise seen from the high side.
_FACES = np.array([
    [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
    [[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]],
    [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
])


def class_surface(labels: NDArray[np.uint8], label: int, spec: VoxelGridSpec,
                  ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The outer faces of all cells of one label: those that border on free or unknown space, or on the grid's hull.

    Args:
        labels: uint8 [nx, ny, nz].
        label: class id.
        spec: the grid.

    Returns:
        Vertices [V, 3] in metres and triangles [T, 3], two a face.
    """
    solid = (labels != FREE) & (labels != UNKNOWN)
    padded = np.pad(solid, 1)
    corners = []
    for axis in range(3):
        for side in (0, 1):
            beside = [slice(1, -1)] * 3
            beside[axis] = slice(2, None) if side else slice(0, -2)
            cells = np.argwhere((labels == label) & ~padded[tuple(beside)])
            face = _FACES[axis] if side else np.flip(_FACES[axis] - np.eye(3, dtype=int)[axis], 0)
            corners.append(cells[:, None] + face)
    quads = np.concatenate(corners)
    vertices = (quads.reshape(-1, 3) * spec.cell + spec.minimum_m).astype(np.float32)
    first = 4 * np.arange(len(quads), dtype=np.int32)[:, None]
    return vertices, np.concatenate([first + [0, 1, 2], first + [0, 2, 3]]).astype(np.int32)


def grids_of(bag: Path, topic: str | None, count: int) -> list[VoxelGrid]:
    """`count` voxel grids of a bag, evenly spread over it.

    Raises:
        RecordingError: no topic with voxel grids, several and none chosen, or the chosen one has none.
    """
    with BagReader(bag) as reader:
        topics = sorted(name for name, kind in reader.topics.items() if kind == GRID_TYPE)
        if topic is None and len(topics) != 1:
            raise RecordingError(f"{len(topics)} topics hold voxel grids", where=str(bag),
                                 fix=f"Choose one with --topic: {', '.join(topics)}" if topics else
                                 "Record the node's ~/output/voxels")
        chosen = topic or topics[0]
        reader.require([chosen])
        messages = [message for _, _, message in reader.messages([chosen])]
    if not messages:
        raise RecordingError(f"{chosen} holds no message", where=str(bag))
    picks = np.unique(np.linspace(0, len(messages) - 1, min(count, len(messages))).round().astype(int))
    return [decode_voxel_grid(messages[pick]) for pick in picks]


def _traces(grid: VoxelGrid, taxonomy: Taxonomy) -> Iterator[Any]:
    from plotly import graph_objects

    palette, names = taxonomy.palette(), dict(enumerate(taxonomy.classes)) | {OCCUPIED: "occupied"}
    for label in [*range(1, len(taxonomy)), OCCUPIED]:
        vertices, triangles = class_surface(grid.labels, label, grid.spec)
        red, green, blue = palette[label].tolist()
        yield graph_objects.Mesh3d(
            x=vertices[:, 0], y=vertices[:, 1], z=vertices[:, 2],
            i=triangles[:, 0], j=triangles[:, 1], k=triangles[:, 2], color=f"rgb({red},{green},{blue})",
            name=names[label], showlegend=len(triangles) > 0, flatshading=True, hoverinfo="name")


def write_view(grids: Sequence[VoxelGrid], path: Path) -> None:
    """One self-contained HTML page, written beside its place and renamed."""
    from plotly import graph_objects

    figure, per_grid = graph_objects.Figure(), 0
    for number, grid in enumerate(grids):
        traces = list(_traces(grid, get_taxonomy(grid.taxonomy)))
        per_grid = len(traces)
        for trace in traces:
            trace.visible = number == 0
        figure.add_traces(traces)
    steps = [{"method": "restyle", "label": f"{(grid.stamp_ns - grids[0].stamp_ns) / 1e9:.1f} s",
              "args": ["visible", [at // per_grid == number for at in range(per_grid * len(grids))]]}
             for number, grid in enumerate(grids)]
    figure.update_layout(
        sliders=[{"steps": steps}] if len(grids) > 1 else [], margin={"l": 20, "r": 20, "t": 40, "b": 30},
        scene={"aspectmode": "data", "xaxis_title": "x forward, m", "yaxis_title": "y left, m", "zaxis_title": "z, m",
               "camera": {"eye": {"x": -1.4, "y": -0.5, "z": 0.9}}})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    beside.write_text(figure.to_html(include_plotlyjs=True, full_html=True), encoding="utf-8")
    os.replace(beside, path)
