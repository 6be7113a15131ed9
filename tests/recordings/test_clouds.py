"""PointCloud2 of many layouts, and point times in many units, become the same cloud."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ_perception.errors import BadMessage
from occ_perception.recordings.clouds import decode_points, relative_times_ns
from occ_perception.recordings.messages import make

STAMP_NS = 1_700_000_000_123_456_789
DATATYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def cloud(records, *, height=1, row_padding=0, stamp_ns=STAMP_NS):
    """A PointCloud2 of a structured array, laid out as the array's dtype says."""
    names, dtype = records.dtype.names, records.dtype
    big_endian = dtype[names[0]].str.startswith(">")
    fields = [make("sensor_msgs/msg/PointField", name=n, offset=dtype.fields[n][1],
                   datatype=DATATYPES[dtype[n].str[1:]], count=1) for n in names]
    width = len(records) // height
    rows = np.frombuffer(records.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, row_padding)), constant_values=255)
    header = make("std_msgs/msg/Header", stamp=make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9,
                                                    nanosec=stamp_ns % 10**9))
    return make("sensor_msgs/msg/PointCloud2", header=header, height=height, width=width, fields=fields,
                is_bigendian=big_endian, point_step=dtype.itemsize, row_step=rows.shape[1], data=rows.reshape(-1))


XYZ = np.array([[1, 2, 3], [4, 5, 6], [-7, 8.5, 0.25], [0, 0, 9]])


def filled(dtype, xyz=XYZ):
    records = np.zeros(len(xyz), dtype)
    for axis, values in zip("xyz", np.asarray(xyz, float).T, strict=True):
        records[axis] = values
    return records


OUSTER = np.dtype({"names": ["x", "y", "z", "intensity", "t", "reflectivity", "ring", "ambient", "range"],
                   "formats": ["<f4", "<f4", "<f4", "<f4", "<u4", "<u2", "u1", "<u2", "<u4"],
                   "offsets": [0, 4, 8, 16, 20, 24, 26, 28, 32], "itemsize": 48})
VELODYNE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2"), ("time", "<f4")])
HESAI = np.dtype({"names": ["x", "y", "z", "intensity", "timestamp", "ring"],
                  "formats": ["<f4", "<f4", "<f4", "<f4", "<f8", "<u2"], "offsets": [0, 4, 8, 16, 24, 32],
                  "itemsize": 48})
DOUBLES = np.dtype([("z", "<f8"), ("y", "<f8"), ("x", "<f8")])
BIG_ENDIAN = np.dtype([("x", ">f4"), ("y", ">f4"), ("z", ">f4"), ("intensity", ">f4"), ("t", ">u4")])


@pytest.mark.parametrize("dtype", [OUSTER, VELODYNE, HESAI, DOUBLES, BIG_ENDIAN],
                         ids=["ouster", "velodyne", "hesai", "doubles", "big_endian"])
@pytest.mark.parametrize(("height", "row_padding"), [(1, 0), (2, 0), (2, 12)])
def test_points_are_found_in_any_layout(dtype, height, row_padding):
    result = decode_points(cloud(filled(dtype), height=height, row_padding=row_padding), "top")
    np.testing.assert_array_equal(result.points_m, XYZ.astype(np.float32))
    assert result.stamp_ns == STAMP_NS
    assert result.lidar == "top"


def test_intensity_and_times_belong_to_the_points_that_remain():
    records = filled(VELODYNE, [[1, 2, 3], [0, 0, 0], [np.nan, 1, 1], [np.inf, 0, 0], [4, 5, 6]])
    records["intensity"] = [10, 20, 30, 40, 50]
    records["time"] = [0.0, 0.02, 0.04, 0.06, 0.1]
    result = decode_points(cloud(records), "top")
    np.testing.assert_array_equal(result.points_m, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(result.intensity, [10, 50])
    np.testing.assert_allclose(result.time_ns, [0, 100_000_000], atol=10)


def test_a_cloud_without_times_or_intensity_says_so():
    result = decode_points(cloud(filled(DOUBLES)), "top")
    assert result.time_ns is None
    assert result.intensity is None


SCAN_NS = np.linspace(0, 99_900_000, 50).round().astype(np.int64)


@pytest.mark.parametrize(("times", "tolerance_ns"), [
    (SCAN_NS.astype(np.uint32), 0),  # Ouster: t
    ((SCAN_NS // 1000).astype(np.uint32), 1000),  # microseconds
    ((SCAN_NS * 1e-9).astype(np.float32), 10),  # Velodyne: time
    ((SCAN_NS * 1e-3).astype(np.float32), 10),
    (SCAN_NS.astype(np.float64), 0),
    ((STAMP_NS + SCAN_NS) * 1e-9, 500),  # Hesai: timestamp, absolute seconds
    ((STAMP_NS + SCAN_NS).astype(np.float64), 300),  # Livox: absolute nanoseconds
], ids=["ns_u4", "us_u4", "s_f4", "us_f4", "ns_f8", "absolute_s", "absolute_ns"])
def test_point_times_are_understood_by_type_and_magnitude(times, tolerance_ns):
    result = relative_times_ns(times, STAMP_NS)
    assert result.dtype == np.int64
    np.testing.assert_allclose(result, SCAN_NS, atol=tolerance_ns)


def test_times_before_the_stamp_stay_negative():
    times = ((SCAN_NS - SCAN_NS[-1]) * 1e-9).astype(np.float32)
    np.testing.assert_allclose(relative_times_ns(times, STAMP_NS), SCAN_NS - SCAN_NS[-1], atol=10)


def test_times_of_another_clock_than_the_stamps_count_as_unknown():
    assert relative_times_ns((STAMP_NS - 3600 * 10**9 + SCAN_NS) * 1e-9, STAMP_NS) is None


@given(st.integers(10_000_000, 1_000_000_000), st.integers(2, 40))
def test_integer_nanoseconds_come_back_exactly(span_ns, count):
    times = np.linspace(0, span_ns, count).round().astype(np.uint32)
    np.testing.assert_array_equal(relative_times_ns(times, STAMP_NS), times)


@pytest.mark.parametrize("xyz", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.zeros((0, 3))],
                         ids=["zeros", "nan", "none"])
def test_clouds_without_a_valid_point_are_empty(xyz):
    with pytest.raises(BadMessage) as caught:
        decode_points(cloud(filled(VELODYNE, xyz)), "top")
    assert caught.value.reason == "empty_cloud"


def test_a_cloud_without_z_is_refused():
    with pytest.raises(BadMessage, match="no field z") as caught:
        decode_points(cloud(np.ones(3, [("x", "<f4"), ("y", "<f4")])), "top")
    assert caught.value.reason == "missing_field"


@pytest.mark.parametrize("change", [{"width": 100}, {"point_step": 10}, {"height": 3}])
def test_sizes_that_do_not_fit_are_refused(change):
    message = cloud(filled(VELODYNE))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(BadMessage) as caught:
        decode_points(message, "top")
    assert caught.value.reason == "wrong_size"


def test_an_unknown_field_type_is_refused():
    message = cloud(filled(VELODYNE))
    message.fields[0].datatype = 99
    with pytest.raises(BadMessage) as caught:
        decode_points(message, "top")
    assert caught.value.reason == "unknown_field_type"
