"""The loop around a `Trainer`: batches made ahead, log, validation, checkpoints, signals, errors that name samples.

What is trained it learns from a `Task`. With a budget in minutes the schedule follows the clock instead of the steps.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from occ_perception.datasets.files import writing
from occ_perception.datasets.images import ImageDataset
from occ_perception.datasets.registry import LabelledSplit
from occ_perception.datasets.sample import ImageSample
from occ_perception.errors import OccPerceptionError, TrainingError
from occ_perception.training import distributed
from occ_perception.training.checkpoint import load_json
from occ_perception.training.config import RunConfig
from occ_perception.training.files import ROOM, write_text
from occ_perception.training.prefetch import prefetched
from occ_perception.training.trainer import Batch, NotFinite, Trainer

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
SUMMARY = "summary.json"
LOG_EVERY = 20
"""Steps between lines of the log."""

M = TypeVar("M", bound=nn.Module)


class Task(Protocol):
    """What one kind of network adds to the loop."""

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of one step; depends on nothing but (seed, step). Called in threads."""

    def names(self, step: int) -> str:
        """The samples of the whole batch of one step, for an error."""

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], str]:
        """Scores of the averaged network for the log, and the same in a few words."""


class Interrupted(TrainingError):  # noqa: N818  (not a fault of the training)
    """A signal ended the training; its state is in the checkpoint."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(what, where=where, fix=fix)
        self.number = int(number)


def run(trainer: Trainer, task: Task, *, resumed: bool, console: Console) -> None:
    """Train to the end of the schedule, and leave checkpoint and log in the output folder.

    Args:
        resumed: the trainer was restored from the checkpoint, so the log goes on too.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the checkpoint holds the last finished step.
        OccPerceptionError: of samples that cannot be read or used; the checkpoint holds the last finished step.
        TrainingError: a loss that is not finite (the last checkpoint stays), or a disk that is full.
    """
    config = trainer.config
    checkpoint = config.output / CHECKPOINT
    torch.set_num_threads(config.threads)
    with (_Log(config.output / LOG, resumed, trainer.step) as log, _progress(console) as progress,
          closing(prefetched(task.batch, count(trainer.step), config.loaders)) as source, _signals() as caught):
        bar = progress.add_task("training", total=1.0, rate=0.0)
        saved_s = last_s = time.monotonic()
        while trainer.progress < 1.0:
            _guarded_step(trainer, source, task, checkpoint)
            now = time.monotonic()
            # All processes must come to the same end: they share one clock, and a signal to one of them.
            shared = distributed.average(torch.tensor([now - last_s, float(max(caught, default=0))],
                                                      dtype=torch.float64, device=trainer.device))
            step_s, interrupted = shared.tolist()
            trainer.elapsed_s += step_s
            last_s = now
            _show(progress, bar, trainer)
            if trainer.step % LOG_EVERY == 0:
                log.write({"step": trainer.step, "elapsed_s": round(trainer.elapsed_s, 2), **trainer.recent})
            if interrupted:
                trainer.save(checkpoint)
                raise Interrupted(f"was interrupted at step {trainer.step}, and the checkpoint written",
                                  where=str(checkpoint), fix="Go on with --resume",
                                  number=max(caught, default=signal.SIGTERM))
            if trainer.step % config.validate_every == 0 and distributed.rank() == 0:
                with _nothing_lost(trainer, checkpoint):
                    scores, words = task.validate(trainer.average)
                if scores:
                    log.write({"step": trainer.step, "validation": scores})
                terms = "  ".join(f"{name} {value:.3f}" for name, value in trainer.recent.items()
                                  if name not in ("gradient_norm", "learning_rate"))
                progress.console.print(f"step {trainer.step}: {terms}  {words}", highlight=False)
            if now - saved_s > 60 * config.checkpoint_minutes:
                trainer.save(checkpoint)
                saved_s = now
        trainer.save(checkpoint)


def restored(trainer: Trainer, resume: bool) -> bool:
    """Restore the trainer from the checkpoint in its output folder if that is asked for and there is one."""
    checkpoint = trainer.config.output / CHECKPOINT
    if resume and checkpoint.is_file():
        trainer.restore(checkpoint)
        return True
    return False


def finished(trainer: Trainer, result: str, console: Console) -> dict[str, Any] | None:
    """The summary of a restored training that has nothing left to do, which is said; else None."""
    output = trainer.config.output
    summary = load_json(output / SUMMARY)
    if trainer.progress < 1.0 or summary is None or summary.get("steps") != trainer.step:
        return None
    if not (output / result).is_file():
        return None
    console.print(f"{output / result} is finished: {trainer.step} steps. A longer schedule (--steps, --max-minutes) "
                  "goes on from there.", soft_wrap=True, highlight=False)
    return summary


def about_split(split: LabelledSplit | ImageDataset) -> dict[str, Any]:
    """What identifies a split."""
    return {"version": split.version, "content_hash": split.content_hash, "samples": len(split)}


def names_of(samples: Iterable[ImageSample]) -> str:
    """Scene and index of each sample."""
    return ", ".join(f"{sample.scene}[{sample.index}]" for sample in samples)


def require_share(config: RunConfig, count: int) -> None:
    """Every process needs at least one sample of every batch.

    Raises:
        TrainingError: there are `count` samples, which is none, or fewer samples per step than processes.
    """
    if count == 0:
        raise TrainingError(f"the split {config.train_split} has no samples", where=str(config.data))
    if config.samples_per_step < distributed.process_count():
        raise TrainingError(f"{config.samples_per_step} samples per step are too few for "
                            f"{distributed.process_count()} processes", where="batch_size")


def seeded(seed: int, make: Callable[[], M]) -> M:
    """A network with the initial weights of a seed; torch's own generator stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def quiet(console: Console | None) -> Console:
    """The console of the first process; the others have none."""
    return console or Console() if distributed.rank() == 0 else Console(quiet=True)


