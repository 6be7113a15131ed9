"""All scenes of many sources, side by side. A scene is done exactly when its folder exists.

Whatever stops a run (a kill, a full disk), the same command goes on where it was: done scenes are not made again, and
scenes of a worker that died are tried once more.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from occ_perception.datasets.files import new_file
from occ_perception.datasets.sidewalk3d import read_splits, write_splits
from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.labeling.pool import Pool, WorkerDied
from occ_perception.labeling.scene_job import REPORT, Outcome, Status, label_scene
from occ_perception.labeling.settings import LabelSettings, load_settings
from occ_perception.labeling.sources import SceneRef, Source

SETTINGS = "settings.yaml"
TRIES = 2
"""A scene whose worker dies is tried once more: the machine may have been at fault, or the scene."""
DIED = f"its worker died {TRIES} times (killed, or out of memory)"


@dataclass(eq=False)
class FleetResult:
    """What became of every scene.

    Attributes:
        kept: scenes that were done before.
        outcomes: of the others, in the order they ended; sources that could not be opened are among them.
        elapsed_s: of this run.
    """

    kept: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    elapsed_s: float = 0.0

    def having(self, status: Status) -> list[Outcome]:
        """Outcomes with that status."""
        return [outcome for outcome in self.outcomes if outcome.status is status]

    @property
    def frames_per_s(self) -> float:
        """Frames labelled in this run, over its time."""
        return sum(outcome.frames for outcome in self.outcomes) / max(self.elapsed_s, 1e-9)


def run_fleet(sources: Sequence[Source], out: Path, settings: LabelSettings, pool: Pool, *,
              console: Console | None = None, split: str = "train") -> FleetResult:
    """Label every scene of the sources into `out`, in the Sidewalk3D layout; `splits.yaml` names what is done.

    Args:
        pool: who does the work; it is not closed.
        split: the done scenes that no other split of `out` holds.

    Raises:
        ConfigurationError: `out` was labelled with other settings, or the segmenter cannot be loaded.
        OccPerceptionError: the disk is full; what is done stays, and the same command goes on.
    """
    out = out.resolve()
    _keep_settings(out, settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[rate]}"))
    with Progress(*columns, console=console or Console()) as progress:
        run = _Run(out, settings, pool, progress)
        run.go(sources)
    _name_split(out, split, settings)
    return run.result


@dataclass(eq=False)
class _Work:
    """A source to be opened or a scene to be labelled, and how often that was tried."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    tries: int = 0


class _Run:
    """The state of one run: what is queued, what was tried how often, and what came of it."""

    def __init__(self, out: Path, settings: LabelSettings, pool: Pool, progress: Progress) -> None:
        self.out, self.settings, self.pool, self.progress = out, settings, pool, progress
        self.result = FleetResult()
        self._queue: deque[_Work] = deque()
        self._names: set[str] = set()
        self._began = perf_counter()
        self._task = progress.add_task("scenes", total=0, rate="")

    def go(self, sources: Sequence[Source]) -> None:
        """Sources are opened one after the other, as work like any other; scenes they give come before the next."""
        self._queue.extend(_Work(str(source.path), list_scenes, (source,)) for source in sources)
        waiting = 0
        while self._queue or waiting:
            while self._queue and self.pool.free > 0:
                work = self._queue.popleft()
                work.tries += 1
                self.pool.submit(work, work.function, *work.arguments)
                waiting += 1
            for work, answer in self.pool.answers():
                waiting -= 1
                self._take(work, answer)
            self.result.elapsed_s = perf_counter() - self._began
            self.progress.update(self._task, completed=len(self.result.outcomes) + len(self.result.kept),
                                 rate=f"{self.result.frames_per_s:.1f} frames/s")

    def _take(self, work: _Work, answer: Any) -> None:
        if isinstance(answer, WorkerDied):
            if work.tries < TRIES:
                self._queue.appendleft(work)
            else:
                self._end(Outcome(work.name, Status.failed, DIED))
        elif isinstance(answer, Outcome):
            self._end(answer)
        else:
            for ref in reversed(answer):
                self._add(ref)

    def _add(self, ref: SceneRef) -> None:
        if ref.name in self._names:
            self._end(Outcome(ref.name, Status.skipped, "another source has a scene of this name"))
        elif (self.out / ref.name).is_dir():
            self.result.kept.append(ref.name)
        else:
            self._queue.appendleft(_Work(ref.name, label_scene, (ref, self.out, self.settings)))
        self._names.add(ref.name)
        self.progress.update(self._task, total=len(self._names))

    def _end(self, outcome: Outcome) -> None:
        if outcome.status is Status.stopped:
            raise OccPerceptionError(outcome.reason)
        self.result.outcomes.append(outcome)
        if outcome.status is not Status.done:
            self.progress.console.print(f"[yellow]{outcome.status.value}[/] {escape(outcome.name)}: "
                                        f"{escape(outcome.reason)}", highlight=False, soft_wrap=True)


def list_scenes(source: Source) -> list[SceneRef] | Outcome:
    """References to the scenes of a source, or why it has none."""
    try:
        return list(source.scenes())
    except OccPerceptionError as error:
        return Outcome(str(source.path), Status.skipped, str(error))
    except Exception:  # a fault here costs its source, and is shown in full
        return Outcome(str(source.path), Status.failed, traceback.format_exc(limit=-4).strip())


def _keep_settings(out: Path, settings: LabelSettings) -> None:
    """Write down what `out` is labelled with, or refuse other settings than those it was begun with."""
    path = out / SETTINGS
    if not path.is_file():
        with new_file(path) as beside:
            beside.write_text(yaml.safe_dump(settings.to_dict(), sort_keys=False))
        return
    before, now = load_settings(path), settings.to_dict()
    if faults := [f"{section} was {before.get(section)}, is {now[section]}"
                  for section in now if before.get(section) != now[section]]:
        raise ConfigurationError(faults, where=str(path), fix="Choose another folder, or take the same settings")


def _name_split(out: Path, split: str, settings: LabelSettings) -> None:
    """Put all scenes that are done into the split, except those that other splits hold."""
    splits = read_splits(out)[1] if (out / "splits.yaml").is_file() else {}
    elsewhere = {name for other, names in splits.items() if other != split for name in names}
    done = sorted(file.parent.name for file in out.glob(f"*/{REPORT}"))
    splits[split] = [name for name in done if name not in elsewhere]
    version = f"pseudo-labels, segmenter {settings.to_dict()['segmenter']['kind']}"
    write_splits(out, version, {name: names for name, names in splits.items() if names})
