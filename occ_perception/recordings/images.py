"""Image messages to RGB pixels: raw encodings, compressed streams, and a clear refusal of everything else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import BadMessage

Pixels = NDArray[np.uint8]

_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 256  # bytes in which the end marker must lie; some cameras pad behind it


def decode_image(msg: Any) -> Pixels:
    """RGB pixels uint8 [H, W, 3] of a sensor_msgs Image or CompressedImage (rclpy's or rosbags').

    Raises:
        BadMessage: `unknown_encoding`, `wrong_size` or `undecodable_image`.
    """
    return _decode_raw(msg) if hasattr(msg, "encoding") else _decode_compressed(msg)


def _decode_compressed(msg: Any) -> Pixels:
    data = np.frombuffer(msg.data, np.uint8)
    where = f"compressed image, format {msg.format!r}"
    if data[:2].tobytes() == _JPEG_BEGIN and _JPEG_END not in data[-_JPEG_TAIL:].tobytes():
        # The decoder would fill the missing rows with grey, which a network takes for a wall.
        raise BadMessage("undecodable_image", f"a JPEG of {data.size} bytes that is cut off", where=where)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadMessage("undecodable_image", f"{data.size} bytes are no JPEG, PNG or other known image", where=where,
                         fix="Check the camera driver's compressed topic.")
    return np.asarray(pixels, np.uint8)


def _cvt(code: int) -> Callable[[Any], Any]:
    return lambda image: cv2.cvtColor(image, code)


# Encoding: (channels stored per pixel, rows stored per image row, conversion of uint8 [rows, W, channels] to RGB).
_UINT8: dict[str, tuple[int, float, Callable[[Any], Any]]] = {
    "rgb8": (3, 1, np.ascontiguousarray),
    "bgr8": (3, 1, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": (4, 1, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": (4, 1, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": (1, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "yuv422": (2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY)),
    "uyvy": (2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": (2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2)),
    "yuyv": (2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2)),
    "nv12": (1, 1.5, _cvt(cv2.COLOR_YUV2RGB_NV12)),
    "nv21": (1, 1.5, _cvt(cv2.COLOR_YUV2RGB_NV21)),
    "bayer_rggb8": (1, 1, _cvt(cv2.COLOR_BayerRGGB2RGB)),
    "bayer_bggr8": (1, 1, _cvt(cv2.COLOR_BayerBGGR2RGB)),
    "bayer_gbrg8": (1, 1, _cvt(cv2.COLOR_BayerGBRG2RGB)),
    "bayer_grbg8": (1, 1, _cvt(cv2.COLOR_BayerGRBG2RGB)),
}
# 16-bit encodings are scaled to 8 bits and go on as these; 65535 becomes 255.
_UINT16 = {
    "mono16": "mono8", "rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8",
    "bayer_rggb16": "bayer_rggb8", "bayer_bggr16": "bayer_bggr8",
    "bayer_gbrg16": "bayer_gbrg8", "bayer_grbg16": "bayer_grbg8",
}
ENCODINGS = (*_UINT8, *_UINT16)
"""Raw encodings that are decoded here, without cv_bridge."""


def _decode_raw(msg: Any) -> Pixels:
    encoding = msg.encoding.lower()
    if encoding not in ENCODINGS:
        return _by_cv_bridge(msg)
    wide = encoding in _UINT16
    channels, rows_per_row, to_rgb = _UINT8[_UINT16.get(encoding, encoding)]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    rows, row_bytes = int(height * rows_per_row), width * channels * (2 if wide else 1)
    data = np.frombuffer(msg.data, np.uint8)
    if height == 0 or width == 0 or step < row_bytes or data.size < rows * step:
        raise BadMessage(
            "wrong_size",
            f"{width}x{height} {encoding} needs rows of at least {row_bytes} bytes and {rows} rows; "
            f"got step {step} and {data.size} bytes",
            where="image", fix="Check the camera driver.",
        )
    stored = data[: rows * step].reshape(rows, step)[:, :row_bytes]
    if wide:
        order = ">u2" if msg.is_bigendian else "<u2"
        stored = ((np.ascontiguousarray(stored).view(order).astype(np.uint32) + 128) // 257).astype(np.uint8)
    try:
        return np.asarray(to_rgb(np.ascontiguousarray(stored).reshape(rows, width, channels)), np.uint8)
    except cv2.error as error:  # such as an odd width in a format that pairs pixels
        raise BadMessage("wrong_size", f"{width}x{height} {encoding} cannot be converted ({error.err})",
                         where="image") from error


def _by_cv_bridge(msg: Any) -> Pixels:
    """The few encodings we do not read, where a ROS installation brings cv_bridge."""
    try:
        bridge = importlib.import_module("cv_bridge")  # by name: this package must not depend on ROS
    except (ImportError, AttributeError) as error:  # AttributeError: a cv_bridge built for another numpy
        raise BadMessage(
            "unknown_encoding", f"encoding {msg.encoding!r}", where="image",
            fix=f"Publish one of {', '.join(ENCODINGS)}, or install cv_bridge for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}.",
        ) from error
    try:
        return np.ascontiguousarray(bridge.CvBridge().imgmsg_to_cv2(msg, "rgb8"), np.uint8)
    except bridge.CvBridgeError as error:
        raise BadMessage("unknown_encoding", f"encoding {msg.encoding!r} ({error})", where="image",
                         fix=f"Publish one of {', '.join(ENCODINGS)}.") from error
