"""What every training is told, whatever it trains: where to read and write, how long, how fast, on what."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from occ_perception.errors import ConfigurationError
from occ_perception.training.schedule import SCHEDULES, Schedule


@dataclass(frozen=True)
class RunConfig:
    """The part of a training's configuration that knows no network; each training adds `network` and its own.

    Attributes:
        data: folder of the splits.
        output: folder for checkpoint, log and results.
        train_split: name of the split that is learned from.
        steps, max_minutes: the schedule ends at the first of them; at least one. Only `steps` alone is reproducible.
        batch_size: samples per step, of all processes together.
        learning_rate: peak of the schedule (linear warm-up first).
        schedule: after the warm-up a cosine to zero, or steps: x0.1 at 2/3 and at 8/9 of what is left.
        warmup: part of the schedule spent warming up.
        weight_decay: of AdamW, on weights with two or more dimensions.
        gradient_clip: largest global norm of the gradient.
        average: decay of the running average of the weights, which is what is validated and shipped.
        seed: of initialisation, order and augmentation.
        bfloat16: multiply in bfloat16 (faster where the processor has the instructions).
        device: of torch, `cpu` or `cuda`.
        threads: of torch; results are equal bit for bit only for equal numbers.
        loaders: threads that make batches ahead; they change no result.
        validate_every: steps between validations.
        checkpoint_minutes: time between checkpoints.
    """

    data: Path
    output: Path
    train_split: str = "train"
    steps: int | None = None
    max_minutes: float | None = None
    batch_size: int = 4
    learning_rate: float = 2e-3
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: float = 10.0
    average: float = 0.998
    seed: int = 0
    bfloat16: bool = False
    device: str = "cpu"
    threads: int = 2
    loaders: int = 1
    validate_every: int = 500
    checkpoint_minutes: float = 4.0

    FREE: ClassVar[frozenset[str]] = frozenset({
        "data", "output", "steps", "max_minutes", "loaders", "validate_every", "checkpoint_minutes"})
    """Fields that may change when a training is resumed."""
    POSITIVE: ClassVar[tuple[str, ...]] = (
        "steps", "max_minutes", "batch_size", "learning_rate", "gradient_clip", "threads", "loaders",
        "validate_every", "checkpoint_minutes")
    """Fields that must be above 0 where they are given."""

    def __post_init__(self) -> None:
        if faults := self._faults():
            raise ConfigurationError(faults, where=type(self).__name__)

    def _faults(self) -> list[str]:
        faults = []
        if self.steps is None and self.max_minutes is None:
            faults.append("steps or max_minutes must be given")
        for name in self.POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                faults.append(f"{name} must be positive, got {value}")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.weight_decay < 0:
            faults.append(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.schedule not in SCHEDULES:
            faults.append(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        return faults

    @property
    def watched(self) -> tuple[str, ...]:
        """Names of splits that are looked at but not learned from; they may change when a training is resumed."""
        return ()

    @property
    def samples_per_step(self) -> int:
        """All samples of a step, of all processes together."""
        return self.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
