"""Files and folders are whole or not there; what the disk refuses is told with what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from occ_perception.datasets.files import new_file, new_folder
from occ_perception.errors import DatasetError, OccPerceptionError, TrainingError


def test_a_file_takes_its_place_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "split.yaml"
    with new_file(path) as beside:
        beside.write_text("first")
        assert not path.exists()
    with new_file(path) as beside:
        beside.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def fill(beside: Path) -> None:
    """Write something, until the disk is full."""
    beside.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def file_on_a_full_disk(path: Path, error: type[OccPerceptionError]) -> None:
    with new_file(path, error) as beside:
        fill(beside)


def folder_on_a_full_disk(path: Path) -> None:
    with new_folder(path) as beside:
        fill(beside / "000.npz")


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "split.yaml"
    path.write_text("before")
    for error in (DatasetError, TrainingError):
        with pytest.raises(error, match=r"split\.yaml: cannot be written .*No space left.*room on the disk"):
            file_on_a_full_disk(path, error)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_filled_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="scene: cannot be written"):
        folder_on_a_full_disk(tmp_path / "scene")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "scene"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "scene") as beside:
        (beside / "000.npz").write_text("whole")
    assert (tmp_path / "scene" / "000.npz").read_text() == "whole"


def test_what_lies_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DatasetError, match="cannot be written"), new_file(tmp_path / "file" / "x") as beside:
        beside.write_text("never")