@contextmanager
def _nothing_lost(trainer: Trainer, checkpoint: Path) -> Iterator[None]:
    """Data that cannot be read or used end a training; the steps that are done are in the checkpoint then."""
    try:
        yield
    except OccPerceptionError:
        if trainer.step > 0:
            trainer.save(checkpoint)
        raise


def _guarded_step(trainer: Trainer, source: Iterator[Batch], task: Task, checkpoint: Path) -> None:
    """One step with the next batch; an error names its samples. All processes end where one has no batch."""
    step = trainer.step
    batch, fault = None, None
    try:
        batch = next(source)
    except OccPerceptionError as error:
        fault = error
    faulty = distributed.average(torch.tensor(float(fault is not None), device=trainer.device))
    with _nothing_lost(trainer, checkpoint):
        if fault is not None:
            raise fault
        if faulty > 0 or batch is None:
            raise TrainingError("another process has no batch; its own message says why", where=f"step {step}")
    try:
        trainer.train_step(*batch)
    except NotFinite as error:
        kept = f"The last good state is in {checkpoint}; " if checkpoint.is_file() else ""
        raise TrainingError(f"the loss is not finite: {error.what}; batch: {task.names(step)}", where=f"step {step}",
                            fix=f"{kept}look at these samples, or lower the learning rate") from error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are collected instead of ending the process; a second one does what it always does."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        give_back()

    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        give_back()


def _progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                    TextColumn("{task.fields[rate]:.1f} samples/s"), TimeElapsedColumn(), TextColumn("left"),
                    TimeRemainingColumn(elapsed_when_finished=False), console=console)


def _show(progress: Progress, bar: TaskID, trainer: Trainer) -> None:
    rate = trainer.step * trainer.config.samples_per_step / max(trainer.elapsed_s, 1e-9)
    progress.update(bar, completed=trainer.progress, rate=rate,
                    description=f"step {trainer.step}  loss {trainer.recent['total']:.3f}")


class _Log:
    """Lines of JSON, one object each, of the first process; an interrupted run's are kept up to its checkpoint."""

    def __init__(self, path: Path, resumed: bool, step: int) -> None:
        self.path = path
        self.file: TextIO | None = None
        if distributed.rank() == 0:
            with writing(path, TrainingError, ROOM):
                path.parent.mkdir(parents=True, exist_ok=True)
                if resumed:
                    _cut(path, step)
                self.file = path.open("a" if resumed else "w")

    def write(self, values: dict[str, Any]) -> None:
        """Append a line."""
        if self.file is not None:
            with writing(self.path, TrainingError, ROOM):
                self.file.write(json.dumps(values) + "\n")
                self.file.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            with writing(self.path, TrainingError, ROOM):
                self.file.close()


def _cut(path: Path, step: int) -> None:
    """Drop what an interrupted run logged after its last checkpoint: those steps are made again."""
    if not path.is_file():
        return
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    write_text(path, "".join(line for line in lines if json.loads(line)["step"] <= step))
