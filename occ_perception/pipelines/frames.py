"""Synchronised messages to a `SensorFrame`: decoded, checked against the rig, deskewed, with the pose of the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage
from occ_perception.pipelines.deskew import deskew, warm_up
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.pipelines.synchroniser import SyncedSet, Synchroniser
from occ_perception.recordings.decode import decode_image, decode_points
from occ_perception.types import CameraImage, PointCloud, SensorFrame

LIDAR_MAX_AGE_S = 0.45
"""A sweep of 5 Hz arrives 0.2 s after its stamp and is used until the next one arrives: up to 0.4 s, and slack."""


def synchroniser_for(
    rig: Rig, *, anchor: str | None = None, lidars: Sequence[str] = (), lidar_max_age_s: float = LIDAR_MAX_AGE_S,
    **options: Any
) -> Synchroniser:
    """A synchroniser for all cameras of a rig and the named LiDARs, with the rig's time offsets.

    LiDARs are never waited for: a frame takes the newest scan at hand that is not older than `lidar_max_age_s`, and
    deskewing brings it to the frame's stamp. `anchor` defaults to the rig's first camera; `options` go to
    `Synchroniser`.
    """
    anchor = rig.camera(anchor).name if anchor else rig.cameras[0].name
    offsets = {camera.name: camera.time_offset_s for camera in rig.cameras}
    offsets |= {name: rig.lidar(name).time_offset_s for name in lidars}
    others = [name for name in offsets if name != anchor]
    return Synchroniser(anchor, others, offsets_s=offsets, held_s=dict.fromkeys(lidars, lidar_max_age_s), **options)


class FrameAssembler:
    """Makes sensor frames out of synchronised sets. Payloads are messages, or images and clouds already decoded.

    Of a scan those returns are left out that are nearer than the rig's `minimum_range_m`: they are of the robot itself.

    A set whose anchor image is bad gives no frame. Any other bad message leaves the frame without that sensor and is
    counted in `drops` by its reason; so does a scan that odometry does not reach over (`no_motion`).
    """

    def __init__(self, rig: Rig, odometry: OdometryBuffer) -> None:
        self.drops: Counter[str] = Counter()
        self._cameras = {camera.name: camera for camera in rig.cameras}
        self._lidars = {lidar.name: lidar for lidar in rig.lidars}
        self._odometry = odometry
        self._scans: dict[str, tuple[Any, PointCloud]] = {}
        if rig.lidars:
            warm_up()

    def assemble(self, synced: SyncedSet) -> SensorFrame:
        """The frame at the anchor's stamp.

        Raises:
            BadMessage: the anchor's image cannot be used.
        """
        images: dict[str, CameraImage] = {}
        clouds: dict[str, PointCloud] = {}
        anchor = next(iter(synced.payloads))
        for sensor, payload in synced.payloads.items():
            stamp_ns = synced.stamps_ns[sensor]
            try:
                if sensor in self._cameras:
                    images[sensor] = self._image(sensor, stamp_ns, payload)
                else:
                    clouds[sensor] = self._cloud(sensor, stamp_ns, payload, synced.stamp_ns)
            except BadMessage as error:
                if sensor == anchor:
                    raise
                self.drops[error.reason] += 1
        return SensorFrame(
            stamp_ns=synced.stamp_ns,
            images=images,
            clouds=clouds,
            T_odom_base=self._odometry.pose_at(synced.stamp_ns),
            T_anchor_exposure=self._exposure_motion(images, synced.stamp_ns),
        )

    def _image(self, sensor: str, stamp_ns: int, payload: Any) -> CameraImage:
        pixels = payload.pixels if isinstance(payload, CameraImage) else decode_image(payload)
        camera = self._cameras[sensor]
        if pixels.shape[:2] != (camera.height, camera.width):
            raise BadMessage(
                "wrong_size",
                f"image is {pixels.shape[1]}x{pixels.shape[0]}, the rig says {camera.width}x{camera.height}",
                where=f"camera {sensor}", fix="Use the rig that was calibrated for this resolution.",
            )
        return CameraImage(sensor, stamp_ns, pixels)

    def _cloud(self, sensor: str, stamp_ns: int, payload: Any, anchor_ns: int) -> PointCloud:
        lidar = self._lidars[sensor]
        kept, cloud = self._scans.get(sensor, (None, None))
        if cloud is None or kept is not payload:  # a held scan serves several frames
            cloud = payload if isinstance(payload, PointCloud) else decode_points(payload, sensor)
            if lidar.minimum_range_m is not None:
                cloud = beyond(cloud, lidar.minimum_range_m)
            self._scans[sensor] = payload, cloud
        return deskew(replace(cloud, stamp_ns=stamp_ns), self._odometry, lidar.T_base_lidar, anchor_ns)

    def _exposure_motion(self, images: dict[str, CameraImage], anchor_ns: int) -> dict[str, NDArray[np.float64]]:
        motions = {
            name: self._odometry.motion(image.stamp_ns, anchor_ns)
            for name, image in images.items() if image.stamp_ns != anchor_ns
        }
        return {name: motion for name, motion in motions.items() if motion is not None}


def beyond(cloud: PointCloud, minimum_m: float) -> PointCloud:
    """The returns of a scan that are not nearer to the LiDAR than that."""
    x, y, z = cloud.points_m.T
    keep = x * x + y * y + z * z >= minimum_m**2
    return replace(cloud, points_m=cloud.points_m[keep],
                   intensity=None if cloud.intensity is None else cloud.intensity[keep],
                   time_ns=None if cloud.time_ns is None else cloud.time_ns[keep])
