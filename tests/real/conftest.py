"""The real recordings beside the checkout, as rigs and files. They are not ours to pass on, so they may be absent."""

import importlib.util
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.geometry import SIDEWALK_GRID, se3
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.recordings.create import create_bag
from occ_perception.taxonomy import Sidewalk

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / ".." / "shared" / "real"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_input():
    """The script that knows the odd calibration formats of these recordings."""
    return script("real_input")


@pytest.fixture(scope="session")
def real_labels(real_input):
    """The script that makes clips of them, with classes by rules of thumb; it builds on the other one."""
    return script("real_labels")


def folder(name):
    path = SOURCE / name
    if not path.is_dir():
        pytest.skip(f"the recording {name} is not beside this checkout (../shared/real)")
    return path


@pytest.fixture(scope="session")
def fisheye_vehicle(real_input):
    return real_input.fisheye_vehicle(folder("roecs_fisheye4"))


@pytest.fixture(scope="session")
def tracked_robot(real_input):
    return real_input.tracked_robot(folder("marv_quadcam_os0"))


@pytest.fixture(scope="session")
def labelled_robot(real_labels):
    return real_labels.robot(folder("marv_quadcam_os0"))


@pytest.fixture(scope="session")
def car_folder():
    return folder("dgp_scene02_6cam")


@pytest.fixture(scope="session")
def labelled_car(real_labels, car_folder):
    return real_labels.car(car_folder)


IMAGE_SIZE, FEATURE_SIZE, STRIDE = (544, 960), (136, 240), 4
MARK_RGB = (255, 0, 255)
MARKED_PX = (1395, 200, 1490, 420)  # the second person in the tracked robot's left image: u0, v0, u1, v1


