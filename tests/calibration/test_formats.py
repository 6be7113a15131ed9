"""Calibrations of other conventions become ours: a point keeps its pixel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from occ_perception.calibration.formats import from_camera_info, from_kalibr, from_kitti, from_nuscenes
from occ_perception.errors import CalibrationError
from occ_perception.geometry import se3

EYE = np.eye(4)


def info(model: str, terms: int) -> dict:
    return {
        "image_width": 1920, "image_height": 1200, "camera_name": "front", "distortion_model": model,
        "camera_matrix": {"rows": 3, "cols": 3, "data": [1179.4, 0, 983.9, 0, 1178.9, 596.7, 0, 0, 1]},
        "distortion_coefficients": {"rows": 1, "cols": terms, "data": [0.01] * terms},
    }


@pytest.mark.parametrize(("model", "terms", "ours"), [
    ("plumb_bob", 5, "pinhole"), ("rational_polynomial", 8, "pinhole"), ("equidistant", 4, "equidistant")])
def test_camera_info_yaml_and_message_give_the_same_camera(model, terms, ours):
    from_yaml = from_camera_info(info(model, terms), "front", EYE)
    message = SimpleNamespace(width=1920, height=1200, distortion_model=model, d=[0.01] * terms,
                              k=[1179.4, 0, 983.9, 0, 1178.9, 596.7, 0, 0, 1], header=SimpleNamespace(frame_id="f"))
    from_message = from_camera_info(message, "front", EYE)
    assert from_yaml.model == ours
    assert from_yaml.frame == "front_optical"
    assert from_message.frame == "f"
    assert from_yaml.parameters == from_message.parameters == (1179.4, 1178.9, 983.9, 596.7, *[0.01] * terms)


def test_a_distortion_model_we_do_not_have_is_refused_by_name():
    with pytest.raises(CalibrationError, match="'thin_prism'"):
        from_camera_info(info("thin_prism", 5), "front", EYE)
    with pytest.raises(CalibrationError, match="missing"):
        from_camera_info({"image_width": 3}, "front", EYE)


def test_kalibr_chains_add_up_and_every_lens_is_reordered():
    T_c1_c0 = se3.from_euler(0, 0.1, 0, (-0.2, 0, 0))
    cameras = from_kalibr({
        "cam0": {"camera_model": "pinhole", "intrinsics": [400, 401, 320, 240], "distortion_model": "equidistant",
                 "distortion_coeffs": [0.1, 0.2, 0.3, 0.4], "resolution": [640, 480]},
        "cam1": {"camera_model": "omni", "intrinsics": [1.1, 400, 401, 320, 240], "distortion_model": "radtan",
                 "distortion_coeffs": [-0.1, 0.02, 1e-3, 2e-3], "resolution": [640, 480],
                 "T_cn_cnm1": T_c1_c0.tolist()},
        "cam2": {"camera_model": "ds", "intrinsics": [-0.2, 0.6, 300, 301, 320, 240], "distortion_model": "none",
                 "resolution": [640, 480], "T_cn_cnm1": EYE.tolist()},
    }, EYE)
    assert cameras[0].model == "equidistant"
    assert cameras[1].parameters == (400, 401, 320, 240, 1.1, -0.1, 0.02, 1e-3, 2e-3)
    assert cameras[2].parameters == (300, 301, 320, 240, -0.2, 0.6)
    assert np.allclose(cameras[1].T_base_camera, se3.invert(T_c1_c0))
    assert np.allclose(cameras[2].T_base_camera, se3.invert(T_c1_c0))


def test_kalibr_names_a_lens_it_does_not_know():
    with pytest.raises(CalibrationError, match="eucm"):
        from_kalibr({"cam0": {"camera_model": "eucm", "intrinsics": [1] * 6, "resolution": [4, 4]}}, EYE)


def test_a_kitti_lidar_point_keeps_its_pixel():
    P2 = np.array([[721.5, 0, 609.6, 44.86], [0, 721.5, 172.9, 0.2164], [0, 0, 1, 0.002746]])
    R, t = se3.from_euler(0.01, -0.02, 0.015)[:3, :3] @ se3.OPTICAL_IN_BODY.T, np.array([-0.004, -0.076, -0.27])
    tr = np.hstack([R, t[:, None]])
    T_base_lidar = se3.make(np.eye(3), [0, 0, 1.73])
    cameras, lidar = from_kitti({"P2": P2.ravel(), "Tr": tr.ravel()}, (376, 1241), T_base_lidar)
    point = np.array([15.0, 2.0, -0.5])
    expected = P2 @ np.append(tr @ np.append(point, 1), 1)
    in_base = se3.apply(lidar.T_base_lidar, point)
    pixel, valid = cameras[0].camera.project(se3.apply(se3.invert(cameras[0].T_base_camera), in_base)[None])
    assert valid[0]
    assert pixel[0] == pytest.approx(expected[:2] / expected[2], abs=1e-6)


def test_nuscenes_records_become_cameras_and_lidars_and_radars_are_passed_over():
    R = se3.OPTICAL_IN_BODY
    x, y, z, w = se3.to_quaternion(se3.make(R, [0, 0, 0]))
    K = [[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]]
    cameras, lidars = from_nuscenes([
        {"channel": "CAM_FRONT", "translation": [1.7, 0, 1.5], "rotation": [w, x, y, z], "camera_intrinsic": K,
         "width": 1600, "height": 900},
        {"channel": "LIDAR_TOP", "translation": [0.9, 0, 1.8], "rotation": [1, 0, 0, 0], "camera_intrinsic": []},
        {"channel": "RADAR_FRONT", "translation": [3, 0, 0.5], "rotation": [1, 0, 0, 0], "camera_intrinsic": []},
    ])
    assert np.allclose(cameras[0].T_base_camera, se3.make(R, [1.7, 0, 1.5]), atol=1e-12)
    assert cameras[0].parameters == (1266.4, 1266.4, 816.3, 491.5)
    assert [lidar.name for lidar in lidars] == ["LIDAR_TOP"]
