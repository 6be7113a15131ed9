"""The pictures of one frame: camera image, prediction, truth and maps, as panels of a page or as one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.replay import overlay
from occ_perception.replay.evaluation import FrameScore, Snapshot
from occ_perception.replay.pictures import (
    ERROR_COLOURS,
    PATH_COLOUR,
    TRUE_PATH_COLOUR,
    WAYPOINT_COLOURS,
    Colour,
    DrawnPath,
    Picture,
    error_map,
    map_from_above,
    overlay_labels,
    render_voxels,
    view_of,
)
from occ_perception.taxonomy import Taxonomy, get_taxonomy

PREDICTION, ERRORS = "Prediction", "Errors"
CHECKED = ("clear", "caution", "blocked")
_INK = (28, 37, 48)


@dataclass(frozen=True)
class Panels:
    """Pictures of one frame by caption: wide ones, and square maps from above."""

    score: FrameScore
    taxonomy: Taxonomy
    wide: dict[str, Picture]
    maps: dict[str, Picture]


def draw_panels(snapshot: Snapshot, rig: Rig) -> Panels:
    """Draw everything there is of a frame."""
    grid, truth = snapshot.prediction, snapshot.truth
    taxonomy = get_taxonomy(grid.taxonomy)
    palette = taxonomy.palette()
    view = view_of(grid.spec)
    predicted = [] if snapshot.trajectory is None else [DrawnPath.of(snapshot.trajectory, PATH_COLOUR)]
    taken = [] if truth is None or truth.trajectory is None else [DrawnPath.of(truth.trajectory, TRUE_PATH_COLOUR)]
    wide: dict[str, Picture] = {}
    shown = [camera for camera in rig.cameras if camera.name in snapshot.images]
    if shown:
        images = [snapshot.images[camera.name] for camera in shown]
        painted = [
            overlay_labels(image, grid.labels, grid.spec, camera.camera,
                           snapshot.T_grid_base @ camera.T_base_camera, palette)
            for camera, image in zip(shown, images, strict=True)
        ]
        wide["Camera"], wide["Predicted voxels in the image"] = _tiled(images), _tiled(painted)
    wide[PREDICTION] = render_voxels(grid.labels, grid.spec, palette, view, predicted)
    maps = {"Prediction from above": map_from_above(grid.labels, grid.spec, palette, paths=predicted)}
    if truth is not None:
        wide["Truth"] = render_voxels(truth.grid.labels, grid.spec, palette, view, taken)
        maps["Truth from above"] = map_from_above(truth.grid.labels, grid.spec, palette, paths=taken)
        maps[ERRORS] = error_map(grid.labels, truth.grid.labels, grid.spec, truth.visible)
    return Panels(snapshot.score, taxonomy, wide, maps)


def _tiled(images: list[NDArray[np.uint8]]) -> Picture:
    if len(images) == 1:
        return images[0]
    return overlay.tile(images, columns=2, width_px=640)


def sheet(panels: Panels, width: int = 1500) -> Picture:
    """All panels on one white sheet with captions and the legend of the classes."""
    keys = {ERRORS: ERROR_COLOURS} | ({PREDICTION: WAYPOINT_COLOURS} if panels.score.path in CHECKED else {})
    rows = [dict(list(panels.wide.items())[i:i + 2]) for i in range(0, len(panels.wide), 2)]
    if len(panels.maps) == 3:
        rows.append(panels.maps)
    return arrange(rows, class_colours(panels.taxonomy), width=width, keys=keys)


def arrange(rows: Sequence[Mapping[str, Picture]], legend: Mapping[str, Colour], *, width: int = 1500,
            row_px: int = 520, keys: Mapping[str, Mapping[str, Colour]] | None = None) -> Picture:
    """Rows of pictures on one white sheet.

    Args:
        rows: pictures by caption, from the top; those of a row become equally high.
        legend: colours by name, below all.
        row_px: no row is higher.
        keys: by caption, colours by name that belong to one picture only.
    """
    gap = 16
    drawn = [_row(row, width, gap, row_px, keys or {}) for row in rows]
    return np.vstack([np.full((gap, width, 3), 255, np.uint8), *drawn, _legend(legend, width, gap)])


def class_colours(taxonomy: Taxonomy) -> dict[str, Colour]:
    """Colours of all classes but free."""
    return dict(list(zip(taxonomy.classes, taxonomy.colours, strict=True))[1:])


def _row(pictures: Mapping[str, Picture], width: int, gap: int, highest: int,
         keys: Mapping[str, Mapping[str, Colour]]) -> Picture:
    """Pictures side by side at one height, so that together they fill the width."""
    inner = width - gap * (len(pictures) + 1)
    height = int(inner / sum(p.shape[1] / p.shape[0] for p in pictures.values()))
    height = min(height, highest)
    strip = np.full((height + 40, width, 3), 255, np.uint8)
    left = gap
    for caption, picture in pictures.items():
        wide = int(height * picture.shape[1] / picture.shape[0])
        strip[:height, left:left + wide] = cv2.resize(picture, (wide, height), interpolation=cv2.INTER_AREA)
        _write(strip, caption, (left + 2, height + 24))
        if caption in keys:
            _key(strip, keys[caption], left + wide, height + 12)
        left += wide + gap
    return strip


def _key(strip: Picture, colours: Mapping[str, Colour], right: int, top: int) -> None:
    """What the colours of a picture mean, ending at `right`."""
    for name, colour in reversed(list(colours.items())):
        (text_width, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_DUPLEX, 0.45, 1)
        right -= text_width
        _write(strip, name, (right, top + 11), 0.45)
        right -= 16
        cv2.rectangle(strip, (right, top), (right + 11, top + 11), colour, cv2.FILLED)
        right -= 12


def _legend(colours: Mapping[str, Colour], width: int, gap: int) -> Picture:
    strip = np.full((40, width, 3), 255, np.uint8)
    wide = [30 + cv2.getTextSize(name, cv2.FONT_HERSHEY_DUPLEX, 0.48, 1)[0][0] for name in colours]
    between = (width - 2 * gap - sum(wide)) / max(len(colours) - 1, 1)
    for i, (name, colour) in enumerate(colours.items()):
        left = round(gap + sum(wide[:i]) + i * between)
        cv2.rectangle(strip, (left, 9), (left + 16, 25), colour, cv2.FILLED)
        cv2.rectangle(strip, (left, 9), (left + 16, 25), (120, 120, 120), 1)
        _write(strip, name, (left + 22, 23), 0.48)
    return strip


def _write(picture: Picture, text: str, at: tuple[int, int], size: float = 0.58) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_DUPLEX, size, _INK, 1, cv2.LINE_AA)
