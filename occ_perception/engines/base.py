"""What an engine is to the rest of the package, and the check of what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from occ_perception.engines.manifest import Manifest
from occ_perception.errors import EngineError

Arrays = dict[str, NDArray[Any]]
DeviceChoice = Literal["auto", "cpu", "cuda", "tensorrt"]


@dataclass(frozen=True)
class EngineDescription:
    """What really runs.

    `provider` is the one obtained, not the one asked for; `build_s` the seconds that loading took;
    `threads` the number of threads of one operator (0: the runtime's choice).
    """

    model_id: str
    backend: str
    provider: str
    device: str
    precision: str
    variant: str
    build_s: float
    threads: int = 0


@dataclass
class State:
    """Memory of one stream between frames, by tensor name. Opaque to callers; belongs to one engine."""

    tensors: Arrays = field(default_factory=dict)


class Engine(Protocol):
    """A loaded model. `run` may be called from one thread at a time; nothing here knows ROS."""

    @property
    def manifest(self) -> Manifest:
        """The manifest it was loaded from."""

    def bind(self, constants: Mapping[str, NDArray[Any]]) -> None:
        """Give the inputs that stay the same from frame to frame; they need not be given to `run` again."""

    def new_state(self) -> State:
        """A fresh memory for one stream."""

    def run(self, inputs: Mapping[str, NDArray[Any]], state: State) -> tuple[Arrays, State]:
        """One frame: outputs by name, freshly allocated, and the state for the next frame.

        Raises:
            EngineError: inputs that are missing, unknown or of the wrong shape or dtype, all named.
        """

    def warm_up(self, **lengths: int) -> float:
        """Run once on zeros with the given free lengths (default 1 each); seconds that it took."""

    def describe(self) -> EngineDescription:
        """What really runs."""


def check_inputs(specs: Mapping[str, Any], given: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raise EngineError naming every input that is missing, unknown or of the wrong dtype or shape.

    A free length must be at least 1 and the same wherever its name appears.
    """
    faults = [f"input {name!r} is missing" for name in specs if name not in given]
    faults += [f"input {name!r} is unknown" for name in given if name not in specs]
    lengths: dict[str, int] = {}
    for name in specs:
        if name not in given:
            continue
        spec, array = specs[name], given[name]
        fits = array.dtype == np.dtype(spec.dtype) and array.ndim == len(spec.shape)
        if fits:
            for want, got in zip(spec.shape, array.shape, strict=True):
                fits &= got == (lengths.setdefault(want, got) if isinstance(want, str) else want) and got > 0
        if not fits:
            faults.append(f"input {name!r} must be {spec}, got {array.dtype} {list(array.shape)}")
    if faults:
        raise EngineError("; ".join(faults), where=where)
