"""Readers of recordings with labels: every data set gives `Sample`s."""

from occ_perception.datasets.sample import Dataset, Sample
from occ_perception.datasets.simulated import SimulatedDataset

__all__ = ["Dataset", "Sample", "SimulatedDataset"]
