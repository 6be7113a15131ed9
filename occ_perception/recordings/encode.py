"""Our types to messages. One encoder serves rosbags and rclpy: `make(type_name, **fields)` builds the message."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.calibration import Rig, RigCamera
from occ_perception.errors import RecordingError
from occ_perception.geometry import se3
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk, Taxonomy, get_taxonomy
from occ_perception.types import (
    CameraImage,
    FlowField,
    Odometry,
    PointCloud,
    TrackedInstance,
    Trajectory,
    VoxelGrid,
)

Make = Callable[..., Any]
"""make(type_name, **fields) -> message. Numeric sequences arrive as 1D arrays of the field's type; fields that are
not named hold their type's zero."""

_POINT_FIELD = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
_CLOUD = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("t", "<i4")])
_VOXEL = np.dtype({
    "names": ["x", "y", "z", "rgb", "label", "instance"],
    "formats": ["<f4", "<f4", "<f4", "<f4", "u1", "<u4"],  # PointField has no uint64; rgb is float by custom
    "offsets": [0, 4, 8, 12, 16, 20],
    "itemsize": 24,
})

TRAVERSAL_COST: dict[int, int] = {
    Sidewalk.SIDEWALK: 0, Sidewalk.CROSSWALK: 0,
    Sidewalk.ROAD: 50, Sidewalk.GRASS: 50, Sidewalk.CURB: 50, Sidewalk.GUTTER: 50,
}
"""Cost of driving on a ground class, 0 to 100, in the grid for Nav2. Obstacles cost 100."""

LEAST_STEP_M = 0.02
"""A way shorter than this has no direction: waypoints of a robot that stands differ by millimetres."""

_CUBE_LIST, _ADD = 6, 0  # visualization_msgs/Marker


