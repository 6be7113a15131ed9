"""A table filled in: scores with intervals, comparisons with verdicts, the paper's figures, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from occ_perception.metrics import Interval, Resampled, interval, ratio
from occ_perception.training.checkpoint import DIRTY
from occ_perception.training.experiments.rows import ROWS, Row, get_row
from occ_perception.training.experiments.runs import Result, Run
from occ_perception.training.experiments.scale import Scale
from occ_perception.training.experiments.statistics import RowScores, make_bootstrap
from occ_perception.training.experiments.tables import BASE, Column, Comparison, TableSpec

Verdict = Literal["better", "worse", "undecided"]
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Line:
    """One line of a table: intervals and the paper's figures by column, in the columns' units."""

    key: str
    title: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Interval]
    paper: Mapping[str, float]


@dataclass(frozen=True)
class Compared:
    """One column of a comparison.

    Attributes:
        one, other: titles of the lines.
        points: difference one - other, in the column's unit.
        relative: gain one / other - 1, percent.
        paper_points, paper_relative: the same of the paper's figures, or NaN.
        seeds: those that both lines have.
        verdict: `undecided` where the interval of the difference holds 0.
    """

    one: str
    other: str
    column: Column
    points: Interval
    relative: Interval
    paper_points: float
    paper_relative: float
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """What is compared with what; a line that adds something to the one before is named by what it adds."""
        return f"adding {self.one[2:]}" if self.one.startswith("+ ") else f"{self.one} over {self.other}"

    @property
    def verdict(self) -> Verdict:
        if not self.points.excludes_zero:
            return "undecided"
        return "better" if (self.points.value < 0) == self.column.lower_is_better else "worse"


@dataclass(frozen=True)
class Table:
    """A table at a scale; `used` are the runs it rests on, `missing` the names of those that are not done."""

    spec: TableSpec
    scale: Scale
    lines: tuple[Line, ...]
    comparisons: tuple[Compared, ...]
    used: tuple[Result, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def runs_of(spec: TableSpec, scale: Scale, seeds: Sequence[int] | None = None) -> list[Run]:
    """The runs that a table is a query over; `seeds`: these of every row, instead of its own."""
    rows = {(row := get_row(entry.row, scale)).name: row for entry in spec.entries}
    return [Run(row, seed) for row in rows.values() for seed in seeds_of(row, spec, scale, seeds)]


def seeds_of(row: Row, spec: TableSpec, scale: Scale, seeds: Sequence[int] | None = None) -> list[int]:
    """The seeds of a row in a table."""
    if seeds is not None:
        return sorted(set(seeds))
    return [seed for seed in row.seeds if seed in spec.seeds and seed in scale.seeds]


def build_table(spec: TableSpec, scale: Scale, find: Callable[[Run], Result | None],
                seeds: Sequence[int] | None = None) -> Table:
    """Fill a table in from the results that `find` knows.

    Lines are over the seeds that are done, comparisons over those that both lines have.
    """
    results: dict[str, dict[int, Result]] = {}
    missing = []
    for run in runs_of(spec, scale, seeds):
        result = find(run)
        if result is None:
            missing.append(run.name)
        else:
            results.setdefault(run.row.name, {})[run.seed] = result
    evaluations = {name: {seed: result["evaluations"] for seed, result in by_seed.items()}
                   for name, by_seed in results.items()}
    bootstrap = make_bootstrap(list(evaluations.values()), np.random.default_rng(BOOTSTRAP_SEED), scale.resamples)
    entries = {entry.key: entry for entry in spec.entries}
    rows = {entry.key: get_row(entry.row, scale).name for entry in spec.entries}

    def scores(key: str, only: set[int] | None = None) -> RowScores:
        by_seed = evaluations.get(rows[key], {})
        kept = {seed: found for seed, found in by_seed.items() if only is None or seed in only}
        return RowScores(kept, bootstrap, entries[key].suffix, entries[key].true_paths)

    lines = tuple(
        Line(key, entry.title or ROWS[entry.row].title, tuple(scores(key).evaluations),
             {column.name: _scaled(interval(column.score(scores(key))), column.factor) for column in spec.columns},
             entry.paper)
        for key, entry in entries.items())
    titles = {line.key: line.title for line in lines} | {BASE: f"{scale.range_m:g} m range"}
    base = next((key for key, name in rows.items() if name == "walkocc_paired"), "")
    columns = {column.name: column for column in spec.columns}
    compared = []
    for comparison in spec.comparisons:
        one, other = (base if key == BASE else key for key in (comparison.one, comparison.other))
        common = evaluations.get(rows[one], {}).keys() & evaluations.get(rows[other], {}).keys()
        for name in comparison.columns:
            a, b = (columns[name].score(scores(key, set(common))) for key in (one, other))
            paper = _paper(comparison, name, entries[one].paper, entries[other].paper)
            compared.append(Compared(
                one=titles[comparison.one], other=titles[comparison.other], column=columns[name],
                points=_scaled(interval(a - b), columns[name].factor),
                relative=_scaled(interval(_gain(a, b)), 100.0), paper_points=paper[0] - paper[1],
                paper_relative=100 * (paper[0] / paper[1] - 1) if paper[1] else math.nan,
                seeds=tuple(sorted(common))))
    used = tuple(result for by_seed in results.values() for result in by_seed.values())
    return Table(spec, scale, lines, tuple(compared), used, tuple(missing), tuple(_warnings(used)))


def _paper(comparison: Comparison, column: str, one: Mapping[str, float], other: Mapping[str, float]
           ) -> tuple[float, float]:
    """The paper's two figures that a comparison stands beside, or NaN."""
    return comparison.paper.get(column, (one.get(column, math.nan), other.get(column, math.nan)))


def _gain(one: Resampled, other: Resampled) -> Resampled:
    """Relative gain; not defined over nothing."""
    return ratio(one - other, other)


def _scaled(found: Interval, factor: float) -> Interval:
    return Interval(factor * found.value, factor * found.low, factor * found.high)


def _warnings(used: Sequence[Result]) -> list[str]:
    """What makes the runs of a table less comparable than they should be."""
    trunks = {identity["sha256"] for result in used for identity in result["data"].values() if "sha256" in identity}
    warnings = ["The runs do not start from one and the same trunk file."] if len(trunks) > 1 else []
    alike = {"steps": "The runs took different numbers of steps.",
             "commit": "The runs were made by different commits of the code.",
             "torch": "The runs were made with different versions of torch."}
    warnings += [text for key, text in alike.items() if len({result.get(key) for result in used}) > 1]
    changed = any(str(result.get("commit")).endswith(DIRTY) for result in used)
    return warnings + (["Some runs were made by code that was changed since its commit."] if changed else [])
