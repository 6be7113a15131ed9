"""Point records of any field layout, from PointCloud2 messages or files, to clouds of valid points with their times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import BadMessage
from occ_perception.types import PointCloud

# sensor_msgs/PointField datatypes
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
TIME_FIELDS = ("t", "time", "timestamp", "time_stamp", "offset_time")
INTENSITY_FIELDS = ("intensity", "reflectivity")

# A scan lasts between 2 ms and 2 s, which is less than the factor 1000 between units: the span tells the unit.
_SHORTEST_SCAN_NS, _LONGEST_SCAN_NS = 2e6, 2e9
_UNITS_NS = (1e9, 1e3, 1.0)  # seconds, microseconds, nanoseconds


def decode_points(msg: Any, lidar: str) -> PointCloud:
    """The valid points of a sensor_msgs PointCloud2 (rclpy's or rosbags'), in the LiDAR's frame.

    Points with NaN or infinite coordinates and those at exactly (0, 0, 0), which means no return, are left out.
    Point times may be nanoseconds, microseconds or seconds, relative to the stamp or absolute.

    Raises:
        BadMessage: `missing_field`, `wrong_size`, `unknown_field_type` or `empty_cloud`.
    """
    stamp_ns = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
    return from_records(_records(msg, lidar), lidar, int(stamp_ns))


def from_records(records: NDArray[Any], lidar: str, stamp_ns: int) -> PointCloud:
    """The valid points of a flat structured array with fields x, y, z and perhaps an intensity and a time.

    Raises:
        BadMessage: `missing_field` or `empty_cloud`.
    """
    where = f"cloud of {lidar}"
    names = records.dtype.names or ()
    if missing := [axis for axis in "xyz" if axis not in names]:
        raise BadMessage("missing_field", f"no field {', '.join(missing)} among {', '.join(names)}", where=where)
    x, y, z = (records[axis].astype(np.float32) for axis in "xyz")
    keep = np.isfinite(x + y + z) & ((x != 0) | (y != 0) | (z != 0))  # three times faster than along the last axis
    intensity_field = next((name for name in INTENSITY_FIELDS if name in names), None)
    time_field = next((name for name in TIME_FIELDS if name in names), None)
    times = None if time_field is None else records[time_field]
    if times is not None:
        keep &= np.isfinite(times)
    if not keep.any():
        raise BadMessage("empty_cloud", f"none of {len(records)} points is a valid return", where=where,
                         fix="Check the LiDAR and its driver.")
    return PointCloud(
        lidar=lidar,
        stamp_ns=stamp_ns,
        points_m=np.stack([x, y, z], axis=-1)[keep],
        intensity=None if intensity_field is None else records[intensity_field][keep].astype(np.float32),
        time_ns=None if times is None else relative_times_ns(times[keep], stamp_ns),
    )


def _records(msg: Any, lidar: str) -> NDArray[Any]:
    """The message's points as a flat structured array (a view where the layout allows it)."""
    where = f"cloud of {lidar}"
    names, formats, offsets = [], [], []
    order = ">" if msg.is_bigendian else "<"
    for field in msg.fields:
        if field.datatype not in _DTYPES:
            raise BadMessage("unknown_field_type", f"field {field.name!r} has datatype {field.datatype}", where=where)
        element = np.dtype(order + _DTYPES[field.datatype])
        names.append(field.name)
        formats.append(element if field.count <= 1 else (element, (field.count,)))
        offsets.append(int(field.offset))
    width, height, step, row_step = int(msg.width), int(msg.height), int(msg.point_step), int(msg.row_step)
    data = np.frombuffer(msg.data, np.uint8)
    if width * height == 0:
        raise BadMessage("empty_cloud", "the message holds no points", where=where, fix="Check the LiDAR.")
    row_step = row_step if height > 1 else width * step  # drivers of unorganised clouds often leave it 0
    try:
        dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
        organised = np.ndarray((height, width), dtype, data, strides=(row_step, step))
    except (TypeError, ValueError) as error:
        raise BadMessage(
            "wrong_size",
            f"{height} rows of {width} points with step {step} and row step {row_step} do not fit {data.size} bytes "
            f"or the fields {names} ({error})",
            where=where, fix="Check the LiDAR driver.",
        ) from error
    return organised.reshape(-1)


def relative_times_ns(times: NDArray[Any], stamp_ns: int) -> NDArray[np.int64] | None:
    """Point times as int64 nanoseconds relative to the message's stamp; None where their meaning is unclear.

    The unit is told by the span of the scan; where it is too short to tell, integers are taken for
    nanoseconds and floats for seconds. Times are absolute when, in that unit, they lie within a scan of the stamp.
    """
    default_ns = 1e9 if times.dtype.kind == "f" else 1.0
    span = float(times.max()) - float(times.min())
    fitting = [unit for unit in _UNITS_NS if _SHORTEST_SCAN_NS <= span * unit < _LONGEST_SCAN_NS]
    unit_ns = default_ns if default_ns in fitting or not fitting else fitting[0]
    if abs(float(times[0]) * unit_ns) < _LONGEST_SCAN_NS:
        return np.rint(times.astype(np.float64) * unit_ns).astype(np.int64)
    first = times[0].item()
    first_ns = round(first * unit_ns) if isinstance(first, float) else first * int(unit_ns)
    if abs(first_ns - stamp_ns) >= _LONGEST_SCAN_NS:
        return None  # the LiDAR's clock is another one than the stamp's
    since_first = (times.astype(np.float64) - float(first)) * unit_ns
    return np.rint(since_first).astype(np.int64) + np.int64(first_ns - stamp_ns)
