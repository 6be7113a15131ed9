"""Manifests: everything that is wrong is said at once, and files are the ones that were exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from occ_perception.engines import load_manifest, save_manifest
from occ_perception.errors import ManifestError


def edit(folder: Path, **values: Any) -> None:
    file = folder / "manifest.yaml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | values))


def test_a_saved_manifest_comes_back_equal_and_leaves_nothing_beside_it(folder: Path) -> None:
    manifest = load_manifest(folder)
    save_manifest(manifest, folder)
    assert load_manifest(folder / "manifest.yaml") == manifest
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.yaml", "tiny_fp32.onnx"]
    assert manifest.model_id == "tiny@1.0.0"
    assert manifest.path("fp32") == folder / "tiny_fp32.onnx"


def test_every_malformed_field_is_listed(folder: Path) -> None:
    edit(folder, tasks=["dancing"], version=[], image_size=[8], colour="red")
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder)
    text = str(caught.value)
    assert len(caught.value.faults) >= 4
    assert "tasks.0" in text
    assert "version" in text
    assert "image_size" in text
    assert "colour" in text
    assert str(folder) in text


def test_every_contradiction_is_listed(folder: Path) -> None:
    edit(folder, taxonomy="martian", image_size=[9, 12], waypoint_times_s=[0.5], lift_grid={
        "minimum_m": [0, 0, 0], "maximum_m": [4, 3, 1], "cell_m": 1.0,
    }, output_grid={"minimum_m": [0, 0, 0], "maximum_m": [4, 3, 0], "cell_m": 1.0})
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder)
    faults = "\n".join(caught.value.faults)
    for expected in ("martian", "images:", "waypoints:", "rows:", "bins:", "weights:", "output_grid:"):
        assert expected in faults


def test_a_task_without_its_output_is_refused(folder: Path) -> None:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    edit(folder, outputs=content["outputs"][1:])
    with pytest.raises(ManifestError, match="occupancy needs an output named 'labels'"):
        load_manifest(folder)


def test_another_file_than_the_exported_one_is_refused(folder: Path) -> None:
    (folder / "tiny_fp32.onnx").write_bytes(b"something else")
    with pytest.raises(ManifestError, match="SHA-256"):
        load_manifest(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "tiny_fp32.onnx").unlink()
    with pytest.raises(ManifestError, match=r"tiny_fp32\.onnx is missing"):
        load_manifest(folder)


def test_a_file_outside_the_folder_is_refused(folder: Path) -> None:
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    content["variants"]["fp32"]["file"] = "../tiny_fp32.onnx"
    edit(folder, variants=content["variants"])
    with pytest.raises(ManifestError, match="plain name"):
        load_manifest(folder)


@pytest.mark.parametrize(("text", "says"), [("[1, 2]", "mapping"), ("a: [", "YAML"), ("", "mapping")])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ManifestError, match=says):
        load_manifest(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere"):
        load_manifest(tmp_path / "nowhere")
