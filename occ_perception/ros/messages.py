"""Builds rclpy messages for `MessageEncoder`. Large fields travel as array.array, which the setters take as is."""

from __future__ import annotations

import array
import importlib
from functools import cache
from typing import Any

import numpy as np

_TYPECODES = {
    "uint8": "B", "octet": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i",
    "uint64": "Q", "int64": "q", "float": "f", "double": "d",
}


@cache
def message_class(type_name: str) -> type:
    """The rclpy class of a type such as `sensor_msgs/msg/Image`; ImportError names the missing package."""
    package, kind, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)  # type: ignore[no-any-return]


@cache
def _sequence_codes(cls: type) -> dict[str, str]:
    """Array typecode of every unbounded or bounded sequence of numbers in a message class."""
    fields: dict[str, str] = cls.get_fields_and_field_types()  # type: ignore[attr-defined]
    inner = {name: kind[len("sequence<"):-1].split(",")[0] for name, kind in fields.items()
             if kind.startswith("sequence<")}
    return {name: _TYPECODES[kind] for name, kind in inner.items() if kind in _TYPECODES}


def packed(values: Any, typecode: str) -> array.array[Any]:
    """`values` (array, bytes or sequence) as an array.array; contiguous arrays of that type are copied once."""
    if isinstance(values, array.array) and values.typecode == typecode:
        return values
    if isinstance(values, (bytes, bytearray, memoryview)):
        contiguous = np.frombuffer(values, np.uint8)
    else:
        contiguous = np.ascontiguousarray(values, dtype=np.dtype(typecode)).reshape(-1)
    result = array.array(typecode)
    result.frombytes(memoryview(contiguous).cast("B"))
    return result


def make(type_name: str, **fields: Any) -> Any:
    """A message of that type with its fields set: the `make` of `recordings.encode.MessageEncoder` for rclpy."""
    cls = message_class(type_name)
    codes = _sequence_codes(cls)
    return cls(**{name: packed(value, codes[name]) if name in codes else value for name, value in fields.items()})
