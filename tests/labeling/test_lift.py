"""Points take the class of the pixel they are seen in, unless something stands before them."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.errors import CalibrationError, ShapeError
from occ_perception.geometry import se3
from occ_perception.labeling.lift import lift_labels
from occ_perception.taxonomy import OCCLUSION, Sidewalk

WIDTH, HEIGHT = 160, 120


def rig_of(model: str = "pinhole", yaws: tuple[float, ...] = (0.0,)) -> Rig:
    """Cameras at (0, 0, 1) that look along these headings."""
    parameters = [80.0, 80.0, 79.5, 59.5] + {"mei": [0.9], "double_sphere": [-0.2, 0.5]}.get(model, [])
    cameras = [{"name": f"camera{i}", "frame": f"optical{i}", "width": WIDTH, "height": HEIGHT, "model": model,
                "parameters": parameters,
                "T_base_camera": se3.make(se3.from_euler(0, 0, yaw)[:3, :3] @ se3.OPTICAL_IN_BODY,
                                          (0, 0, 1.0)).tolist()} for i, yaw in enumerate(yaws)]
    return rig_from_dict({"name": "test", "cameras": cameras}, where="test")


def image(label: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), label, np.uint8)


def plate(x_m: float, half_m: float, step_m: float = 0.05) -> np.ndarray:
    """Points of an upright square at x, centred at the height of the camera."""
    side = np.arange(-half_m, half_m + 1e-6, step_m)
    y, z = np.meshgrid(side, side)
    return np.column_stack([np.full(y.size, x_m), y.ravel(), 1.0 + z.ravel()]).astype(np.float32)


@pytest.mark.parametrize("model", ["pinhole", "equidistant", "mei", "double_sphere"])
def test_a_point_takes_the_class_of_its_pixel(model: str) -> None:
    rig, classes = rig_of(model), image(Sidewalk.WALL)
    classes[:, : WIDTH // 2] = Sidewalk.TREES  # the left half of the image is what lies to the left, +y
    points = np.array([[5.0, 1.0, 1.0], [5.0, -1.0, 1.0], [-5.0, 0.0, 1.0], [np.nan, 0.0, 0.0]], np.float32)
    assert lift_labels(points, {"camera0": classes}, rig).tolist() == [Sidewalk.TREES, Sidewalk.WALL, 0, 0]


def test_background_and_occlusion_are_never_lifted() -> None:
    points = np.array([[5.0, 0.0, 1.0]], np.float32)
    for label in (0, OCCLUSION):
        assert lift_labels(points, {"camera0": image(label)}, rig_of()).tolist() == [0]


def test_what_stands_behind_a_nearer_surface_gets_no_label() -> None:
    near, far = plate(3.0, 0.4), plate(8.0, 2.5)
    labels = lift_labels(np.concatenate([near, far]), {"camera0": image(Sidewalk.PERSON)}, rig_of())
    # the plate hides 0.4 * 8 / 3 = 1.07 m of what is behind; a pixel bin beyond its edge it may hide as well
    hidden = np.abs(far - [8.0, 0.0, 1.0]).max(axis=1) < 1.0
    clear = np.abs(far - [8.0, 0.0, 1.0]).max(axis=1) > 1.4
    assert (labels[: len(near)] == Sidewalk.PERSON).all()
    assert (labels[len(near):][hidden] == 0).all()
    assert (labels[len(near):][clear] == Sidewalk.PERSON).all()


def test_an_infinite_margin_lifts_through_everything() -> None:
    points = np.concatenate([plate(3.0, 0.4), plate(8.0, 0.2)])
    labels = lift_labels(points, {"camera0": image(Sidewalk.WALL)}, rig_of(), occlusion_margin_m=np.inf)
    assert (labels == Sidewalk.WALL).all()


def test_grazed_ground_does_not_hide_itself() -> None:
    x, y = np.meshgrid(np.arange(2.0, 10.0, 0.1), np.arange(-1.0, 1.0, 0.1))
    ground = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)]).astype(np.float32)
    labels = lift_labels(ground, {"camera0": image(Sidewalk.ROAD)}, rig_of())
    assert (labels == Sidewalk.ROAD).mean() > 0.99


def test_the_camera_whose_axis_is_nearest_decides() -> None:
    rig = rig_of(yaws=(0.0, 0.6))
    classes = {"camera0": image(Sidewalk.ROAD), "camera1": image(Sidewalk.GRASS)}
    points = np.array([[5.0, 0.5, 1.0], [5.0, 2.5, 1.0]], np.float32)
    assert lift_labels(points, classes, rig).tolist() == [Sidewalk.ROAD, Sidewalk.GRASS]
    classes["camera0"] = image(OCCLUSION)  # it sees nothing there, so the other one is asked
    assert lift_labels(points, classes, rig).tolist() == [Sidewalk.GRASS, Sidewalk.GRASS]


def test_the_motion_until_the_exposure_moves_the_pixels() -> None:
    rig, classes = rig_of(), image(Sidewalk.ROAD)
    classes[:, WIDTH // 2:] = Sidewalk.GRASS
    point = np.array([[5.0, 0.5, 1.0]], np.float32)  # left of the axis
    assert lift_labels(point, {"camera0": classes}, rig).tolist() == [Sidewalk.ROAD]
    moved = {"camera0": se3.make(np.eye(3), (0.0, 1.0, 0.0))}  # the camera was a metre further left
    assert lift_labels(point, {"camera0": classes}, rig, T_anchor_exposure=moved).tolist() == [Sidewalk.GRASS]


def test_faults_are_named() -> None:
    points = np.zeros((1, 3), np.float32)
    with pytest.raises(CalibrationError, match="rear"):
        lift_labels(points, {"rear": image(1)}, rig_of())
    with pytest.raises(ShapeError, match="camera0"):
        lift_labels(points, {"camera0": image(1)[:5]}, rig_of())
    with pytest.raises(ShapeError, match="goes up to 77"):
        lift_labels(points, {"camera0": image(77)}, rig_of())
    with pytest.raises(ShapeError, match=r"\[P, 3\]"):
        lift_labels(points[:, :2], {"camera0": image(1)}, rig_of())
