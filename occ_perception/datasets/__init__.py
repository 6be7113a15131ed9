"""Readers of recordings with labels: every data set gives `Sample`s."""

from occ_perception.datasets.images import ImageDataset
from occ_perception.datasets.registry import DATASETS, open_dataset, open_split
from occ_perception.datasets.sample import Dataset, ImageSample, Sample
from occ_perception.datasets.simulated import SimulatedDataset

__all__ = ["DATASETS", "Dataset", "ImageDataset", "ImageSample", "Sample", "SimulatedDataset", "open_dataset",
           "open_split"]
