"""Many scenes at once: kills, full disks and unreadable sources cost what they touch; nothing is half-written."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from rich.console import Console

from occ_perception.datasets.sidewalk3d import Sidewalk3dDataset, write_splits
from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.labeling.fleet import FleetResult, run_fleet
from occ_perception.labeling.pool import LocalPool, RayPool
from occ_perception.labeling.scene_job import Status, label_scene
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import LabelSettings, Sam3Folders
from occ_perception.labeling.summary import outcome_line, outcome_table

Label = Callable[..., FleetResult]


@pytest.fixture
def settings(streets: ModuleType) -> LabelSettings:
    return LabelSettings(segmenter=SimulatedErrors(), grid=streets.SPEC)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


@pytest.fixture(scope="module")
def pool(streets: ModuleType) -> Iterator[LocalPool]:
    """Two processes for the whole module; the interpreter of each is started once, unless it is killed."""
    with LocalPool(2) as made:
        yield made


def run(streets: ModuleType, pool: Any, out: Path, settings: LabelSettings, *refs: Any, towns: Sequence[Any] = (),
        **more: Any) -> FleetResult:
    town = [streets.Town(Path("town"), tuple(refs))] if refs else []
    return run_fleet([*town, *towns], out, settings, pool, console=Console(file=io.StringIO()), **more)


def names_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def test_scenes_become_a_data_set_with_reports(streets: ModuleType, pool: LocalPool, out: Path, settings: LabelSettings
                                               ) -> None:
    result = run(streets, pool, out, settings, streets.Street("a"), streets.Street("b", frames=2))
    assert {outcome.name: outcome.frames for outcome in result.having(Status.done)} == {"a": 3, "b": 2}
    assert names_in(out) == ["a", "b", "settings.yaml", "splits.yaml"]
    data = Sidewalk3dDataset(out, "train")
    assert len(data) == 5
    assert data[0].track_ids.tolist() == [41]
    report = json.loads((out / "a" / "report.json").read_text())
    assert report["source"] == {"kind": "street"}
    assert report["segmenter"] == "simulated, error rate 0.1, seed 0"
    assert report["settings"] == settings.to_dict()
    assert report["content_hash"] == data.about["a"]["content_hash"]
    assert report["quality"]["scores"]["iou"] > 0.9
    assert report["quality"]["scores"]["trail"] < 0.02
    assert report["pose_error_m"] == 0.0
    assert report["health"].keys() == {"front"}
    assert report["frames_per_core_s"] > 0
    assert 50 < report["peak_memory_mb"] < 4096
    assert (out / "a" / "picture.jpg").stat().st_size > 10_000


def test_what_is_done_is_kept_and_what_is_missing_is_made(streets: ModuleType, pool: LocalPool, out: Path,
                                                          settings: LabelSettings) -> None:
    run(streets, pool, out, settings, streets.Street("a", frames=1))
    before = (out / "a" / "report.json").stat().st_mtime_ns
    (out / ".b.killed" / "b").mkdir(parents=True)  # what a worker leaves that was killed while it wrote
    result = run(streets, pool, out, settings, streets.Street("a", frames=1), streets.Street("b", frames=1))
    assert (result.kept, [outcome.name for outcome in result.outcomes]) == (["a"], ["b"])
    assert (out / "a" / "report.json").stat().st_mtime_ns == before
    assert names_in(out) == ["a", "b", "settings.yaml", "splits.yaml"]


def test_a_killed_worker_costs_its_scene_one_try(streets: ModuleType, pool: LocalPool, out: Path, tmp_path: Path,
                                                 settings: LabelSettings) -> None:
    result = run(streets, pool, out, settings, streets.Deadly("once", frames=1, notes=tmp_path, deaths=1),
                 streets.Deadly("always", frames=1, notes=tmp_path, deaths=9), streets.Street("c", frames=1))
    assert {outcome.name for outcome in result.having(Status.done)} == {"once", "c"}
    [failed] = result.having(Status.failed)
    assert (failed.name, failed.reason) == ("always", "its worker died 2 times (killed, or out of memory)")
    assert len(list(tmp_path.glob("always-*"))) == 2
    assert names_in(out) == ["c", "once", "settings.yaml", "splits.yaml"]


def test_a_killed_run_goes_on_without_redoing_or_losing_a_scene(streets: ModuleType, pool: LocalPool, out: Path,
                                                               tmp_path: Path, settings: LabelSettings) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings.to_dict()))
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import streets
from occ_perception.labeling.fleet import run_fleet
from occ_perception.labeling.pool import LocalPool
from occ_perception.labeling.settings import load_settings, settings_from_dict

if __name__ == "__main__":
    settings = settings_from_dict(load_settings(Path({str(tmp_path / "settings.yaml")!r})), "test")
    town = streets.Town(Path("town"), (streets.Street("a", frames=1),
                                       streets.Held("b", frames=1, told=Path({str(told)!r}))))
    with LocalPool(1) as pool:
        run_fleet([town], Path({str(out)!r}), settings, pool)
"""
    (tmp_path / "driver.py").write_text(script)
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py")], stdout=subprocess.DEVNULL)
    worker = os.pidfd_open(int(told.read_text()))  # waits until the worker is in the middle of b
    driver.send_signal(signal.SIGKILL)
    driver.wait(timeout=60)
    assert select.select([worker], [], [], 60)[0], "the worker outlives its driver"
    os.close(worker)
    assert (out / "a").is_dir()
    assert not (out / "b").exists()
    told.unlink()
    result = run(streets, pool, out, settings, streets.Street("a", frames=1), streets.Held("b", frames=1, told=told))
    assert (result.kept, [outcome.name for outcome in result.having(Status.done)]) == (["a"], ["b"])


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(streets: ModuleType, out: Path,
                                                                  settings: LabelSettings) -> None:
    with LocalPool(1) as own, pytest.raises(OccPerceptionError, match=r"cannot be written .*Make room|disk full"):
        run(streets, own, out, settings, streets.Cramped("a", frames=1), streets.Street("b", frames=1))
    assert names_in(out) == ["settings.yaml"]


