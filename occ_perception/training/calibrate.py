"""Calibration of the decision: one offset per class on the logits, chosen on a validation split, folded into the head.

The class weights of the loss make a network answer rare classes more often than they occur. How often is best for
IoU is read off validation samples instead of being guessed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from occ_perception.networks.walkocc import WalkOcc
from occ_perception.taxonomy import FREE, OCCUPIED
from occ_perception.training.batches import Samples
from occ_perception.training.evaluate import network_outputs, spread
from occ_perception.training.prefetch import prefetched

LARGEST_OFFSET = 2.0
CANDIDATES = np.linspace(-LARGEST_OFFSET, LARGEST_OFFSET, 17)


def open_decisions(logits: NDArray[np.float32], labels: NDArray[np.uint8], visible: NDArray[np.bool_]
                   ) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Logits relative to free [N, K] and labels [N] of the visible voxels that offsets can change the score of.

    Args:
        logits: [K, nz, ny, nx].
        labels, visible: [nz, ny, nx].

    Left out are free voxels that stay free under any offset: they are in no intersection and in no union.
    """
    relative = logits - logits[FREE]
    occupied = np.delete(relative, FREE, axis=0).max(0)
    chosen = visible & (labels < OCCUPIED) & ((labels != FREE) | (occupied > -LARGEST_OFFSET))
    return relative[:, chosen].T.astype(np.float16), labels[chosen]


def score(predictions: NDArray[np.integer], labels: NDArray[np.uint8], num_classes: int) -> float:
    """IoU plus mIoU (over classes that occur in either) from flat predictions and labels."""
    confusion = np.bincount(labels.astype(np.int64) * num_classes + predictions, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    hits = np.diag(confusion)
    unions = confusion.sum(0) + confusion.sum(1) - hits
    occupied = confusion[1:, 1:].sum() / max(confusion.sum() - confusion[FREE, FREE], 1)
    there = (unions > 0) & (np.arange(num_classes) != FREE)
    return float(occupied + (hits[there] / unions[there]).mean()) if there.any() else 0.0


def best_offsets(logits: NDArray[np.floating], labels: NDArray[np.uint8], rounds: int = 2) -> NDArray[np.float32]:
    """Offsets [K] (free: 0) that raise `score` of `argmax(logits + offsets)`, class by class.

    Args:
        logits: [N, K] relative to free.
        labels: [N].
    """
    num_classes = logits.shape[1]
    offsets = np.zeros(num_classes, np.float32)
    best = score(logits.argmax(1), labels, num_classes)
    for _ in range(rounds):
        for label in range(1, num_classes):
            others = logits + offsets
            others[:, label] = -np.inf
            rival = others.argmax(1)
            margin = logits[:, label] - np.take_along_axis(others, rival[:, None], 1)[:, 0]
            for candidate in CANDIDATES:
                value = score(np.where(margin + candidate > 0, label, rival), labels, num_classes)
                if value > best:
                    best, offsets[label] = value, candidate
    return offsets


def calibrate(network: WalkOcc, samples: Samples, *, limit: int | None = None, bfloat16: bool = False
              ) -> NDArray[np.float32]:
    """Fold the best offsets on `samples` (at most `limit`) into the occupancy head; returns them, [K].

    A network that takes LiDAR ranges gets them with every second sample: one set of offsets serves both.
    """
    network.eval()
    parts = []
    for place, sample in enumerate(prefetched(samples.__getitem__, spread(len(samples), limit))):
        occupancy, _ = network_outputs(network, sample, bfloat16=bfloat16, use_lidar=place % 2 == 0)
        occupancy = occupancy.float()
        axes = (2, 1, 0)
        parts.append(open_decisions(occupancy.numpy(), sample.labels.transpose(axes), sample.visible.transpose(axes)))
    logits, labels = (np.concatenate(values) for values in zip(*parts, strict=True))
    offsets = best_offsets(logits.astype(np.float32), labels)
    network.occupancy.add_offsets(torch.from_numpy(offsets).to(next(network.parameters()).device))
    return offsets
