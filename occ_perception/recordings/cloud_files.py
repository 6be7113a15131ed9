"""Point clouds from files: .npz and .npy (structured or [N, 3+] arrays), .pcd (ascii, binary) and KITTI's .bin."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.recfunctions import unstructured_to_structured
from numpy.typing import NDArray

from occ_perception.errors import BadMessage, RecordingError
from occ_perception.recordings.clouds import from_records
from occ_perception.types import PointCloud

SUFFIXES = (".npz", ".npy", ".pcd", ".bin")
_NPZ_KEYS = ("cloud", "points", "data")
_COLUMNS = ("x", "y", "z", "intensity")
_PCD_KIND = {"F": "f", "U": "u", "I": "i"}


def read_cloud(path: str | Path, lidar: str, stamp_ns: int) -> PointCloud:
    """The valid points of a file, in the LiDAR's frame.

    Raises:
        RecordingError: unknown kind of file, content that does not fit it, no x y z in it, or no valid point.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".npy": _read_npy, ".pcd": _read_pcd, ".bin": _read_bin}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise RecordingError("is no point cloud file", where=str(path), fix=f"Known kinds: {', '.join(SUFFIXES)}.")
    try:
        return from_records(reader(path), lidar, stamp_ns)
    except BadMessage as error:
        raise RecordingError(error.what, where=str(path)) from error
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise RecordingError(f"cannot be read as {path.suffix} ({error})", where=str(path)) from error


def _as_records(array: NDArray[Any]) -> NDArray[Any]:
    """A structured array as it is, a plain one [..., 3 or more] as x y z (intensity)."""
    if array.dtype.names:
        return array.reshape(-1)
    if array.ndim < 2 or array.shape[-1] < 3:
        raise ValueError(f"points must be [N, 3] or wider, got {array.shape}")
    columns = _COLUMNS[: array.shape[-1]]
    plain = array.reshape(-1, array.shape[-1])[:, : len(columns)]
    return np.asarray(unstructured_to_structured(plain, names=list(columns)))


def _read_npz(path: Path) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as archive:
        keys = [key for key in _NPZ_KEYS if key in archive.files] or archive.files[:1]
        if not keys:
            raise ValueError("no array inside")
        return _as_records(archive[keys[0]])


def _read_npy(path: Path) -> NDArray[Any]:
    return _as_records(np.load(path, allow_pickle=False))


def _read_bin(path: Path) -> NDArray[Any]:
    return _as_records(np.fromfile(path, "<f4").reshape(-1, 4))


def _read_pcd(path: Path) -> NDArray[Any]:
    content = path.read_bytes()
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = content.index(b"\n", position)
        words = content[position:end].decode("ascii").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(header["FIELDS"]))]
    fields: list[Any] = []
    for i, (name, kind, size) in enumerate(zip(header["FIELDS"], header["TYPE"], header["SIZE"], strict=True)):
        unique = f"padding{i}" if name == "_" else name
        fields.append((unique, f"<{_PCD_KIND[kind]}{size}", (counts[i],) if counts[i] > 1 else ()))
    dtype, points, storage = np.dtype(fields), int(header["POINTS"][0]), header["DATA"][0].lower()
    if storage == "binary":
        return np.frombuffer(content, dtype, points, position)
    if storage == "ascii" and set(counts) == {1}:
        rows = [tuple(line.split()) for line in content[position:].decode("ascii").splitlines() if line.strip()]
        if len(rows) != points:
            raise ValueError(f"{len(rows)} rows, the header promises {points}")
        return np.array(rows, dtype)
    raise ValueError(f"DATA {storage} is not supported; `pcl_convert_pcd_ascii_binary IN OUT 1` makes it binary")
