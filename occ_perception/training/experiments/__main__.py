"""`python -m occ_perception.training.experiments`: make the runs of a table, or of all, and write the tables."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.training.experiments.build import build_table, runs_of
from occ_perception.training.experiments.claims import ClaimedError
from occ_perception.training.experiments.data import DataFolders
from occ_perception.training.experiments.report import terminal, write_report
from occ_perception.training.experiments.runs import Folders, Run, Runs
from occ_perception.training.experiments.scale import SCALES, Scale, get_scale
from occ_perception.training.experiments.tables import TableSpec, get_tables
from occ_perception.training.loop import TrainingConfig
from occ_perception.training.runner import Interrupted

SIGNAL_STATUS = 128
"""A shell adds the signal's number to it."""
TIME_OVER_STATUS = 75
"""`EX_TEMPFAIL` of sysexits.h: nothing is wrong, repeat the command."""
RIGS = Path(__file__).resolve().parents[3] / "calibration"
USUAL = Path("data/sim")
"""Where data that nobody names would lie."""
ScaleName = Enum("ScaleName", {name: name for name in SCALES}, type=str)  # type: ignore[misc]


def main(
    experiment: Annotated[str, typer.Argument(help="walkocc/table1 to table7, /lidar, /all or /pseudo")],
    scale: Annotated[ScaleName, typer.Option(help="how large: smoke runs everything in a minute and tells nothing")],
    data: Annotated[Path | None, typer.Option(
        help="folder of the simulated splits; missing ones are made; needed to make runs")] = None,
    results: Annotated[Path, typer.Option(help="folder of the results, which are kept")] = Path("experiments"),
    work: Annotated[Path | None, typer.Option(help="checkpoints and models (default: beside DATA)")] = None,
    small: Annotated[Path | None, typer.Option(help="shrunk splits (default: beside DATA)")] = None,
    rigs: Annotated[Path, typer.Option(help="rigs that missing splits are simulated with")] = RIGS,
    seeds: Annotated[str | None, typer.Option(help="these seeds of every row, by commas, instead of its own")] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 2,
    loaders: Annotated[int, typer.Option(
        min=1, help="threads that make batches ahead; a GPU needs several")] = TrainingConfig.loaders,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="stop then; to go on, repeat the command")] = None,
    show: Annotated[bool, typer.Option("--list", help="list the runs: done, in progress, missing; make none")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="write tables from what is done")] = False,
) -> None:
    """Make what is missing of an experiment and write its tables; what is done is not made again."""
    console = Console()
    try:
        made = run_experiment(
            experiment, scale.value, data, results=results, work=work, small=small, rigs=rigs,
            seeds=None if seeds is None else _numbers(seeds), threads=threads, loaders=loaders,
            max_minutes=max_minutes, show=show, report_only=report_only, console=console)
    except (Interrupted, KeyboardInterrupt) as error:
        console.print("stopped; the same command goes on from here")
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        raise typer.Exit(SIGNAL_STATUS + number) from error
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if made.time_is_over:
        raise typer.Exit(TIME_OVER_STATUS)


@dataclass(frozen=True)
class Made:
    """The files that were written, and whether the time was over before all runs were done."""

    files: list[Path]
    time_is_over: bool = False


