"""Runs: one training with all its evaluations, made once, found again by what it depends on.

A run's key is the hash of its configuration, its data and its trunk; its result is a small JSON file that is kept.
What a run needs while it goes on (checkpoints, models, claims) lies in the working folder and can be thrown away.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from occ_perception.datasets import SimulatedDataset
from occ_perception.datasets.files import new_file
from occ_perception.errors import DatasetError, TrainingError
from occ_perception.training.checkpoint import differences, load_network
from occ_perception.training.evaluate import network_predictor
from occ_perception.training.experiments.claims import claim, holder_of
from occ_perception.training.experiments.data import DataFolders
from occ_perception.training.experiments.rows import PATHS, WITH_LIDAR, Need, Row
from occ_perception.training.experiments.scale import Scale
from occ_perception.training.experiments.scoring import score_split
from occ_perception.training.files import ROOM, write_json
from occ_perception.training.loop import MODEL, TrainingConfig, train
from occ_perception.training.trunk import TrunkConfig, pretrain

Result = dict[str, Any]
LARGEST_KEPT_TRUNK_BYTES = 6_000_000
"""A trunk up to this size is kept beside the results, so that another machine goes on from the very same one."""
_NO_RESULT = frozenset({"data", "output", "trunk", "threads", "loaders", "device", "max_minutes", "validate_every",
                        "validation_samples", "checkpoint_minutes"})
"""Fields of a training's configuration that say where and how it is made, not what comes out."""
_NOWHERE = Path()


@dataclass(frozen=True)
class Run:
    """One training of a row."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Stable, without the key."""
        return f"{self.row.name}-s{self.seed}"


@dataclass(frozen=True)
class Folders:
    """Where results, working files, and the rigs that missing data are simulated with, lie."""

    results: Path
    work: Path
    rigs: Path


