"""The command line of the experiments: what it demands, how it ends, what it says of errors."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from occ_perception import cli
from occ_perception.errors import DatasetError, OccPerceptionError
from occ_perception.training.experiments import __main__ as command
from occ_perception.training.experiments.__main__ import Made
from occ_perception.training.runner import Interrupted

app = typer.Typer()
app.command()(command.main)


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["walkocc/table5", "--scale", "smoke", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the experiment comes to: a result, or an error to be raised; then the options it was called with."""
    wanted: list[Any] = []

    def run(*_: object, **options: object) -> Made:
        found = wanted.pop()
        wanted.append(options)
        if isinstance(found, BaseException):
            raise found
        assert isinstance(found, Made)
        return found

    monkeypatch.setattr(command, "run_experiment", run)
    return wanted


@pytest.mark.parametrize(("found", "status"), [
    (Made([]), 0), (Made([], time_is_over=True), 75), (DatasetError("gone"), 1), (KeyboardInterrupt(), 130),
    (Interrupted("was interrupted", number=signal.SIGTERM), 143), (Interrupted("was interrupted"), 130),
])
def test_statuses_tell_done_stopped_over_and_failed_apart(
    outcome: list[Any], tmp_path: Path, found: Made | BaseException, status: int
) -> None:
    outcome.append(found)
    assert invoke("--data", tmp_path)[0] == status
    outcome[:] = [found]
    with pytest.raises(SystemExit) as end:
        cli.main(["experiment", "walkocc/table5", "--scale", "smoke", "--data", str(tmp_path)])
    assert end.value.code == (cli.ERROR_STATUS if isinstance(found, OccPerceptionError) and status == 1 else status)


def test_an_error_is_told_as_it_is(outcome: list[Any], tmp_path: Path) -> None:
    outcome.append(DatasetError("the camera [front] is [bold]gone[/bold]"))
    assert "error: the camera [front] is [bold]gone[/bold]" in invoke("--data", tmp_path)[1]


def test_loaders_are_passed_on(outcome: list[Any], tmp_path: Path) -> None:
    outcome.append(Made([]))
    assert invoke("--data", tmp_path, "--loaders", 6)[0] == 0
    assert outcome[0]["loaders"] == 6


def test_data_are_demanded_only_to_make_runs(tmp_path: Path) -> None:
    status, said = invoke("--results", tmp_path)
    assert status == 1
    assert "--data: is needed to make runs" in said
    assert invoke("--results", tmp_path, "--list", "--work", tmp_path / "work")[0] == 0
    assert invoke("--results", tmp_path, "--report-only", "--work", tmp_path / "work")[0] == 0
    table = json.loads((tmp_path / "walkocc" / "smoke" / "table5.json").read_text())
    assert len(table["missing"]) == 5
