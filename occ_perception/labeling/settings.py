"""Everything that decides what a labelled scene looks like: one object, one YAML file.

    grid: {minimum_m: [0, -5, -2], maximum_m: [10, 5, 3], cell_m: 0.1}
    vote: {kind: voxel, voxel_m: 0.5, fine_voxel_m: 0.1, prior_votes: 3}        # or knn, or none
    accumulate: {ground_gap_m: 1.0, articulated_s: 0.3}
    surfaces: {kind: fused}                                                     # or poisson
    segmenter: {kind: simulated, error_rate: 0.1, seed: 0}                      # or {kind: sam3, base: FOLDER}

What is left out has its default; only the segmenter must be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.labeling.accumulate import AccumulateSettings
from occ_perception.labeling.mesh import PoissonSettings
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.vote import KnnVote, VoxelVote

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sam3Folders:
    """SAM3 from folders of weights; with fine-tuned ones both passes of the paper, else one pass of all prompts.

    Attributes:
        base, finetuned: folders in the layout of transformers.
        device: of torch.
        dtype: of weights and activations.
    """

    base: Path
    finetuned: Path | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True)
class NoVote:
    """Points keep the class that their own image gave them."""


@dataclass(frozen=True)
class FusedSurfaces:
    """Surfaces are fused from surfels directly, without a mesh."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How scenes are labelled.

    Attributes:
        segmenter: who gives pixels their classes.
        grid: of the labels.
        vote: against flicker.
        accumulate: how scans are put together.
        surfaces: fused from surfels, or sampled from a Poisson mesh of the scene.
    """

    segmenter: SimulatedErrors | Sam3Folders
    grid: VoxelGridSpec = SIDEWALK_GRID
    vote: VoxelVote | KnnVote | NoVote = field(default_factory=VoxelVote)
    accumulate: AccumulateSettings = field(default_factory=AccumulateSettings)
    surfaces: FusedSurfaces | PoissonSettings = field(default_factory=FusedSurfaces)

    def to_dict(self) -> dict[str, Any]:
        """What `settings_from_dict` takes, with every default written out."""
        return {section: _plain(getattr(self, section), _KINDS[section]) for section in _KINDS}


_KINDS: dict[str, dict[str, type]] = {
    "grid": {"": VoxelGridSpec},
    "vote": {"voxel": VoxelVote, "knn": KnnVote, "none": NoVote},
    "accumulate": {"": AccumulateSettings},
    "surfaces": {"fused": FusedSurfaces, "poisson": PoissonSettings},
    "segmenter": {"simulated": SimulatedErrors, "sam3": Sam3Folders},
}
"""Sections and, by kind, what they are made into; a section of one kind has no `kind`."""


def settings_from_dict(content: Mapping[str, Any], where: str) -> LabelSettings:
    """Settings from nested mappings as in the YAML file.

    Raises:
        ConfigurationError: all faults listed.
    """
    faults = [f"no section {name!r}; there are: {', '.join(_KINDS)}" for name in content if name not in _KINDS]
    if "segmenter" not in content:
        faults.append(f"segmenter must be named: a mapping with kind {' or '.join(_KINDS['segmenter'])}")
    made = {section: _section(section, content[section], faults) for section in _KINDS if section in content}
    if faults:
        raise ConfigurationError(faults, where=where)
    return LabelSettings(**made)


def load_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of settings, for `settings_from_dict`.

    Raises:
        ConfigurationError: it cannot be read or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError([f"cannot be read: {error}"], where=str(path)) from error
    if not isinstance(content, dict):
        raise ConfigurationError([f"must hold a mapping, got {type(content).__name__}"], where=str(path))
    return content


def _section(section: str, values: Any, faults: list[str]) -> Any:
    """One section as the object it stands for; None with faults added where it does not fit."""
    kinds = _KINDS[section]
    if not isinstance(values, Mapping):
        faults.append(f"{section} must be a mapping, got {values!r}")
        return None
    named = dict(values)
    kind = str(named.pop("kind", next(iter(kinds)))) if "" not in kinds else ""
    if kind not in kinds:
        faults.append(f"{section}.kind must be one of {', '.join(kinds)}, got {kind!r}")
        return None
    return _made(kinds[kind], named, section, faults)


def _made(kind: type[T], values: dict[str, Any], section: str, faults: list[str]) -> T | None:
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    faults += [f"{section} has no {name!r}; there are: {', '.join(known) or 'none'}"
               for name in values if name not in known]
    try:
        return TypeAdapter(kind).validate_python({name: values[name] for name in known if name in values})
    except ValidationError as error:
        faults += [f"{section}.{'.'.join(map(str, each['loc']))}: {each['msg']}, got {each['input']!r}"
                   for each in error.errors()]
    except ConfigurationError as error:
        faults += [f"{section}: {fault}" for fault in error.faults]
    return None


def _plain(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A settings object as YAML knows it, with its kind where there are several."""
    kind = next(name for name, made in kinds.items() if type(value) is made)
    numbers = {name: str(each) if isinstance(each, Path) else list(each) if isinstance(each, tuple) else each
               for name, each in asdict(value).items()}
    return ({"kind": kind} if kind else {}) | numbers
