"""Data sets by name, and splits by what lies in a folder. A reader is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from occ_perception.datasets.sample import Dataset
from occ_perception.datasets.sidewalk3d import Sidewalk3dDataset, read_splits
from occ_perception.datasets.simulated import SimulatedDataset
from occ_perception.errors import ConfigurationError, DatasetError

Opener = Callable[[Path, str], Dataset]
"""Of the folder of a data set and the name of one of its splits."""
LabelledSplit = SimulatedDataset | Sidewalk3dDataset
"""A split in the sidewalk classes that can be learned from as it is."""


def _reader(module: str, opener: str) -> Opener:
    def opened(root: Path, split: str) -> Dataset:
        found = getattr(import_module(f"occ_perception.datasets.{module}"), opener)
        return cast(Dataset, found(root, split))

    return opened


DATASETS: dict[str, Opener] = {
    "simulated": _reader("simulated", "SimulatedDataset"),
    "sidewalk3d": _reader("sidewalk3d", "Sidewalk3dDataset"),
    "semantic_kitti": _reader("semantic_kitti", "SemanticKittiDataset"),
    "kitti_360": _reader("kitti_360", "Kitti360Dataset"),
    "sscbench_kitti_360": _reader("kitti_360", "SscBenchKitti360Dataset"),
    "rellis_3d": _reader("rellis_3d", "Rellis3dDataset"),
    "occ3d_nuscenes": _reader("nuscenes", "open_occ3d"),
    "openocc_nuscenes": _reader("nuscenes", "open_openocc"),
    "occ3d_waymo": _reader("occ3d_waymo", "open_occ3d"),
    "trackocc_waymo": _reader("occ3d_waymo", "open_trackocc"),
}
"""Name to what opens it. A new data set is a module with a `Dataset`, and its line here."""


def open_dataset(name: str, root: Path | str, split: str) -> Dataset:
    """A split of the data set that `DATASETS` has under that name.

    Raises:
        ConfigurationError: there is no data set, or no split, of that name; the known ones are listed.
        DatasetError: a file is missing or does not fit; the message names it.
    """
    if name not in DATASETS:
        raise ConfigurationError([f"unknown data set {name!r}"], fix=f"Known data sets: {', '.join(DATASETS)}")
    return DATASETS[name](Path(root), split)


def split_names(root: Path | str) -> list[str]:
    """Names of the splits in a folder, simulated or listed in its `splits.yaml`."""
    root = Path(root)
    listed = read_splits(root)[1] if (root / "splits.yaml").is_file() else {}
    return sorted({path.parent.name for path in root.glob("*/split.yaml")} | listed.keys())


def open_split(root: Path | str, name: str) -> LabelledSplit:
    """A split by what lies in `root`: a simulated one in the folder ROOT/NAME, or one that ROOT/splits.yaml lists.

    Raises:
        DatasetError: there is no such split (those that are there are listed), it has images alone or labels of
            another taxonomy, or a file is broken.
    """
    root = Path(root)
    if (root / name / "split.yaml").is_file():
        simulated = SimulatedDataset(root, name)
        if simulated.about.get("images_only"):
            raise DatasetError("holds images with 2D labels alone, no voxels", where=str(simulated.folder),
                               fix=f"Name it among the 2D-only splits (`--images {name}=COUNT`)")
        return simulated
    known = split_names(root)
    if name in known:
        return Sidewalk3dDataset(root, name)
    raise DatasetError(f"no split {name!r}; there are: {', '.join(known) or 'none'}", where=str(root),
                       fix="Simulate one (`occ-perception simulate`), or label recordings (`occ-perception label`)")
