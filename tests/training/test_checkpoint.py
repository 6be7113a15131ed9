"""Files of weights: whole or not there, refused with what differs."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from occ_perception.errors import TrainingError
from occ_perception.training import checkpoint
from occ_perception.training.checkpoint import (
    differences,
    load_network,
    load_tensors,
    load_weights,
    save_tensors,
    source_commit,
)
from occ_perception.training.files import write_json


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_last_file_whole_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {"step": 1})
    with disk_of(10_000), pytest.raises(TrainingError, match="disk, then go on with --resume") as caught:
        save_tensors(path, {"a": torch.zeros(100_000)}, {"step": 2})
    assert "before is whole" in str(caught.value)
    tensors, header = load_tensors(path)
    assert (tensors["a"].tolist(), header["step"]) == ([1, 1, 1], 1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with disk_of(10), pytest.raises(TrainingError, match="room on the disk"):
        write_json(tmp_path / "summary.json", {"text": "x" * 100})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_json_has_a_line_per_list_of_numbers_and_no_nan_unasked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"counts": [[1, 2], [3, 4]], "text": "[ as  it is ]"})
    assert path.read_text() == '{\n "counts": [\n  [1, 2],\n  [3, 4]\n ],\n "text": "[ as  it is ]"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert "counts" in path.read_text()
    write_json(path, {"x": float("nan")}, allow_nan=True)
    assert "NaN" in path.read_text()


def test_the_commit_says_whether_the_code_was_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True,
                              check=True).stdout.strip()

    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "code.py"))
    assert source_commit() is None
    git("init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    (tmp_path / "new.py").write_text("not git's")
    assert source_commit() == git("rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("x = 2\n")
    assert source_commit() == git("rev-parse", "HEAD") + "-dirty"


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {"0.weight": torch.zeros(4, 2), "0.bias": torch.zeros(3), "1.weight": torch.zeros(1, 3),
               "2.bias": torch.zeros(1)}
    with pytest.raises(TrainingError) as caught:
        load_weights(module, tensors, where="somewhere", fix="Do this")
    assert str(caught.value) == ("somewhere: does not fit the network: 0.weight is (4, 2), not (3, 2), "
                                 "1.bias is missing, 2.bias is not in the network. Do this")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_of_many_misfits_the_first_are_named() -> None:
    tensors = {f"{i}.weight": torch.zeros(1) for i in range(9)}
    with pytest.raises(TrainingError, match=r"3\.weight is not in the network, and 5 more"):
        load_weights(nn.Identity(), tensors, where="")


def test_differences_name_the_place_and_both_values() -> None:
    theirs = {"seed": 0, "network": {"stem": 8, "stages": [1, 2]}, "gone": True}
    mine = {"seed": 0, "network": {"stem": 16, "stages": [1, 2]}, "new": "cpu"}
    assert differences(theirs, mine) == ["network.stem 8, not 16", "new absent, not cpu", "gone true, not absent"]


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00\x01 no tensors")
    with pytest.raises(TrainingError, match="no readable safetensors"):
        load_network(broken)
    with pytest.raises(TrainingError, match="no such checkpoint"):
        load_network(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    save_tensors(other, {"weights/x": torch.zeros(1)}, {"network": {}})
    with pytest.raises(TrainingError, match="holds no WalkOCC network of this version"):
        load_network(other)