@dataclass(frozen=True)
class MessageEncoder:
    """Builds messages. Stamps are those of the values; frames are named here once.

    Args:
        make: `recordings.messages.make`, or its counterpart for rclpy.
        base_frame: frame of the robot's base.
        odom_frame: frame of the odometry.
        grid_frame: the base's origin and yaw with z against gravity; grids and trajectories live in it.
    """

    make: Make
    base_frame: str = "base_link"
    odom_frame: str = "odom"
    grid_frame: str = "occ_grid"

    # --- parts ---

    def time(self, stamp_ns: int) -> Any:
        """builtin_interfaces Time."""
        sec, nanosec = divmod(int(stamp_ns), 1_000_000_000)
        return self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)

    def header(self, stamp_ns: int, frame: str) -> Any:
        """std_msgs Header."""
        return self.make("std_msgs/msg/Header", stamp=self.time(stamp_ns), frame_id=frame)

    def _xyz(self, kind: str, values: ArrayLike) -> Any:
        x, y, z = (float(v) for v in np.asarray(values))
        return self.make(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)

    def _quaternion(self, xyzw: ArrayLike) -> Any:
        x, y, z, w = (float(v) for v in np.asarray(xyzw))
        return self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def pose(self, T: NDArray[np.float64]) -> Any:
        """geometry_msgs Pose of T [4, 4]."""
        return self.make("geometry_msgs/msg/Pose", position=self._xyz("Point", T[:3, 3]),
                         orientation=self._quaternion(se3.to_quaternion(T)))

    def _twist(self, linear_mps: ArrayLike, angular_radps: ArrayLike) -> Any:
        twist = self.make("geometry_msgs/msg/Twist", linear=self._xyz("Vector3", linear_mps),
                          angular=self._xyz("Vector3", angular_radps))
        return self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36))

    def _pose_with_covariance(self, T: NDArray[np.float64]) -> Any:
        return self.make("geometry_msgs/msg/PoseWithCovariance", pose=self.pose(T), covariance=np.zeros(36))

    def _geometry(self, spec: VoxelGridSpec) -> dict[str, Any]:
        return {"origin": self._xyz("Point", spec.minimum_m), "cell_size": self._xyz("Vector3", spec.cell),
                "shape": np.array(spec.shape, np.uint32)}

    # --- sensors ---

    def image(self, image: CameraImage, *, frame: str = "") -> Any:
        """sensor_msgs Image, rgb8. Without `frame` the camera's name stands for it."""
        height, width, _ = image.pixels.shape
        return self.make(
            "sensor_msgs/msg/Image", header=self.header(image.stamp_ns, frame or image.camera), height=height,
            width=width, encoding="rgb8", is_bigendian=0, step=3 * width, data=image.pixels.reshape(-1),
        )

    def compressed_image(self, image: CameraImage, quality: int = 90, *, frame: str = "") -> Any:
        """sensor_msgs CompressedImage, JPEG of the given quality (1 to 100)."""
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR),
                                  [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not done:
            raise RecordingError(f"{image.pixels.shape} pixels cannot be stored as JPEG",
                                 where=f"image of {image.camera}")
        return self.make("sensor_msgs/msg/CompressedImage", header=self.header(image.stamp_ns, frame or image.camera),
                         format="rgb8; jpeg compressed bgr8", data=data.reshape(-1))

    def camera_info(self, camera: RigCamera, stamp_ns: int = 0) -> Any:
        """sensor_msgs CameraInfo. Lenses that ROS has no name for (mei, double_sphere) get an empty model."""
        parameters = [float(p) for p in camera.parameters]
        fx, fy, cx, cy = parameters[:4]
        model, count = {"equidistant": ("equidistant", 4), "pinhole": ("plumb_bob", 5)}.get(camera.model, ("", 0))
        if camera.model == "pinhole" and len(parameters) > 9:
            model, count = "rational_polynomial", 8
        distortion = (parameters[4:] + [0.0] * count)[:count]
        known = bool(model)
        return self.make(
            "sensor_msgs/msg/CameraInfo", header=self.header(stamp_ns, camera.frame), height=camera.height,
            width=camera.width, distortion_model=model, d=np.array(distortion, np.float64),
            k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], np.float64) * known, r=np.eye(3).reshape(-1) * known,
            p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], np.float64) * known,
        )

    def _point_cloud2(self, header: Any, records: NDArray[Any]) -> Any:
        fields = []
        for name in records.dtype.names or ():
            element, offset = records.dtype.fields[name][:2]  # type: ignore[index]
            fields.append(self.make("sensor_msgs/msg/PointField", name=name, offset=int(offset),
                                    datatype=_POINT_FIELD[element.str[1:]], count=1))
        size = records.dtype.itemsize
        return self.make(
            "sensor_msgs/msg/PointCloud2", header=header, height=1, width=len(records), fields=fields,
            is_bigendian=False, point_step=size, row_step=size * len(records), data=records.view(np.uint8),
            is_dense=True,
        )

    def point_cloud(self, cloud: PointCloud, *, frame: str = "") -> Any:
        """sensor_msgs PointCloud2: x y z, and where the cloud has them intensity and t (int32 ns from the stamp)."""
        given = {"x": cloud.points_m[:, 0], "y": cloud.points_m[:, 1], "z": cloud.points_m[:, 2],
                 "intensity": cloud.intensity, "t": cloud.time_ns}
        columns = {name: values for name, values in given.items() if values is not None}
        records = np.empty(len(cloud.points_m), [(name, _CLOUD[name]) for name in columns])
        for name, values in columns.items():
            records[name] = values
        return self._point_cloud2(self.header(cloud.stamp_ns, frame or cloud.lidar), records)

    def odometry(self, odometry: Odometry) -> Any:
        """nav_msgs Odometry of the base in the odometry frame; covariances unknown (zero)."""
        return self.make(
            "nav_msgs/msg/Odometry", header=self.header(odometry.stamp_ns, self.odom_frame),
            child_frame_id=self.base_frame, pose=self._pose_with_covariance(odometry.T_odom_base),
            twist=self._twist(odometry.linear_mps, odometry.angular_radps),
        )

    def imu(self, stamp_ns: int, angular_radps: ArrayLike, linear_mps2: ArrayLike, *, frame: str = "imu",
            orientation_xyzw: ArrayLike | None = None) -> Any:
        """sensor_msgs Imu in the IMU's axes; without an orientation its covariance says so (-1)."""
        unknown = np.zeros(9)
        unknown[0] = -1.0
        known = orientation_xyzw is not None
        return self.make(
            "sensor_msgs/msg/Imu", header=self.header(stamp_ns, frame),
            orientation=self._quaternion(orientation_xyzw if known else (0, 0, 0, 1)),  # type: ignore[arg-type]
            orientation_covariance=np.zeros(9) if known else unknown,
            angular_velocity=self._xyz("Vector3", angular_radps), angular_velocity_covariance=np.zeros(9),
            linear_acceleration=self._xyz("Vector3", linear_mps2), linear_acceleration_covariance=np.zeros(9),
        )

    def transform(self, stamp_ns: int, parent: str, child: str, T_parent_child: NDArray[np.float64]) -> Any:
        """geometry_msgs TransformStamped."""
        transform = self.make("geometry_msgs/msg/Transform", translation=self._xyz("Vector3", T_parent_child[:3, 3]),
                              rotation=self._quaternion(se3.to_quaternion(T_parent_child)))
        return self.make("geometry_msgs/msg/TransformStamped", header=self.header(stamp_ns, parent),
                         child_frame_id=child, transform=transform)

    def static_transforms(self, rig: Rig, stamp_ns: int = 0) -> Any:
        """tf2_msgs TFMessage: where the rig's sensors sit on its base."""
        mounts = [(camera.frame, camera.T_base_camera) for camera in rig.cameras]
        mounts += [(lidar.frame, lidar.T_base_lidar) for lidar in rig.lidars]
        return self.make("tf2_msgs/msg/TFMessage", transforms=[
            self.transform(stamp_ns, rig.base_frame, frame, T) for frame, T in mounts
        ])

    # --- results ---

    def voxel_grid(self, grid: VoxelGrid) -> Any:
        """occ_perception_msgs VoxelGrid."""
        nothing = np.zeros(0, np.uint8)
        flat = grid.spec.to_message_order
        sensors = sorted(grid.sensor_stamps_ns)
        posed = grid.T_odom_grid is not None
        return self.make(
            "occ_perception_msgs/msg/VoxelGrid", header=self.header(grid.stamp_ns, self.grid_frame),
            **self._geometry(grid.spec), labels=flat(grid.labels),
            confidence=nothing if grid.confidence is None else flat(grid.confidence),
            instance_rows=nothing.astype(np.uint16) if grid.instance_rows is None else flat(grid.instance_rows),
            track_ids=grid.track_ids, taxonomy=grid.taxonomy, model_id=grid.model_id, has_pose=posed,
            grid_in_odom=self.pose(np.eye(4) if grid.T_odom_grid is None else grid.T_odom_grid),
            sensor_names=sensors, sensor_stamps=[self.time(grid.sensor_stamps_ns[name]) for name in sensors],
            flags=sorted(grid.flags),
        )

    def flow_field(self, flow: FlowField) -> Any:
        """occ_perception_msgs FlowField."""
        vx, vy, vz = np.ascontiguousarray(flow.velocity_mps.T)
        return self.make(
            "occ_perception_msgs/msg/FlowField", header=self.header(flow.stamp_ns, self.grid_frame),
            **self._geometry(flow.spec), cell_index=flow.spec.flatten(flow.cells).astype(np.uint32),
            vx=vx, vy=vy, vz=vz, confidence=flow.confidence,
        )

    def tracked_instances(self, stamp_ns: int, instances: Sequence[TrackedInstance], *, taxonomy: str,
                          model_id: str) -> Any:
        """occ_perception_msgs TrackedInstanceArray; what is seen now is confirmed, the rest coasts."""
        items = [
            self.make(
                "occ_perception_msgs/msg/TrackedInstance", track_id=int(item.track_id), label=int(item.label),
                score=float(item.score), pose=self._pose_with_covariance(item.T_grid_object),
                twist=self._twist(item.velocity_mps, np.zeros(3)), size=self._xyz("Vector3", item.size_m),
                age_s=float(item.age_s), unseen_s=float(item.unseen_s), state=1 if item.unseen_s == 0 else 2,
            )
            for item in instances
        ]
        return self.make("occ_perception_msgs/msg/TrackedInstanceArray",
                         header=self.header(stamp_ns, self.grid_frame), taxonomy=taxonomy, model_id=model_id,
                         instances=items)

    def _waypoints(self, trajectory: Trajectory) -> list[Any]:
        """Poses at the waypoints, each looking along the way that led there; a waypoint that is no number ahead.

        The heading is held until the way is `LEAST_STEP_M` long: a robot that stands would else look about at random.
        """
        poses, yaw, (from_x, from_y) = [], 0.0, (0.0, 0.0)
        for x, y in trajectory.positions_m.tolist():
            finite = math.isfinite(x) and math.isfinite(y)
            if finite and math.hypot(x - from_x, y - from_y) >= LEAST_STEP_M:
                yaw, (from_x, from_y) = math.atan2(y - from_y, x - from_x), (x, y)
            half = 0.5 * yaw if finite else 0.0
            poses.append(self.make("geometry_msgs/msg/Pose", position=self._xyz("Point", (x, y, 0.0)),
                                   orientation=self._quaternion((0.0, 0.0, math.sin(half), math.cos(half)))))
        return poses

    def planned_trajectory(self, trajectory: Trajectory, *, model_id: str = "") -> Any:
        """occ_perception_msgs PlannedTrajectory; without a check its judgements are empty (STATUS_UNCHECKED)."""
        check = trajectory.check
        found = {} if check is None else {
            "clearance_m": check.clearance_m, "ruling_label": check.ruling_label, "waypoint_flags": check.flags,
            "taxonomy": check.taxonomy,
        }
        return self.make(
            "occ_perception_msgs/msg/PlannedTrajectory", header=self.header(trajectory.stamp_ns, self.grid_frame),
            poses=self._waypoints(trajectory), times_s=trajectory.times_s, status=int(trajectory.status),
            model_id=model_id, **found,
        )

    # --- the same for tools that know only the standard ---

    def path(self, trajectory: Trajectory) -> Any:
        """nav_msgs Path; each pose stamped with the time at which it should be reached."""
        stamps = trajectory.stamp_ns + np.rint(trajectory.times_s.astype(float) * 1e9).astype(np.int64)
        return self.make("nav_msgs/msg/Path", header=self.header(trajectory.stamp_ns, self.grid_frame), poses=[
            self.make("geometry_msgs/msg/PoseStamped", header=self.header(int(stamp), self.grid_frame), pose=pose)
            for stamp, pose in zip(stamps, self._waypoints(trajectory), strict=True)
        ])

    def labelled_points(self, grid: VoxelGrid) -> Any:
        """sensor_msgs PointCloud2 of the occupied cells' centres: x y z rgb label instance (low 32 bits of the id)."""
        labels = grid.spec.to_message_order(grid.labels)
        index = np.flatnonzero((labels != FREE) & (labels != UNKNOWN))
        label = labels[index]
        nx, ny, _ = grid.spec.shape
        columns, ix = np.divmod(index, nx)
        iz, iy = np.divmod(columns, ny)
        records = np.zeros(len(index), _VOXEL)
        for axis, cells, low, edge in zip("xyz", (ix, iy, iz), grid.spec.minimum_m, grid.spec.cell, strict=True):
            records[axis] = (cells + 0.5) * edge + low
        records["rgb"] = _packed_colours(get_taxonomy(grid.taxonomy))[label]
        records["label"] = label
        if grid.instance_rows is not None:
            ids = np.concatenate([np.zeros(1, np.uint64), grid.track_ids]).astype(np.uint32)
            records["instance"] = ids[grid.spec.to_message_order(grid.instance_rows)[index]]
        return self._point_cloud2(self.header(grid.stamp_ns, self.grid_frame), records)

    def occupancy_grid(self, grid: VoxelGrid, *, height_m: tuple[float, float] = (-0.5, 1.2)) -> Any:
        """nav_msgs OccupancyGrid for Nav2: the dearest cell of each column within the robot's height.

        0 for walkable ground and free space, 50 for ground to avoid (road, grass, kerb, gutter), 100 for
        obstacles and matter without a class, -1 where nothing was observed. The cells must be square.
        """
        lowest, highest = height_m
        centres_z = grid.spec.minimum_m[2] + (np.arange(grid.spec.shape[2]) + 0.5) * grid.spec.cell[2]
        band = (centres_z >= lowest) & (centres_z <= highest)
        cost = _traversal_costs(get_taxonomy(grid.taxonomy))[grid.labels[:, :, band]].max(axis=2, initial=-1)
        nx, ny, _ = grid.spec.shape
        origin = se3.make(np.eye(3), (*grid.spec.minimum_m[:2], 0.0))
        info = self.make("nav_msgs/msg/MapMetaData", map_load_time=self.time(grid.stamp_ns), width=nx, height=ny,
                         resolution=float(grid.spec.cell[0]), origin=self.pose(origin))
        return self.make("nav_msgs/msg/OccupancyGrid", header=self.header(grid.stamp_ns, self.grid_frame), info=info,
                         data=cost.ravel(order="F"))

    def markers(self, grid: VoxelGrid, *, max_cubes: int = 5000) -> Any:
        """visualization_msgs MarkerArray: the occupied cells nearest to the robot as cubes (viewers choke on more)."""
        occupied = np.argwhere((grid.labels != FREE) & (grid.labels != UNKNOWN))
        centres = grid.spec.centre_of(occupied)
        nearest = np.argsort(np.linalg.norm(centres, axis=1), kind="stable")[:max_cubes]
        colours = get_taxonomy(grid.taxonomy).palette() / 255.0
        labels = grid.labels[tuple(occupied[nearest].T)]
        rgba = [self.make("std_msgs/msg/ColorRGBA", r=float(r), g=float(g), b=float(b), a=1.0) for r, g, b in colours]
        marker = self.make(
            "visualization_msgs/msg/Marker", header=self.header(grid.stamp_ns, self.grid_frame), ns="voxels", id=0,
            type=_CUBE_LIST, action=_ADD, pose=self.pose(np.eye(4)), scale=self._xyz("Vector3", grid.spec.cell),
            color=rgba[OCCUPIED], points=[self._xyz("Point", centre) for centre in centres[nearest]],
            colors=[rgba[label] for label in labels],
        )
        return self.make("visualization_msgs/msg/MarkerArray", markers=[marker])

    def label_names(self, taxonomy: Taxonomy) -> Any:
        """std_msgs String: JSON of the taxonomy's name, its labels by id and their colours, to be latched."""
        labels = {str(i): name for i, name in enumerate(taxonomy.classes)}
        labels |= {str(OCCUPIED): "occupied", str(UNKNOWN): "unknown"}
        colours = {key: taxonomy.palette()[int(key)].tolist() for key in labels}
        return self.make("std_msgs/msg/String",
                         data=json.dumps({"taxonomy": taxonomy.name, "labels": labels, "colours": colours}))


def _packed_colours(taxonomy: Taxonomy) -> NDArray[np.float32]:
    """Colour of every label as viewers want it: the bytes b g r 0 read as a float."""
    packed = np.zeros((256, 4), np.uint8)
    packed[:, :3] = taxonomy.palette()[:, ::-1]
    return packed.view("<f4")[:, 0]


def _traversal_costs(taxonomy: Taxonomy) -> NDArray[np.int8]:
    """Cost of every label, int8 [256]."""
    cost = np.full(256, 100, np.int8)
    cost[FREE], cost[UNKNOWN] = 0, -1
    for label in taxonomy.ground:
        cost[label] = TRAVERSAL_COST.get(label, 50)
    return cost
