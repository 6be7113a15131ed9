"""The ROS 2 messages we speak, for programs without ROS: type store, and making messages with defaults."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from occ_perception.errors import RecordingError

MSG_FOLDER = Path(__file__).parent / "msg"
"""Texts of our own messages, the same files that the ROS package is built from."""
PACKAGE = "occ_perception_msgs"


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """All types of ROS 2 Jazzy and our own, for rosbags. One store is shared by the whole process.

    Raises:
        RecordingError: the installed package carries no message texts.
    """
    texts = sorted(MSG_FOLDER.glob("*.msg"))
    if not texts:
        raise RecordingError("no message texts found", where=str(MSG_FOLDER), fix="Reinstall occ_perception.")
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for text in texts:
        types.update(get_types_from_msg(text.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{text.stem}"))
    store.register(types)
    return store


def make(type_name: str, **fields: Any) -> Any:
    """A rosbags message of that type; fields that are not given hold their type's zero, as in rclpy.

    Numeric sequences may be given as anything that numpy takes; they are stored as arrays of the declared type.

    Raises:
        RecordingError: the type is unknown or has no field of that name.
    """
    store = typestore()
    if type_name not in store.fielddefs:
        raise RecordingError(f"unknown message type {type_name!r}")
    descriptions = dict(store.fielddefs[type_name][1])
    if foreign := sorted(fields.keys() - descriptions.keys()):
        raise RecordingError(f"no fields {foreign}", where=type_name, fix=f"Its fields: {', '.join(descriptions)}.")
    values = {
        name: _typed(description, fields[name]) if name in fields else _zero(description)
        for name, description in descriptions.items()
    }
    return store.types[type_name](**values)


def _base(description: Any) -> str | None:
    """Name of the base type of a field description's elements, None for nested messages."""
    kind, detail = description
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return _base(detail[0])
    return str(detail[0]) if kind == Nodetype.BASE else None


def _typed(description: Any, value: Any) -> Any:
    base = _base(description)
    if description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) and base not in (None, "string"):
        return np.ascontiguousarray(value, dtype={"byte": "uint8", "char": "uint8"}.get(str(base), base))
    return value


def _zero(description: Any) -> Any:
    kind, detail = description
    if kind == Nodetype.NAME:
        return make(detail)
    base = _base(description)
    if kind == Nodetype.BASE:
        return {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(str(base), 0)
    length = detail[1] if kind == Nodetype.ARRAY else 0
    if base in (None, "string"):
        return [_zero(detail[0]) for _ in range(length)]
    return _typed(description, np.zeros(length))