def test_an_interrupt_ends_the_workers_too(streets: ModuleType, out: Path, tmp_path: Path, settings: LabelSettings
                                           ) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    workers: list[int] = []

    def interrupt() -> None:
        workers.append(os.pidfd_open(int(told.read_text())))
        os.kill(os.getpid(), signal.SIGINT)

    reader = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    reader.start()
    try:
        with pytest.raises(KeyboardInterrupt), LocalPool(1) as own:
            run(streets, own, out, settings, streets.Held("b", frames=1, told=told))
    finally:
        signal.signal(signal.SIGINT, before)
    reader.join()
    assert select.select(workers, [], [], 60)[0], "the worker goes on"
    os.close(workers[0])
    assert names_in(out) == ["settings.yaml"]


def test_an_interrupt_while_work_is_handed_out_ends_the_worker(streets: ModuleType, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    workers: list[int] = []
    handed_out = ProcessPoolExecutor.submit

    def interrupted(process: ProcessPoolExecutor, *work: Any) -> None:
        handed_out(process, *work)
        workers.append(os.pidfd_open(int(told.read_text())))  # waits until the worker has begun
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), LocalPool(1) as own:
        own.submit("b", streets.Held.open, streets.Held("b", told=told))
    assert select.select(workers, [], [], 60)[0], "the worker goes on"
    os.close(workers[0])


def test_bad_sources_and_faults_are_named_and_the_rest_goes_on(streets: ModuleType, pool: LocalPool, out: Path,
                                                               settings: LabelSettings) -> None:
    result = run(streets, pool, out, settings, streets.Broken("bug"), streets.Street("none", frames=0),
                 streets.Street("a", frames=1),
                 towns=[streets.Town(Path("cut.mcap")), streets.Town(Path("other"), (streets.Street("a"),))])
    reasons = {(outcome.name, outcome.status): outcome.reason for outcome in result.outcomes}
    assert "ZeroDivisionError: a fault" in reasons["bug", Status.failed]
    assert "none of its 0 frames" in reasons["none", Status.skipped]
    assert reasons["cut.mcap", Status.skipped] == "cut.mcap: is cut off"
    assert reasons["a", Status.skipped] == "another source has a scene of this name"
    assert reasons["a", Status.done] == ""
    shown = io.StringIO()
    Console(file=shown, width=200).print(outcome_line(result), outcome_table(result))
    for part in ("1 done now, 0 before, 3 skipped, 1 failed", "is cut off", "ZeroDivisionError"):
        assert part in shown.getvalue()


def test_a_folder_keeps_its_settings_and_its_splits(streets: ModuleType, pool: LocalPool, out: Path,
                                                    settings: LabelSettings) -> None:
    run(streets, pool, out, settings, streets.Street("a", frames=1), split="val")
    run(streets, pool, out, settings, streets.Street("b", frames=1))
    splits = yaml.safe_load((out / "splits.yaml").read_text())["splits"]
    assert splits == {"val": ["a"], "train": ["b"]}
    write_splits(out, "mine", {"test": ["a", "b"]})
    run(streets, pool, out, settings, streets.Street("a", frames=1))
    assert yaml.safe_load((out / "splits.yaml").read_text())["splits"] == {"test": ["a", "b"]}
    other = LabelSettings(segmenter=SimulatedErrors(seed=1), grid=streets.SPEC)
    with pytest.raises(ConfigurationError, match=r"segmenter was .*'seed': 0.* is .*'seed': 1"):
        run(streets, pool, out, other, streets.Street("a"))


def test_a_segmenter_that_cannot_be_loaded_ends_the_run(streets: ModuleType, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    absent = LabelSettings(segmenter=Sam3Folders(base=tmp_path / "absent"), grid=streets.SPEC)
    outcome = label_scene(streets.Street("a", frames=1), out, absent)
    assert outcome.status is Status.stopped
    assert "absent" in outcome.reason


def test_ray_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'occ_perception\[label\]'"):
        RayPool("auto")