def run_experiment(
    experiment: str, scale_name: str, data: Path | None, *, results: Path, work: Path | None = None,
    small: Path | None = None, rigs: Path = RIGS, seeds: Sequence[int] | None = None, threads: int = 2,
    loaders: int = TrainingConfig.loaders, max_minutes: float | None = None, show: bool = False,
    report_only: bool = False, console: Console | None = None,
) -> Made:
    """Make the missing runs of an experiment and write its tables; see `main` for the arguments.

    Raises:
        ConfigurationError: there is no such experiment or scale, or no data are named to make runs with.
        DatasetError, TrainingError: data that do not fit the results, a training that cannot go on, or a full disk.
        Interrupted, KeyboardInterrupt: a signal came.
    """
    console = console or Console()
    specs, scale = get_tables(experiment), get_scale(scale_name)
    making = not report_only and not show
    if making and data is None:
        raise ConfigurationError(["is needed to make runs"], where="--data",
                                 fix="Name the folder of the simulated splits, or add --report-only or --list")
    data = data or USUAL
    kept = results / "walkocc" / scale.name
    working = (work or data.parent / "work") / scale.name
    made_up = scale.scenes is not None  # too few scenes to be mixed up with the real splits
    folders = DataFolders(scale, working / "sim" if made_up else data,
                          working / "small" if made_up else small or data.parent / "small", kept / "data.json")
    runs = Runs(scale, folders, Folders(kept, working, rigs), console, threads, loaders)
    wanted = _in_order(specs, scale, seeds)
    time_is_over = False
    if making:
        with _deadline(max_minutes, console) as passed:
            _make(runs, wanted, passed, console)
        time_is_over = passed.is_set() and any(runs.result(run) is None for run in wanted)
    if show or making:
        console.print(_overview(runs, wanted))
    if show:
        return Made([])
    command = f"occ-perception experiment {experiment} --scale {scale.name}" + (
        "" if seeds is None else f" --seeds {','.join(map(str, seeds))}")
    return Made(_write_tables(runs, specs, seeds, kept, command, console), time_is_over)


def _make(runs: Runs, wanted: Sequence[Run], passed: threading.Event, console: Console) -> None:
    """Make runs one after the other until all are done, claimed by others, or the time is over."""
    missing = [run for run in wanted if runs.result(run) is None]
    if missing and not passed.is_set():
        runs.ensure_data(missing)
    for i, run in enumerate(missing):
        if passed.is_set():
            return
        console.rule(f"run {i + 1} of {len(missing)}: {run.name} ({run.row.title})")
        try:
            runs.carry_out(run)
        except ClaimedError as error:
            console.print(f"{run.name} is {error}; left to it", highlight=False)


@contextmanager
def _deadline(minutes: float | None, console: Console) -> Iterator[threading.Event]:
    """After so many minutes the event is set and the work interrupted, as by Ctrl-C: trainings save their state."""
    passed = threading.Event()

    def interrupt() -> None:
        passed.set()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(60 * (minutes or 0.0), interrupt)
    timer.daemon = True
    before = signal.getsignal(signal.SIGINT)
    if minutes is not None:
        if before is signal.SIG_IGN:  # what a shell script gives to what it starts in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.start()
    try:
        yield passed
    except (Interrupted, KeyboardInterrupt):
        if not passed.is_set():
            raise
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    if passed.is_set():
        console.print("The time is over; the same command goes on from here.")


def _in_order(specs: Sequence[TableSpec], scale: Scale, seeds: Sequence[int] | None) -> list[Run]:
    """All runs of the tables, each once: first seeds first, then in the order of the tables."""
    runs = {run.name: run for spec in specs for run in runs_of(spec, scale, seeds)}
    return sorted(runs.values(), key=lambda run: run.seed)


def _overview(runs: Runs, wanted: Sequence[Run]) -> RichTable:
    """Every run with its key, state, and minutes taken or expected."""
    expected = runs.expected_minutes()
    table = RichTable(title=f"runs at the scale {runs.scale.name}")
    for column, justify in (("run", "left"), ("key", "left"), ("state", "left"), ("minutes", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    left = 0.0
    for run in wanted:
        result, key = runs.result(run), runs.key(run)
        holder = None if result is not None else runs.holder(run)
        state = "done" if result is not None else f"in progress ({holder})" if holder else "missing"
        left += 0.0 if result is not None else expected
        table.add_row(run.name, "data not made yet" if key is None else key[:8], state,
                      f"about {expected:.0f}" if result is None else f"{result['minutes']:.1f}")
    table.caption = f"about {left:.0f} minutes left" if left else "all done"
    return table


def _write_tables(runs: Runs, specs: Sequence[TableSpec], seeds: Sequence[int] | None, folder: Path, command: str,
                  console: Console) -> list[Path]:
    written: list[Path] = []
    for spec in specs:
        table = build_table(spec, runs.scale, runs.result, seeds)
        written += write_report(table, folder, command)
        console.print(terminal(table))
    console.print(f"written to {folder}: {', '.join(path.name for path in written)}", highlight=False)
    return written


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError([f"must be numbers by commas, got {text!r}"], where="--seeds") from None


if __name__ == "__main__":
    typer.run(main)
