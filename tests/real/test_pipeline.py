"""Real images through bag, synchroniser, assembler and tables into voxels: a voxel holds the pixels that show it.

The stand-in for the network labels each voxel by the colours that the projection table gathers for it, so that the
geometry of the whole way is tested without the judgement of any weights.
"""

import cv2
import numpy as np
import pytest

from occ_perception.engines import Manifest
from occ_perception.geometry import SIDEWALK_GRID, se3
from occ_perception.pipelines import FrameAssembler, OccupancyPipeline, OdometryBuffer, synchroniser_for
from occ_perception.recordings import BagReader, sensor_events
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.recordings.create import create_bag
from occ_perception.taxonomy import UNKNOWN, Sidewalk

pytestmark = pytest.mark.real

IMAGE_SIZE, FEATURE_SIZE = (544, 960), (136, 240)
NX, NY, NZ = SIDEWALK_GRID.shape
MARK = np.array([255, 0, 255])


def manifest():
    grid = {"minimum_m": SIDEWALK_GRID.minimum_m, "maximum_m": SIDEWALK_GRID.maximum_m, "cell_m": SIDEWALK_GRID.cell_m}
    variant = {"file": "none", "sha256": "0" * 64, "precision": "fp32", "devices": ["cpu"]}
    return Manifest.model_validate({
        "name": "gathering", "version": "1", "tasks": ["occupancy"], "taxonomy": "sidewalk14",
        "output_grid": grid, "lift_grid": grid, "range_bins": {"minimum_m": 0.0, "maximum_m": 12.0, "step_m": 0.2},
        "image_size": IMAGE_SIZE, "feature_size": FEATURE_SIZE, "maximum_hits": 2,
        "inputs": [{"name": "rows", "shape": ["hits", SIDEWALK_GRID.size], "dtype": "int32", "meaning": ""}],
        "outputs": [{"name": "labels", "shape": [NZ, NY, NX], "dtype": "uint8", "meaning": ""}],
        "variants": {"fp32": variant},
        "training": {"data": "", "data_version": "", "data_hash": "", "commit": "", "seed": 0, "steps": 0},
        "licence": "Apache-2.0",
    })


class Gathering:
    """Labels a voxel by the mean colour gathered for it: near the mark a person; its grey is the confidence."""

    def new_state(self):
        return None

    def run(self, inputs, state):
        features = np.stack([cv2.resize(image, FEATURE_SIZE[::-1], interpolation=cv2.INTER_AREA)
                             for image in inputs["images"]]).reshape(-1, 3).astype(np.float32)
        colour = np.einsum("hs,hsc->sc", inputs["weights"], features[inputs["rows"]])
        marked = np.abs(colour - MARK).max(axis=1) < 90
        labels = np.where(marked, Sidewalk.PERSON, 0).astype(np.uint8).reshape(NZ, NY, NX)
        return {"labels": labels, "confidence": colour.mean(axis=1).astype(np.uint8).reshape(NZ, NY, NX)}, state


def grids_of(bag, rig):
    """What the robot's pipeline answers to every instant of a bag."""
    pipeline, odometry = OccupancyPipeline(Gathering(), manifest(), rig), OdometryBuffer()
    synchroniser, assembler = synchroniser_for(rig), FrameAssembler(rig, odometry)
    sets = []
    with BagReader(bag) as reader:
        for event in sensor_events(reader, rig):
            if event.kind == "image":
                sets += synchroniser.push(event.sensor, event.stamp_ns, event.message)
        sets += synchroniser.flush()
        return [pipeline.step(assembler.assemble(synced)).grid for synced in sets]


def test_voxels_of_a_person_are_those_where_the_lidar_met_him(tracked_robot, tmp_path):
    u0, v0, u1, v1 = 1395, 200, 1490, 420  # the second person in the left image
    image = cv2.imread(str(tracked_robot.images["left"]))
    image[v0:v1, u0:u1] = MARK[::-1]
    cv2.imwrite(str(tmp_path / "left.png"), image)
    images = tracked_robot.images | {"left": tmp_path / "left.png"}
    create_bag(tmp_path / "bag", tracked_robot.rig, images, tracked_robot.clouds)
    [grid] = grids_of(tmp_path / "bag", tracked_robot.rig)

    [lidar], camera = tracked_robot.rig.lidars, tracked_robot.rig.camera("left")
    points = se3.apply(lidar.T_base_lidar, read_cloud(tracked_robot.clouds["top"], "top", 0).points_m)
    pixels, valid = camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), points))
    cells, inside = grid.spec.index(points)
    labels = grid.labels[tuple(np.where(inside[:, None], cells, 0).T)]

    def within(margin_px):
        (u, v) = pixels.T
        return (u > u0 - margin_px) & (u < u1 + margin_px) & (v > v0 - margin_px) & (v < v1 + margin_px)

    on_him = valid & inside & within(-16)
    assert on_him.sum() > 50
    assert np.mean(labels[on_him] == Sidewalk.PERSON) > 0.95
    elsewhere = valid & inside & ~within(60)  # a cell 2 m away is 50 px wide
    assert elsewhere.sum() > 2000
    assert np.mean(labels[elsewhere] == Sidewalk.PERSON) < 0.01


def test_voxels_of_the_lane_line_are_the_brightest_across_the_ground(fisheye_vehicle, tmp_path):
    create_bag(tmp_path / "bag", fisheye_vehicle.rig, fisheye_vehicle.images, repeat=2)
    grids = grids_of(tmp_path / "bag", fisheye_vehicle.rig)
    assert len(grids) == 2
    x_cells, ground = np.arange(15, 50), 20  # 1.5 to 5 m ahead; the layer just above z = 0
    y_cells = np.arange(15, 28)  # y from -3.5 to -2.2 m
    brightness = grids[0].confidence[np.ix_(x_cells, y_cells, [ground])][..., 0]
    y_m = grids[0].spec.centre_of(np.stack([x_cells, y_cells[brightness.argmax(axis=1)], 0 * x_cells], -1))[:, 1]
    assert np.median(np.abs(y_m - -2.84)) < 0.1
    assert np.mean(np.abs(y_m - -2.84) < 0.16) > 0.9


def test_what_no_camera_sees_is_unknown_and_the_way_ahead_is_not(tracked_robot, fisheye_vehicle, tmp_path):
    for name, data in (("robot", tracked_robot), ("vehicle", fisheye_vehicle)):
        create_bag(tmp_path / name, data.rig, data.images, data.clouds)
        [grid] = grids_of(tmp_path / name, data.rig)
        ahead = grid.labels[30:90, 45:55, 20]
        assert not (ahead == UNKNOWN).any(), name
    assert (grids_of(tmp_path / "robot", tracked_robot.rig)[0].labels == UNKNOWN).mean() > 0.1
