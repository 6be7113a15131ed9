"""One picture of a labelled frame: what the cameras saw, which classes were found, and the grid that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from occ_perception.calibration import Rig
from occ_perception.geometry import se3
from occ_perception.geometry.tables import MountedCamera
from occ_perception.labeling.clip import Clip, LabelFrame, WorldBox
from occ_perception.labeling.fuse import FusedFrame
from occ_perception.replay.overlay import draw_box, draw_points, tile
from occ_perception.replay.panels import arrange, class_colours
from occ_perception.replay.pictures import (
    Colour,
    Picture,
    map_from_above,
    overlay_labels,
    paint_labels,
    render_voxels,
    view_of,
)
from occ_perception.taxonomy import FREE, OCCUPIED, SIDEWALK, UNKNOWN

NO_CLASS_RGB, LEFT_OUT_RGB = (132, 84, 200), (0, 0, 0)
"""Matter without a class; returns that became no matter."""
_SHEET_PX, _PANEL_PX = 1800, 876
_MAP_PX = 480
_RELIEF_M = 2.0


def scene_picture(clip: Clip, classes: Mapping[str, NDArray[np.uint8]], fused: FusedFrame, index: int) -> Picture:
    """All of one frame on a sheet, uint8 RGB [H, W, 3] of 1800 px.

    Above: the images with their 2D classes, and the scan in them, each return in the class of the fused cell it lies
    in. Where extrinsics and poses are right, colours end where things end. Below: the fused voxels as the cameras see
    them, the grid from behind and above, and from straight above, where grey is unknown. Boxes of tracks are drawn in
    the colour of their class, with an arrow to where they are in one second.

    Args:
        classes: uint8 [H, W] by camera, of this frame; cameras without an image are left out.
        fused: the ground truth of this frame.
        index: of the frame in the clip.
    """
    frame = clip.frames[index]
    palette = _palette()
    spec, labels = fused.grid.spec, fused.grid.labels
    painted, scanned, voxels = [], [], []
    points, rgb = _coloured(frame, fused, palette)
    for name, camera, image in _small_views(clip.rig, frame):
        if name in classes:  # drawn as small as they are shown, or dots would vanish
            size = camera.camera.width, camera.camera.height
            small = cv2.resize(classes[name], size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
            painted.append(paint_labels(image, small, palette))
        drawn = draw_points(image, camera, points, rgb, 1)
        for box in frame.boxes or ():
            drawn = draw_box(drawn, camera, se3.invert(frame.T_world_base) @ box.T_world_object, box.size_m,
                             SIDEWALK.colours[box.label])
        scanned.append(drawn)
        voxels.append(overlay_labels(image, labels, spec, camera.camera, fused.T_grid_base @ camera.T_base_camera,
                                     palette))
    above = _map(fused, frame.boxes or (), palette)
    top = {caption: _tiled(images) for caption, images in (("2D classes", painted), ("Scan, by fused class", scanned))
           if images}
    below = {"Fused voxels in the image": _tiled(voxels)} if voxels else {}
    below |= {"Fused grid": render_voxels(labels, spec, palette, view_of(spec)), "From above": above}
    legend: dict[str, Colour] = class_colours(SIDEWALK) | {"no class": NO_CLASS_RGB, "left out": LEFT_OUT_RGB}
    return arrange([row for row in (top, below) if row], legend, width=_SHEET_PX, row_px=640)


def _palette() -> NDArray[np.uint8]:
    """Colours by label; matter without a class stands out from free space, which is white."""
    palette = SIDEWALK.palette()
    palette[OCCUPIED] = NO_CLASS_RGB
    return palette


def _small_views(rig: Rig, frame: LabelFrame) -> list[tuple[str, MountedCamera, Picture]]:
    """Name, place at its exposure and small image of every camera that gave one."""
    shown, views = [camera for camera in rig.cameras if camera.name in frame.images], []
    for camera in shown:
        width = _PANEL_PX // _columns(len(shown))
        small = camera.resized(round(camera.height * width / camera.width), width).mounted()
        moved = frame.T_anchor_exposure.get(camera.name, np.eye(4))
        image = cv2.resize(frame.images[camera.name], (small.camera.width, small.camera.height),
                           interpolation=cv2.INTER_AREA)
        views.append((camera.name, MountedCamera(small.camera, moved @ small.T_base_camera), image.astype(np.uint8)))
    return views


def _coloured(frame: LabelFrame, fused: FusedFrame, palette: NDArray[np.uint8]
              ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [N, 3] of a scan in the grid, and their colours [N, 3]: of the nearest cell of matter within a diagonal.

    Returns lie on their surface only up to noise, so the cell they are in may be free.
    """
    spec = fused.grid.spec
    in_grid = se3.apply(fused.T_grid_base, frame.points_m)
    inside = spec.index(in_grid)[1]
    rgb = np.tile(np.array(LEFT_OUT_RGB, np.uint8), (int(inside.sum()), 1))
    cells = np.argwhere((fused.grid.labels != FREE) & (fused.grid.labels != UNKNOWN))
    if len(cells):
        away, nearest = cKDTree(spec.centre_of(cells)).query(
            in_grid[inside], distance_upper_bound=float(np.linalg.norm(spec.cell)))
        found = np.isfinite(away)
        rgb[found] = palette[fused.grid.labels[tuple(cells[nearest[found]].T)]]
    return frame.points_m[inside], rgb


def _map(fused: FusedFrame, boxes: Sequence[WorldBox], palette: NDArray[np.uint8]) -> Picture:
    """The grid from above with footprints of boxes and their motion."""
    spec = fused.grid.spec
    scale = max(1, round(_MAP_PX / max(spec.shape[:2])))
    picture = map_from_above(fused.grid.labels, spec, palette, ceiling_m=_RELIEF_M, pixels_per_cell=scale)
    T_grid_world = se3.invert(fused.T_world_grid)

    def pixels(points_m: NDArray[np.float64]) -> NDArray[np.int32]:
        along = (np.asarray(spec.maximum_m)[:2] - points_m[:, :2]) / spec.cell[:2] * scale
        return np.rint(along[:, ::-1]).astype(np.int32)

    for box in boxes:
        T_grid_box = T_grid_world @ box.T_world_object
        corners = np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]) * box.size_m / 2
        cv2.polylines(picture, [pixels(se3.apply(T_grid_box, corners))], True, (20, 20, 20), 1, cv2.LINE_AA)
        velocity = T_grid_world[:3, :3] @ box.velocity_mps
        start, end = pixels(np.stack([T_grid_box[:3, 3], T_grid_box[:3, 3] + velocity])).tolist()
        if start != end:
            cv2.arrowedLine(picture, start, end, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def _tiled(images: list[Picture]) -> Picture:
    return tile(images, columns=_columns(len(images)), width_px=images[0].shape[1])


def _columns(images: int) -> int:
    return 1 if images == 1 else 2 if images <= 4 else 3
