"""Files and folders that are there whole or not at all: written beside their place and renamed.

What the disk refuses is an error of ours, which says where and what to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from occ_perception.errors import DatasetError, OccPerceptionError

ROOM = "Make room on the disk, then repeat the command: it goes on from there"


@contextmanager
def writing(path: Path, error: type[OccPerceptionError] = DatasetError, fix: str = ROOM) -> Iterator[None]:
    """Whatever the disk refuses while `path` is written is raised as `error`."""
    try:
        yield
    except OSError as refused:
        raise error(f"cannot be written ({refused})", where=str(path), fix=fix) from refused


@contextmanager
def new_file(path: Path, error: type[OccPerceptionError] = DatasetError, fix: str = ROOM) -> Iterator[Path]:
    """A path beside `path` to be written to. At the end it takes the place of `path`; if anything fails it goes away.

    Raises:
        OccPerceptionError: `error`, if the disk refuses; what was at `path` is as it was.
    """
    beside = _beside(path)
    with writing(path, error, fix):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which must not exist, to be filled; else as `new_file`."""
    beside = _beside(path)
    with writing(path):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            yield beside
            os.replace(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp{os.getpid()}")
