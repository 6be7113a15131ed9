"""A split on disk: `split.yaml` that lists scenes, and a folder for each of them with the rig that took it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from occ_perception.calibration import Rig, load_rig
from occ_perception.datasets.sample import SidewalkLabels
from occ_perception.datasets.scene_folder import read_yaml, require_sidewalk
from occ_perception.errors import DatasetError


class SplitFolder(SidewalkLabels):
    """Which frames a split has, and what identifies it.

    Args:
        root: folder that holds the splits.
        split: name of one of them.

    Raises:
        DatasetError: the split is missing, unfinished, broken or of another taxonomy; the message names the file.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        self.folder = self.root / split
        path = self.folder / "split.yaml"
        if not path.is_file():
            known = sorted(p.parent.name for p in self.root.glob("*/split.yaml"))
            raise DatasetError(f"no finished split {split!r}; there are: {', '.join(known) or 'none'}",
                               where=str(self.root), fix=f"Run `occ-perception simulate {split} --root {self.root}`")
        self.about: dict[str, Any] = read_yaml(path)
        try:
            self.version, self.content_hash = str(self.about["version"]), str(self.about["content_hash"])
            self.scenes = [(str(scene["name"]), int(scene["frames"])) for scene in self.about["scenes"]]
            taxonomy = str(self.about["taxonomy"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"is no description of a split: {error!r}", where=str(path)) from error
        require_sidewalk(taxonomy, path)
        self.frames = [(self.folder / name, k) for name, frames in self.scenes for k in range(frames)]
        self._rig = lru_cache(maxsize=None)(_rig_of)

    def rig(self, scene: Path) -> Rig:
        """The rig of a scene's folder."""
        return self._rig(scene)

    def __len__(self) -> int:
        return len(self.frames)

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
