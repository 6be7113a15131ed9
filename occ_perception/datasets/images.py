"""Images with 2D labels alone, of any robot and any lens: what hybrid training mixes with paired recordings.

    ROOT/SPLIT/split.yaml                version, content_hash, taxonomy, scenes: [{name, frames}]
    ROOT/SPLIT/SCENE/rig.yaml            the cameras, as in `calibration/`
    ROOT/SPLIT/SCENE/scene.yaml          optional; tilts: [[roll, pitch], ...] of the base per frame, radians
    ROOT/SPLIT/SCENE/000_front.jpg       image of the camera `front`
    ROOT/SPLIT/SCENE/000_front_classes.png    its classes, uint8; 0 background, 14 occlusion
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from occ_perception.datasets.sample import ImageSample
from occ_perception.datasets.scene_folder import read_image_sample, read_yaml
from occ_perception.datasets.split_folder import SplitFolder
from occ_perception.errors import DatasetError


class ImageDataset(SplitFolder):
    """The images of one split, scene after scene. A scene without tilts was taken by a robot that stood upright."""

    def __getitem__(self, index: int) -> ImageSample:
        folder, k = self.frames[index]
        tilts = self._tilts[folder.name]
        return read_image_sample(folder, k, self.rig(folder), tilts[k] if tilts else (0.0, 0.0))

    @cached_property
    def _tilts(self) -> dict[str, list[tuple[float, float]]]:
        return {name: _read_tilts(self.folder / name / "scene.yaml", frames) for name, frames in self.scenes}


def _read_tilts(path: Path, frames: int) -> list[tuple[float, float]]:
    if not path.is_file():
        return []
    listed = read_yaml(path).get("tilts", [])
    try:
        tilts = [(float(roll), float(pitch)) for roll, pitch in listed]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"tilts must be pairs of roll and pitch: {error}", where=str(path)) from error
    if tilts and len(tilts) != frames:
        raise DatasetError(f"lists {len(tilts)} tilts for {frames} frames", where=str(path))
    return tilts
