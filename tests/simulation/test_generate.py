"""Splits on disk: whole scenes or none, resumable, equal in any number of processes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import embreex  # noqa: F401
import numpy as np
import pytest
import yaml
from rich.console import Console

from occ_perception.calibration import load_rig, save_rig
from occ_perception.datasets import ImageDataset, SimulatedDataset
from occ_perception.errors import DatasetError
from occ_perception.geometry import se3
from occ_perception.simulation import generate as generation
from occ_perception.simulation.generate import Generated, generate, write_scene
from occ_perception.simulation.splits import SceneSpec, Split

RIGS = Path(__file__).resolve().parents[2] / "calibration"
TINY = Split("tiny", (SceneSpec(1, "residential", False, "wheeled", 2), SceneSpec(2, "touristy", True, "quadruped", 1)))


def run(root: Path, workers: int = 1, split: Split = TINY) -> tuple[Generated, str]:
    console = Console(file=io.StringIO(), width=160)
    return generate(split, root, RIGS, workers=workers, console=console), console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Generated, str]:
    root = tmp_path_factory.mktemp("sim")
    return root, *run(root)


def test_a_split_is_written_and_read_back(written: tuple[Path, Generated, str]) -> None:
    root, result, said = written
    assert (result.scenes, result.frames, result.new_frames) == (2, 3, 3)
    assert result.size_bytes > 200_000
    assert "new frames/s" in said
    assert result.content_hash[:16] in said
    data = SimulatedDataset(root, "tiny")
    assert len(data) == 3
    assert data.content_hash == result.content_hash
    assert [(s.scene, s.index) for s in data] == [(TINY.scenes[0].name, 0), (TINY.scenes[0].name, 1),
                                                  (TINY.scenes[1].name, 0)]
    assert data[2].rig.name == "quadruped"
    assert data[0].waypoints_m is not None


def test_the_lidar_points_lie_where_the_camera_measures(written: tuple[Path, Generated, str]) -> None:
    sample = SimulatedDataset(written[0], "tiny")[0]
    assert sample.points_m is not None
    camera = sample.rig.cameras[0]
    points = se3.apply(se3.invert(camera.T_base_camera), sample.points_m)
    pixels, valid = camera.camera.project(points)
    columns, rows = np.rint(pixels[valid]).astype(int).T
    measured = sample.range_m["front"][np.clip(rows, 0, camera.height - 1), np.clip(columns, 0, camera.width - 1)]
    difference = np.abs(measured - np.linalg.norm(points[valid], axis=1))
    assert valid.sum() > 5000
    assert np.median(difference) < 0.03, "the two stand apart, so edges differ, surfaces do not"
    assert (difference < 0.15).mean() > 0.9


def test_a_split_of_images_shows_the_same_world_and_nothing_in_3d(
    written: tuple[Path, Generated, str], tmp_path: Path
) -> None:
    run(tmp_path, split=replace(TINY, images_only=True))
    data = ImageDataset(tmp_path, "tiny")
    for image, full in zip(data, SimulatedDataset(written[0], "tiny"), strict=True):  # type: ignore[call-overload]
        assert (image.images["front"] == full.images["front"]).all()
        assert (image.semantics["front"] == full.semantics["front"]).all()
        np.testing.assert_allclose(image.T_grid_base, full.T_grid_base, atol=1e-9)
    names = {p.suffix for p in (tmp_path / "tiny").rglob("*") if p.is_file()}
    assert names == {".yaml", ".jpg", ".png"}
    with pytest.raises(DatasetError, match="images_only is True, not False"):
        run(tmp_path)


def test_a_second_run_writes_nothing(written: tuple[Path, Generated, str]) -> None:
    root, first, _ = written
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file() and p.name != "split.yaml"}
    second, _ = run(root)
    assert second.new_frames == 0
    assert second.content_hash == first.content_hash
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_processes_write_what_one_process_writes(written: tuple[Path, Generated, str], tmp_path: Path) -> None:
    root, first, _ = written
    parallel, _ = run(tmp_path, workers=2)
    assert parallel.content_hash == first.content_hash
    for path in sorted((root / "tiny").glob("*/*.jpg")) + sorted((root / "tiny").glob("*/*.png")):
        assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_an_interrupted_scene_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(folder: Path, sample: object) -> None:
        (folder / "000.npz").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(generation, "write_sample", dies)
    with pytest.raises(KeyboardInterrupt):
        write_scene(TINY.scenes[0], tmp_path / "scene", RIGS)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_does_not_cut_a_split_that_is_there(written: tuple[Path, Generated, str]) -> None:
    root, _, _ = written
    before = (root / "tiny" / "split.yaml").read_bytes()
    with pytest.raises(DatasetError, match="more frames than asked for"):
        generate(TINY, root, RIGS, workers=1, limit=1, console=Console(file=io.StringIO()))
    assert (root / "tiny" / "split.yaml").read_bytes() == before


def test_a_scene_of_another_rig_is_not_taken_as_finished(
    written: tuple[Path, Generated, str], tmp_path: Path
) -> None:
    root, _, _ = written
    name = "sidewalk_wheeled"
    rig = load_rig(RIGS / f"{name}.yaml")
    save_rig(rig.model_copy(update={"footprint_radius_m": 0.5}), tmp_path / f"{name}.yaml")
    with pytest.raises(DatasetError, match=f"its rig is not the present {rig.name}"):
        write_scene(TINY.scenes[0], root / "tiny" / TINY.scenes[0].name, tmp_path)


def test_scenes_of_another_simulation_are_not_mixed_in(written: tuple[Path, Generated, str], tmp_path: Path) -> None:
    root, _, _ = written
    folder = tmp_path / "scene"
    folder.mkdir()
    about = yaml.safe_load((root / "tiny" / TINY.scenes[0].name / "scene.yaml").read_text())
    (folder / "scene.yaml").write_text(yaml.safe_dump({**about, "version": "0", "night": True}))
    with pytest.raises(DatasetError, match=r"version is '0', not '1'.*night is True, not False"):
        write_scene(TINY.scenes[0], folder, RIGS)
