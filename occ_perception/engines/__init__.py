"""Inference engines: the manifest of a model folder and the backends that run it. No torch, no ROS."""

from __future__ import annotations

from occ_perception.engines.base import Engine, EngineDescription, State
from occ_perception.engines.load import load_engine
from occ_perception.engines.manifest import (
    Manifest,
    RangeBinsSpec,
    TensorSpec,
    TrainingRecord,
    Variant,
    load_manifest,
    save_manifest,
    sha256_of,
)

__all__ = [
    "Engine",
    "EngineDescription",
    "Manifest",
    "RangeBinsSpec",
    "State",
    "TensorSpec",
    "TrainingRecord",
    "Variant",
    "load_engine",
    "load_manifest",
    "save_manifest",
    "sha256_of",
]
