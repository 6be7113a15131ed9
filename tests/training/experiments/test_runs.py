"""Runs for real at the scale `smoke`: from data generation to pictures, once; then what is kept, reused and refused."""

from __future__ import annotations

import io
import json
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from occ_perception.datasets import open_split
from occ_perception.errors import DatasetError
from occ_perception.labeling.pseudo import label_split
from occ_perception.training.experiments import runs as runs_module
from occ_perception.training.experiments.__main__ import RIGS, Made, run_experiment
from occ_perception.training.experiments.claims import claim
from occ_perception.training.experiments.data import DataFolders
from occ_perception.training.experiments.rows import ROWS
from occ_perception.training.experiments.runs import Folders, Run, Runs
from occ_perception.training.experiments.scale import SCALES

pytestmark = pytest.mark.slow
SMOKE = SCALES["smoke"]


class Place:
    """Folders of experiments, and what was said while they were used."""

    def __init__(self, root: Path) -> None:
        self.root, self.results = root, root / "results"
        self.kept, self.work = self.results / "walkocc" / "smoke", root / "work" / "smoke"
        self.console = Console(file=io.StringIO(), width=160)

    def run(self, experiment: str, **options: Any) -> list[Path]:
        return self.made(experiment, **options).files

    def made(self, experiment: str, **options: Any) -> Made:
        return run_experiment(experiment, "smoke", self.root / "sim", results=self.results, threads=1,
                              console=self.console, **options)

    def runs(self) -> Runs:
        data = DataFolders(SMOKE, self.work / "sim", self.work / "small", self.kept / "data.json")
        return Runs(SMOKE, data, Folders(self.kept, self.work, RIGS), self.console, 1)

    def said(self) -> str:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Tables 1 and 4, made from nothing."""
    place = Place(tmp_path_factory.mktemp("smoke"))
    place.run("walkocc/table1")
    place.run("walkocc/table4")
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy of what was made, to be changed."""
    shutil.copytree(made.root, tmp_path / "copy")
    return Place(tmp_path / "copy")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be trained."""
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is trained again")

    monkeypatch.setattr(runs_module, "train", refuse)
    monkeypatch.setattr(runs_module, "pretrain", refuse)


def test_tables_1_and_4_come_from_nothing_with_small_results_from_one_trunk(made: Place) -> None:
    for name in ("table1", "table4"):
        assert all((made.kept / f"{name}{suffix}").stat().st_size > 500 for suffix in (".md", ".json", ".png"))
        table = json.loads((made.kept / f"{name}.json").read_text())
        assert table["missing"] == []
        assert [text for text in table["warnings"] if "changed since its commit" not in text] == []  # as in this tree
        assert all(row["ours"][score][0] is not None for row in table["rows"]
                   for score in ("iou", "collision") if score in row["ours"])
    results = [json.loads(path.read_text()) for path in (made.kept / "runs").iterdir()]
    assert {result["row"] for result in results} == {"monoscene", "flashocc", "walkocc_paired", "walkocc",
                                                     "trajectory_only"}
    assert max(path.stat().st_size for path in (made.kept / "runs").iterdir()) < 30_000
    trunks = {str(about) for result in results for name, about in result["data"].items() if name.startswith("trunk-")}
    assert len(trunks) == 1
    assert len(list(made.kept.glob("trunk-*.safetensors"))) == 1
    assert not list(made.root.rglob("*.lock"))


def test_a_run_holds_all_its_evaluations_by_scene(made: Place) -> None:
    result = made.runs().result(Run(ROWS["walkocc_paired"], 0))
    assert result is not None
    assert set(result["evaluations"]) == set(ROWS["walkocc_paired"].splits)
    for split, scores in result["evaluations"].items():
        assert len(scores["scenes"]) == len(scores["waypoints"]) == 2
        assert ("voxels" in scores) == (split != "paths")
        assert ("pixels" in scores) == (split == "embodiments")
    hits, unions = result["evaluations"]["test"]["voxels"][0]
    assert 0 < hits[0] <= unions[0]
    assert result["evaluations"]["paths"]["navigation"][0][0] == SMOKE.frames
    assert result["steps"] == SMOKE.steps


@pytest.mark.usefixtures("untrained")
def test_what_is_done_is_not_made_again_and_gives_the_same_table(place: Place) -> None:
    before = json.loads((place.kept / "table1.json").read_text())
    assert not place.made("walkocc/table1", max_minutes=60.0).time_is_over
    assert json.loads((place.kept / "table1.json").read_text()) == before


@pytest.mark.usefixtures("untrained")
def test_tables_are_written_from_the_kept_results_alone(place: Place) -> None:
    before = json.loads((place.kept / "table4.json").read_text())
    shutil.rmtree(place.root / "work")
    place.run("walkocc/table4", report_only=True)
    after = json.loads((place.kept / "table4.json").read_text())
    assert after["rows"] == before["rows"]
    assert after["runs"] == before["runs"]


def test_the_list_says_what_is_done_and_what_is_missing(place: Place) -> None:
    assert place.run("walkocc/table5", show=True) == []
    lines = {line.split()[1]: line for line in place.said().splitlines() if "-s0" in line}
    assert "done" in lines["flashocc-s0"]
    assert "missing" in lines["semantics-s0"]
    assert str(place.runs().key(Run(ROWS["semantics"], 0)))[:8] in lines["semantics-s0"]


def test_a_run_that_lacks_an_evaluation_is_scored_on_that_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, run = place.runs(), Run(ROWS["flashocc"], 0)
    path = runs.path(run)
    assert path is not None
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "evaluations": {
        split: scores for split, scores in whole["evaluations"].items() if split != "night"}}))
    assert runs.result(run) is None
    scored: list[int] = []
    real = runs_module.score_split
    monkeypatch.setattr(runs_module, "score_split", lambda *a, **k: scored.append(1) or real(*a, **k))
    began = (place.work / "runs" / path.stem / "model.safetensors").stat().st_mtime_ns
    result = runs.carry_out(run)
    assert result["evaluations"] == whole["evaluations"]
    assert scored == [1]
    assert (place.work / "runs" / path.stem / "model.safetensors").stat().st_mtime_ns == began


def test_a_claimed_run_is_left_to_its_holder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "train", lambda *_, **__: pytest.fail("claimed, yet trained"))
    path = place.runs().path(Run(ROWS["trajectory_only"], 0))
    assert path is not None
    path.unlink()
    with claim(place.work / "claims" / f"{path.stem}.lock", place.console):
        written = place.run("walkocc/table4")
    assert "in progress (process" in place.said()
    assert "left to it" in place.said()
    assert json.loads(written[1].read_text())["missing"] == ["trajectory_only-s0"]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_when_the_time_is_over_work_stops_and_the_table_shows_what_is_missing(
        place: Place, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(runs_module, "train", lambda *_, **__: threading.Event().wait(60))  # until interrupted
    made = place.made("walkocc/table5", max_minutes=0.02)
    assert made.time_is_over
    assert "time is over" in place.said()
    assert json.loads(made.files[1].read_text())["missing"] == ["occupancy_only-s0", "semantics-s0"]
    assert not list(place.work.rglob("*.lock"))


def test_pseudo_labels_are_demanded_by_the_command_that_makes_them_and_then_learned_from(place: Place) -> None:
    sim, small = place.work / "sim", place.work / "small" / "72x128_0.40m"
    for split in ("train", "val"):
        with pytest.raises(DatasetError, match=rf"no split '{split}_pseudo'.*labeling.pseudo {sim} {small} {split}`"):
            place.run("walkocc/pseudo")
        label_split(sim, small, split, console=place.console)
    assert json.loads(place.run("walkocc/pseudo")[1].read_text())["missing"] == []
    run = Run(ROWS["pseudo_labels"], 0)
    result = place.runs().result(run)
    assert result is not None
    labelled = open_split(small, "train_pseudo")
    assert result["data"]["train_pseudo"] == {"version": labelled.version, "content_hash": labelled.content_hash,
                                              "samples": SMOKE.frames * SMOKE.scenes}
    assert set(result["evaluations"]) == {"val", "test"}
    key = place.runs().key(run)
    shutil.rmtree(small)
    assert place.runs().key(run) == key  # which data they were is recorded beside the results


def test_results_of_other_data_are_not_mixed_in(place: Place) -> None:
    path = place.work / "small" / "72x128_0.40m" / "test" / "split.yaml"
    path.write_text(path.read_text().replace("content_hash: ", "content_hash: f00"))
    with pytest.raises(DatasetError, match=r"(?s)test.*f00.*another folder for the results"):
        place.run("walkocc/table1")


def test_a_result_of_another_configuration_does_not_count(place: Place) -> None:
    runs, run = place.runs(), Run(ROWS["flashocc"], 0)
    path = runs.path(run)
    assert path is not None
    result = json.loads(path.read_text())
    result["configuration"]["loss"]["focal_gamma"] = 3.0
    path.write_text(json.dumps(result))
    assert runs.result(run) is None
    assert "loss.focal_gamma 3.0, not" in place.said()


def test_keys_depend_on_configuration_seed_data_and_trunk_but_not_on_where_or_how(made: Place) -> None:
    def key(run: Run, **changes: Any) -> str | None:
        runs = made.runs()
        runs.scale = replace(SMOKE, **changes)
        return runs.key(run)

    run = Run(ROWS["walkocc"], 0)
    first = key(run)
    assert first == key(run)
    assert first == key(run, checkpoint_minutes=9.0, expected_minutes=3.0, device="cuda")
    parallel = made.runs()
    parallel.threads, parallel.loaders = 3, 5
    assert first == parallel.key(run)
    others = [key(Run(ROWS["walkocc"], 1)), key(run, steps=7), key(run, learning_rate=1e-3), key(run, trunk_steps=5),
              key(Run(ROWS["walkocc_paired"], 0))]
    assert len({first, *others}) == 6
    assert None not in {first, *others}
    assert key(Run(ROWS["night_30"], 0)) is None  # images by day were not needed and so not made


def test_without_data_there_is_no_key_and_without_rigs_no_data(tmp_path: Path) -> None:
    place = Place(tmp_path)
    runs = place.runs()
    assert runs.key(Run(ROWS["walkocc"], 0)) is None
    assert runs.result(Run(ROWS["walkocc"], 0)) is None
    with pytest.raises(DatasetError, match="--rigs"):
        place.run("walkocc/table1", rigs=tmp_path / "none")
