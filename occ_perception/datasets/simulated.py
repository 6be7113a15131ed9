"""Splits written by `simulation.generate`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from occ_perception.calibration import Rig, load_rig
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import read_sample, read_yaml
from occ_perception.errors import DatasetError


class SimulatedDataset:
    """The samples of one split, scene after scene.

    Args:
        root: folder that holds the splits.
        split: name of one of them.

    Raises:
        DatasetError: the split is missing, unfinished or broken; the message names the file.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        folder = self.root / split
        if not (folder / "split.yaml").is_file():
            known = sorted(p.parent.name for p in self.root.glob("*/split.yaml"))
            raise DatasetError(f"no finished split {split!r}; there are: {', '.join(known) or 'none'}",
                               where=str(self.root), fix=f"Run `occ-perception simulate {split} --root {self.root}`")
        about = read_yaml(folder / "split.yaml")
        try:
            self.version, self.content_hash = str(about["version"]), str(about["content_hash"])
            self._frames = [(folder / str(scene["name"]), k) for scene in about["scenes"]
                            for k in range(int(scene["frames"]))]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"is no description of a split: {error!r}",
                               where=str(folder / "split.yaml")) from error
        self._rig = lru_cache(maxsize=None)(_rig_of)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        folder, k = self._frames[index]
        return read_sample(folder, k, self._rig(folder))

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_rig"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._rig = lru_cache(maxsize=None)(_rig_of)


def _rig_of(folder: Path) -> Rig:
    path = folder / "rig.yaml"
    if not path.is_file():
        raise DatasetError("is missing", where=str(path))
    return load_rig(path)
