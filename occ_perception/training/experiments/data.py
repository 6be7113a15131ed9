"""The data of a scale: where its splits lie, which they are, and how missing ones come to be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from occ_perception.datasets.registry import open_split, split_names
from occ_perception.datasets.scene_folder import read_yaml
from occ_perception.datasets.shrink import shrink
from occ_perception.errors import DatasetError
from occ_perception.training.experiments.rows import LABELLED, TRUTH_CELL_M, Need
from occ_perception.training.experiments.scale import Scale
from occ_perception.training.files import write_json

Identity = dict[str, Any]
"""Version, content hash and number of frames of a split, and the content hash of what it was shrunk from."""
_IDENTIFIES = ("version", "content_hash", "frames")


class DataFolders:
    """The splits of a scale.

    Args:
        scale: how many scenes, and of which size.
        simulated: folder of the splits as they are simulated.
        small: folder for the shrunk ones, one folder in it per size.
        record: JSON file that keeps the identity of each split beside the results, so that tables can be written where
            no data are.
    """

    def __init__(self, scale: Scale, simulated: Path, small: Path, record: Path) -> None:
        self.scale, self.simulated, self.small, self.record = scale, simulated, small, record

    def root(self, cell_m: float) -> Path:
        """The folder of the splits with voxels of `cell_m`."""
        if self._as_simulated(cell_m):
            return self.simulated
        height, width = self.scale.network.image_size
        return self.small / f"{height}x{width}_{cell_m:.2f}m"

    def identity(self, need: Need) -> Identity | None:
        """What the split is, from the disk or else from the record; None: it has never been made.

        Raises:
            DatasetError: the disk holds another split than the results were made with.
        """
        known = self._recorded().get(self._key(need))
        if not self.is_there(need):
            return known
        split, folder = need[0], self.root(need[1]) / need[0]
        path = folder.parent / "splits.yaml" if split in LABELLED else folder / "split.yaml"
        found = _identity_in(path, split, path.stat().st_mtime_ns)
        if known is not None and found != known:
            raise DatasetError(f"is {found}, but the results beside {self.record} were made with {known}",
                               where=str(folder), fix="Name another folder for the results, or make the data anew")
        return found

    def is_there(self, need: Need) -> bool:
        """Whether the split lies on the disk, complete."""
        root, split = self.root(need[1]), need[0]
        return split in split_names(root) if split in LABELLED else (root / split / "split.yaml").is_file()

    def ensure(self, needs: Iterable[Need], rigs: Path, console: Console, workers: int = 2) -> None:
        """Make what is missing: simulate it, shrink it; and record which it is.

        Raises:
            DatasetError: a folder holds other data, there are no rigs to simulate with, or pseudo-labels are missing,
                which training cannot make: labelling stands above it.
        """
        recorded = self._recorded()
        for need in dict.fromkeys(needs):
            split, cell_m = need
            if not self.is_there(need):
                if split in LABELLED:
                    folders = f"{self.simulated} {self.root(cell_m)}"
                    command = f"python -m occ_perception.labeling.pseudo {folders} {LABELLED[split]}"
                    raise DatasetError(f"there is no split {split!r}", where=str(self.root(cell_m)),
                                       fix=f"Make it by `{command}`, then repeat this")
                self._simulate(split, rigs, console, workers)
                if not self._as_simulated(cell_m):
                    shrink(self.simulated, split, self.root(cell_m), self.scale.network.image_size,
                           None if cell_m == TRUTH_CELL_M else cell_m, console=console)
            identity = self.identity(need)
            if identity is not None and self._key(need) not in recorded:
                recorded[self._key(need)] = identity
                write_json(self.record, dict(sorted(recorded.items())))

    def _simulate(self, split: str, rigs: Path, console: Console, workers: int) -> None:
        if (self.simulated / split / "split.yaml").is_file():
            return
        if not rigs.is_dir():
            raise DatasetError("no such folder of rigs, and the split must be simulated", where=f"{rigs}, {split}",
                               fix="Name the folder `calibration` of the repository with --rigs")
        from occ_perception.simulation.generate import generate  # needs embreex, which readers of data do not

        console.print(f"split {split} is missing in {self.simulated}: simulating it", highlight=False)
        generate(self.scale.split(split), self.simulated, rigs, workers, console=console)

    def _as_simulated(self, cell_m: float) -> bool:
        return not self.scale.resized and cell_m == TRUTH_CELL_M

    def _key(self, need: Need) -> str:
        return f"{self.root(need[1]).name}/{need[0]}" if not self._as_simulated(need[1]) else need[0]

    def _recorded(self) -> dict[str, Identity]:
        return json.loads(self.record.read_text()) if self.record.is_file() else {}


@cache
def _identity_in(path: Path, split: str, modified_ns: int) -> Identity:
    """What a split's own file says; read once, for it lists hundreds of scenes."""
    if split in LABELLED:
        labelled = open_split(path.parent, split)
        return {"version": labelled.version, "content_hash": labelled.content_hash, "frames": len(labelled)}
    about = read_yaml(path)
    identity = {key: about.get(key) for key in _IDENTIFIES}
    return {**identity, "shrunk_from": about["smaller"].get("of")} if "smaller" in about else identity