@pytest.fixture(scope="session")
def gathering_model(tmp_path_factory):
    """A model folder whose graph has no weights, so that it judges nothing but geometry.

    It takes the mean colour that the projection table gathers for a voxel: near the mark's colour the label is person,
    else free; the confidence is the mean of the three channels.
    """
    onnx = pytest.importorskip("onnx", reason="the graph is made with onnx, of the train requirements")
    from occ_perception.engines import Manifest, save_manifest, sha256_of

    helper, kinds = onnx.helper, onnx.TensorProto
    height, width = IMAGE_SIZE
    grid_shape = list(SIDEWALK_GRID.shape[::-1])
    constants = {
        "pixel_shape": np.array([-1, 3], np.int64), "grid_shape": np.array(grid_shape, np.int64),
        "hits_axis": np.array([0], np.int64), "colour_axis": np.array([1], np.int64),
        "last_axis": np.array([2], np.int64),
        "mark": np.array(MARK_RGB, np.float32), "tolerance": np.float32(90.0),
        "person": np.uint8(Sidewalk.PERSON), "free": np.uint8(0),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=kinds.FLOAT),
        helper.make_node("Transpose", ["float"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels_first"], ["pooled"], kernel_shape=[STRIDE, STRIDE],
                         strides=[STRIDE, STRIDE]),
        helper.make_node("Transpose", ["pooled"], ["channels_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["channels_last", "pixel_shape"], ["features"]),
        helper.make_node("Gather", ["features", "rows"], ["gathered"], axis=0),
        helper.make_node("Unsqueeze", ["weights", "last_axis"], ["weight"]),
        helper.make_node("Mul", ["gathered", "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "hits_axis"], ["colour"], keepdims=0),
        helper.make_node("Sub", ["colour", "mark"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("ReduceMax", ["distance", "colour_axis"], ["farthest"], keepdims=0),
        helper.make_node("Less", ["farthest", "tolerance"], ["marked"]),
        helper.make_node("Where", ["marked", "person", "free"], ["label"]),
        helper.make_node("Reshape", ["label", "grid_shape"], ["labels"]),
        helper.make_node("ReduceMean", ["colour", "colour_axis"], ["grey"], keepdims=0),
        helper.make_node("Cast", ["grey"], ["grey_byte"], to=kinds.UINT8),
        helper.make_node("Reshape", ["grey_byte", "grid_shape"], ["confidence"]),
        helper.make_node("Identity", ["bins"], ["bins_out"]),  # an input that no node reads would be dropped
    ]
    table = ["hits", SIDEWALK_GRID.size]
    tensors = {"images": ("uint8", ["cameras", height, width, 3]), "rows": ("int32", table), "bins": ("int32", table),
               "weights": ("float32", table), "labels": ("uint8", grid_shape), "confidence": ("uint8", grid_shape)}
    onnx_kind = {"uint8": kinds.UINT8, "int32": kinds.INT32, "float32": kinds.FLOAT}
    infos = {name: helper.make_tensor_value_info(name, onnx_kind[kind], shape)
             for name, (kind, shape) in tensors.items()}
    names = list(tensors)
    outputs = [infos[n] for n in names[4:]] + [helper.make_tensor_value_info("bins_out", kinds.INT32, table)]
    graph = helper.make_graph(nodes, "gathering", [infos[n] for n in names[:4]], outputs,
                              [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()])
    folder = tmp_path_factory.mktemp("gathering")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "g.onnx")

    def specs(some):
        return [{"name": n, "shape": tensors[n][1], "dtype": tensors[n][0], "meaning": n} for n in some]

    spec = {"minimum_m": SIDEWALK_GRID.minimum_m, "maximum_m": SIDEWALK_GRID.maximum_m, "cell_m": SIDEWALK_GRID.cell_m}
    save_manifest(Manifest.model_validate({
        "name": "gathering", "version": "1", "tasks": ["occupancy"], "taxonomy": "sidewalk14", "output_grid": spec,
        "lift_grid": spec, "range_bins": {"minimum_m": 0.0, "maximum_m": 12.0, "step_m": 0.2},
        "image_size": IMAGE_SIZE, "feature_size": FEATURE_SIZE, "maximum_hits": 2, "inputs": specs(names[:4]),
        "outputs": [*specs(names[4:]), {"name": "bins_out", "shape": table, "dtype": "int32", "meaning": "bins"}],
        "variants": {"fp32": {"file": "g.onnx", "sha256": sha256_of(folder / "g.onnx"), "precision": "fp32",
                              "devices": ["cpu"]}},
        "training": {"data": "none", "data_version": "0", "data_hash": "0", "commit": "0", "seed": 0, "steps": 0},
        "licence": "Apache-2.0",
    }), folder)
    return folder


@pytest.fixture(scope="session")
def marked_bag(tracked_robot, tmp_path_factory):
    """A bag of the tracked robot, three seconds long, in whose left image the second person is painted over."""
    folder = tmp_path_factory.mktemp("marked")
    images = {}
    for name, path in tracked_robot.images.items():
        image = cv2.imread(str(path))
        if name == "left":
            u0, v0, u1, v1 = MARKED_PX
            image[v0:v1, u0:u1] = MARK_RGB[::-1]
        images[name] = folder / f"{name}.jpg"
        cv2.imwrite(str(images[name]), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    create_bag(folder / "bag", tracked_robot.rig, images, tracked_robot.clouds, rate_hz=2.0, repeat=6)
    return folder / "bag"


@pytest.fixture(scope="session")
def assert_person_is_where_the_lidar_met_him(tracked_robot):
    """Judges a grid of the marked bag: voxels in which LiDAR points on the person lie are labelled so, others not."""
    [lidar], camera = tracked_robot.rig.lidars, tracked_robot.rig.camera("left")
    points = se3.apply(lidar.T_base_lidar, read_cloud(tracked_robot.clouds["top"], "top", 0).points_m)
    pixels, valid = camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), points))
    u0, v0, u1, v1 = MARKED_PX

    def judge(grid):
        cells, inside = grid.spec.index(points)
        labels = grid.labels[tuple(np.where(inside[:, None], cells, 0).T)]

        def within(margin_px):
            u, v = pixels.T
            return (u > u0 - margin_px) & (u < u1 + margin_px) & (v > v0 - margin_px) & (v < v1 + margin_px)

        on_him = valid & inside & within(-16)
        assert on_him.sum() > 50
        assert np.mean(labels[on_him] == Sidewalk.PERSON) > 0.95
        elsewhere = valid & inside & ~within(60)  # a cell 2 m away is 50 px wide
        assert elsewhere.sum() > 2000
        assert np.mean(labels[elsewhere] == Sidewalk.PERSON) < 0.01

    return judge


@pytest.fixture(scope="session")
def dds_domain():
    """Real nodes of these tests meet in a domain of their own, with the shipped transport profile."""
    profile = str(ROOT / "config" / "fastdds.xml")
    ours = {"ROS_DOMAIN_ID": str(10 + os.getpid() % 80), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTRTPS_DEFAULT_PROFILES_FILE": profile, "FASTDDS_DEFAULT_PROFILES_FILE": profile}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        yield
