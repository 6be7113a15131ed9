"""Files of results: there whole or not at all; JSON with one line per list of numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from occ_perception.datasets.files import new_file
from occ_perception.errors import TrainingError

ROOM = "Make room on the disk, then repeat the command, a training with --resume"
_FLAT_LIST = re.compile(r"\[\n\s*([^][{}]*?)\s+\]")
_BREAK = re.compile(r",\n\s*")


def write_text(path: Path, text: str) -> None:
    """Write a text file; errors as in `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, at once or not at all.

    Raises:
        TrainingError: the disk does not take it; a file that was there is as it was.
    """
    with new_file(path, TrainingError, ROOM) as beside:
        beside.write_bytes(content)


def write_json(path: Path, content: Any, *, allow_nan: bool = False) -> None:
    """Write plain values; a list of plain values takes one line, so that differences are readable.

    Raises:
        TrainingError: as in `write_bytes`.
        ValueError: a number is not finite, and `allow_nan` is False.
    """
    text = json.dumps(content, indent=1, allow_nan=allow_nan, ensure_ascii=False)
    write_text(path, _FLAT_LIST.sub(lambda found: "[" + _BREAK.sub(", ", found[1]) + "]", text) + "\n")
