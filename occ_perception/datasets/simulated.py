"""Splits written by `simulation.generate`."""

from __future__ import annotations

from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import read_sample
from occ_perception.datasets.split_folder import SplitFolder


class SimulatedDataset(SplitFolder):
    """The samples of one split, scene after scene."""

    def __getitem__(self, index: int) -> Sample:
        folder, k = self.frames[index]
        return read_sample(folder, k, self.rig(folder))