class Runs:
    """The runs of a scale: which are done, which somebody is at, and how they are made.

    Args:
        scale: sizes.
        data: its splits.
        folders: `results` holds `runs/`, `work` checkpoints, models and claims.
        console: for progress.
        threads: of torch, and processes that simulate.
        loaders: threads that make batches ahead.
    """

    def __init__(self, scale: Scale, data: DataFolders, folders: Folders, console: Console, threads: int = 2,
                 loaders: int = TrainingConfig.loaders) -> None:
        self.scale, self.data, self.folders = scale, data, folders
        self.console, self.threads, self.loaders = console, threads, loaders

    def key(self, run: Run) -> str | None:
        """What identifies a run, 64 hexadecimal digits; None while its data have never been made."""
        trunk, learned = self.trunk_key(), self._identities(run.row.learns_from(self.scale))
        if trunk is None or learned is None:
            return None
        return _digest([run.name, _beyond_defaults(self._settings(run)), learned, trunk])

    def trunk_key(self) -> str | None:
        """What identifies the trunk; None while its data have never been made."""
        learned = self._identities([self._trunk_need])
        config = self._trunk_config(_NOWHERE)
        default = TrunkConfig(data=_NOWHERE, output=_NOWHERE, steps=1)
        beyond = _beyond(_result_part(config), _result_part(default))
        return None if learned is None else _digest([beyond, learned])

    def path(self, run: Run) -> Path | None:
        """Where the result of a run lies, or will lie."""
        key = self.key(run)
        return None if key is None else self.folders.results / "runs" / f"{run.name}-{key[:8]}.json"

    def recorded(self, run: Run) -> Result | None:
        """What is known of a run's result, maybe not all of its evaluations; None if it was not trained like this."""
        path = self.path(run)
        if path is None or not path.is_file():
            return None
        result: Result = json.loads(path.read_text())
        known = json.loads(json.dumps(self._settings(run)))
        changed = differences(result["configuration"], _stored_part(known, result["configuration"]))
        if changed:  # a default has another value than when it was made
            self.console.print(f"{path.name} was made with another configuration: {'; '.join(changed)}",
                               highlight=False)
        return None if changed else result

    def result(self, run: Run) -> Result | None:
        """The result of a run with all its evaluations, or None."""
        result = self.recorded(run)
        return result if result is not None and not self._unscored(run, result) else None

    def holder(self, run: Run) -> str | None:
        """Who is making a run at this moment."""
        path = self.path(run)
        return None if path is None else holder_of(self._lock(path.stem))

    def expected_minutes(self) -> float:
        """Of one run: the mean of those that are done, or what the scale expects."""
        done = [json.loads(path.read_text())["minutes"] for path in self.folders.results.glob("runs/*.json")]
        return sum(done) / len(done) if done else self.scale.expected_minutes

    def ensure_data(self, runs: Sequence[Run]) -> None:
        """Make the data that these runs read, if they are missing; another process that makes them is waited for."""
        pretraining = [] if self._trunk() else [self._trunk_need]
        needs = [*pretraining, *(need for run in runs for need in run.row.needs(self.scale))]
        with claim(self._lock("data"), self.console, wait=True):
            self.data.ensure(needs, self.folders.rigs, self.console, self.threads)

    def ensure_trunk(self) -> Path:
        """The trunk that every run starts from; it is pretrained first if there is none."""
        with claim(self._lock("trunk"), self.console, wait=True):
            if (there := self._trunk()) is not None:
                return there
            kept, working = self._trunk_places()
            self.console.print(f"pretraining the trunk {kept.name}", highlight=False)
            made = pretrain(self._trunk_config(self.folders.work / working.stem), resume=True, console=self.console)
            target = kept if made.stat().st_size <= LARGEST_KEPT_TRUNK_BYTES else working
            _copy(made, target)
            return target

    def _trunk(self) -> Path | None:
        """The trunk where it is pretrained already."""
        return next((path for path in self._trunk_places() if path.is_file()), None)

    def _trunk_places(self) -> tuple[Path, Path]:
        """Where a trunk lies: beside the results if it is small, else in the working folder."""
        name = f"trunk-{str(self.trunk_key())[:8]}.safetensors"
        return self.folders.results / name, self.folders.work / name

    def carry_out(self, run: Run) -> Result:
        """Train a run and score it, from wherever an earlier attempt was stopped.

        Raises:
            ClaimedError: another process is at it.
            Interrupted: a signal came; the training's state is in its checkpoint.
            DatasetError, TrainingError: broken data, a training that cannot go on, or a full disk.
        """
        path = self.path(run)
        if path is None:
            raise DatasetError("its data are missing", where=run.name, fix="Make them first (`ensure_data`)")
        with claim(self._lock(path.stem), self.console):
            if (done := self.result(run)) is not None:
                return done
            output = self.folders.work / "runs" / path.stem
            config = run.row.training(self.scale, run.seed, data=self.data.root(run.row.cells(self.scale)),
                                      output=output, trunk=self.ensure_trunk(), threads=self.threads,
                                      loaders=self.loaders)
            earlier = self.recorded(run) if (output / MODEL).is_file() else None  # scores of one model alone
            summary = train(config, resume=True, console=self.console)
            result = earlier or self._new_result(run, summary)
            for split in self._unscored(run, result):
                began = time.monotonic()
                result["evaluations"][split] = self._score(run, split, output / MODEL)
                result["minutes"] = round(result["minutes"] + (time.monotonic() - began) / 60, 2)
                write_json(path, result)
            return result

    def _new_result(self, run: Run, summary: Mapping[str, Any]) -> Result:
        return {
            "name": run.name, "title": run.row.title, "row": run.row.name, "seed": run.seed, "scale": self.scale.name,
            "key": self.key(run), "steps": summary["steps"], "minutes": summary["minutes"], "commit": summary["commit"],
            "torch": torch.__version__, "threads": self.threads, "data": summary["data"],
            "class_offsets": summary["class_offsets"],
            "losses": {name: round(value, 5) for name, value in summary["losses"].items()},
            "configuration": self._settings(run), "evaluations": {},
        }

    def _score(self, run: Run, split: str, model: Path) -> dict[str, Any]:
        """Evaluate the model on one split, all of it."""
        name = split.removesuffix(WITH_LIDAR)
        need = run.row.need(name, self.scale)
        samples = SimulatedDataset(self.data.root(need[1]), name)
        network = load_network(model)[0].to(self.scale.device)
        predict = network_predictor(network, bfloat16=self.scale.bfloat16, use_lidar=split != name)
        with Progress(console=self.console, transient=True) as progress:
            task = progress.add_task(f"{run.name} on {split}", total=len(samples))
            scores = score_split(predict, samples, network.config.output_grid, voxels=name != PATHS,
                                 pixels=name == "embodiments", tell=lambda count: progress.advance(task, count))
        return {"data": self.data.identity(need), **scores}

    def _unscored(self, run: Run, result: Result) -> list[str]:
        """Splits on which a run is still to be scored, or was scored when they were other data."""
        stored = {split: scores["data"] for split, scores in result["evaluations"].items()}
        wanted = {split: self.data.identity(run.row.need(split.removesuffix(WITH_LIDAR), self.scale))
                  for split in run.row.splits}
        return [split for split, identity in wanted.items() if identity is None or stored.get(split) != identity]

    def _settings(self, run: Run) -> dict[str, Any]:
        """The configuration of a training without what changes no result."""
        return _result_part(run.row.training(self.scale, run.seed, data=_NOWHERE, output=_NOWHERE, trunk=None))

    def _trunk_config(self, output: Path) -> TrunkConfig:
        scale = self.scale
        return TrunkConfig(data=self.data.root(self._trunk_need[1]), output=output, network=scale.network,
                           steps=scale.trunk_steps, batch_size=2 * scale.batch_size, bfloat16=scale.bfloat16,
                           device=scale.device, threads=self.threads, loaders=self.loaders,
                           checkpoint_minutes=scale.checkpoint_minutes)

    @property
    def _trunk_need(self) -> Need:
        return "trunk", self.scale.cell_m

    def _identities(self, needs: Sequence[Need]) -> dict[str, Any] | None:
        """What the splits are; None while one has never been made."""
        found = {split: self.data.identity((split, cell_m)) for split, cell_m in needs}
        return None if None in found.values() else found

    def _lock(self, name: str) -> Path:
        return self.folders.work / "claims" / f"{name}.lock"


def _result_part(config: TrainingConfig | TrunkConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _NO_RESULT}


def _beyond_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not the training's defaults, so that a new field with a default leaves old keys valid."""
    return _beyond(settings, _result_part(TrainingConfig(data=_NOWHERE, output=_NOWHERE, steps=1)))


def _beyond(mine: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """What of nested `mine` differs from `default`, as JSON reads it."""
    mine, default = json.loads(json.dumps(mine)), json.loads(json.dumps(default))
    return {key: _beyond(value, default[key]) if isinstance(value, dict) and isinstance(default.get(key), dict)
            else value for key, value in mine.items() if value != default.get(key)}


def _stored_part(settings: Any, stored: Any) -> Any:
    """Of nested settings what `stored` has too: fields that are newer than a result are not compared."""
    if not (isinstance(settings, dict) and isinstance(stored, dict)):
        return settings
    return {key: _stored_part(settings[key], value) for key, value in stored.items() if key in settings}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    with new_file(target, TrainingError, ROOM) as beside:
        shutil.copyfile(source, beside)
