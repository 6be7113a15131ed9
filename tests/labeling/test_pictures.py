"""The picture of a labelled frame shows classes where they are: in the images, in the grid, and nothing of its own."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling import pictures
from occ_perception.labeling.clip import Clip, LabelFrame, WorldBox
from occ_perception.labeling.fuse import FusedFrame
from occ_perception.labeling.pictures import LEFT_OUT_RGB, NO_CLASS_RGB, scene_picture
from occ_perception.replay.pictures import Picture
from occ_perception.taxonomy import FREE, OCCUPIED, SIDEWALK, UNKNOWN, Sidewalk
from occ_perception.types import FlowField, VoxelGrid

SPEC = VoxelGridSpec((0.0, -3.0, -1.0), (6.0, 3.0, 2.0), 0.2)
BOX_M = np.array([3.1, 1.1, 0.5])
GREY = 128


def rig_of() -> Rig:
    T = se3.make(se3.OPTICAL_IN_BODY, (0.2, 0.0, 1.0))
    return rig_from_dict({"name": "test", "cameras": [{
        "name": "front", "frame": "optical", "width": 320, "height": 240, "model": "pinhole",
        "parameters": [160.0, 160.0, 159.5, 119.5], "T_base_camera": T.tolist()}]}, where="test")


def fused_of() -> FusedFrame:
    """A pavement, a person on it, and a lump of matter that nobody named."""
    labels = np.full(SPEC.shape, FREE, np.uint8)
    labels[:, :, :5] = UNKNOWN
    labels[:, :, 5] = Sidewalk.SIDEWALK
    labels[14:17, 19:22, 6:14] = Sidewalk.PERSON
    labels[20:24, 4:8, 6:10] = OCCUPIED
    grid = VoxelGrid(SPEC, 1, labels)
    flow = FlowField(SPEC, 1, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    return FusedFrame(grid, labels != UNKNOWN, flow, np.eye(4), np.eye(4))


def frame_of(*, images: bool = True, box: WorldBox | None = None) -> LabelFrame:
    points = np.array([[3.0, 1.1, 0.9], [4.0, 0.0, 0.1], [2.0, -1.0, 1.5]], np.float32)
    return LabelFrame(
        stamp_ns=1, images={"front": np.full((240, 320, 3), GREY, np.uint8)} if images else {}, points_m=points,
        sensor_m=np.zeros((1, 3)), point_sensor=np.zeros(3, np.uint8), T_world_base=np.eye(4),
        boxes=None if box is None else (box,))


def picture_of(frame: LabelFrame, classes: dict[str, np.ndarray] | None = None) -> Picture:
    return scene_picture(Clip(name="test", rig=rig_of(), frames=[frame]), classes or {}, fused_of(), 0)


def has(picture: Picture, rgb: tuple[int, int, int], at_least: int) -> bool:
    return int((picture == np.array(rgb, np.uint8)).all(axis=-1).sum()) >= at_least


def test_classes_of_the_image_are_laid_over_it() -> None:
    classes = np.zeros((240, 320), np.uint8)
    classes[120:] = Sidewalk.GRASS
    sheet = picture_of(frame_of(), {"front": classes})
    mixed = tuple(int(0.45 * GREY + 0.55 * value) for value in SIDEWALK.colours[Sidewalk.GRASS])
    assert has(sheet, mixed, 20_000)  # half of the first panel
    assert not has(picture_of(frame_of(), {"front": np.zeros_like(classes)}), mixed, 100)


def test_returns_have_the_class_of_their_cell_and_those_in_free_space_are_left_out() -> None:
    points, rgb = pictures._coloured(frame_of(), fused_of(), pictures._palette())
    assert len(points) == 3
    assert rgb.tolist() == [list(SIDEWALK.colours[Sidewalk.PERSON]), list(SIDEWALK.colours[Sidewalk.SIDEWALK]),
                            list(LEFT_OUT_RGB)]


def test_matter_without_a_class_is_not_drawn_as_free() -> None:
    above = pictures._map(fused_of(), (), pictures._palette())
    scale = len(above) // SPEC.shape[0]
    row, column = (SPEC.shape[0] - 22) * scale, (SPEC.shape[1] - 6) * scale
    shade = above[row, column] / np.array(NO_CLASS_RGB)
    assert np.ptp(shade) < 0.02
    assert 0.7 < shade.mean() <= 1.0


def test_the_map_shows_boxes_and_where_they_go() -> None:
    box = WorldBox(7, int(Sidewalk.PERSON), se3.make(np.eye(3), BOX_M), np.array([0.6, 0.6, 1.7]),
                   np.array([0.0, -1.0, 0.0]))
    still = WorldBox(7, int(Sidewalk.PERSON), se3.make(np.eye(3), BOX_M), np.array([0.6, 0.6, 1.7]))
    plain, standing, going = (pictures._map(fused_of(), boxes, pictures._palette()) for boxes in ((), (still,), (box,)))
    assert (standing != plain).any()
    changed = np.argwhere((going != standing).any(axis=-1))
    scale = len(plain) // SPEC.shape[0]
    assert np.ptp(changed[:, 1]) == pytest.approx(5 * scale, abs=2 * scale)  # 1 m to the right, beyond the outline
    assert changed[:, 0].mean() == pytest.approx((6.0 - BOX_M[0]) / 0.2 * scale, abs=scale)


def test_a_frame_without_images_has_its_grid() -> None:
    sheet, full = picture_of(frame_of(images=False)), picture_of(frame_of())
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == full.shape[1] == 1800
    assert sheet.shape[0] < full.shape[0]
    assert has(sheet, SIDEWALK.colours[Sidewalk.PERSON], 100)
