"""Files of results: written beside their place and renamed, JSON with one line per list of numbers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

_FLAT_LIST = re.compile(r"\[\s+([^][{}]*?)\s+\]")
_BREAK = re.compile(r",\n\s*")


def write_text(path: Path, text: str) -> None:
    """Write a text file, at once or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write plain values; a list of plain values takes one line, so that differences are readable."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    write_text(path, _FLAT_LIST.sub(lambda found: "[" + _BREAK.sub(", ", found[1]) + "]", text) + "\n")
