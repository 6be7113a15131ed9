"""The onnxruntime backend on a tiny graph: exact answers, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml

from occ_perception.engines import Engine, load_engine, load_manifest
from occ_perception.errors import EngineError, OccPerceptionError


def inputs(cameras: int = 1, hits: int = 1) -> dict[str, np.ndarray]:
    return {
        "images": np.full((cameras, 8, 12, 3), 40, np.uint8),
        "rows": np.tile(np.arange(24, dtype=np.int32), (hits, 1)),
        "bins": np.zeros((hits, 24), np.int32),
        "weights": np.full((hits, 24), 0.5, np.float32),
    }


@pytest.fixture
def engine(folder: Path) -> Engine:
    return load_engine(load_manifest(folder), device="cpu", threads=1)


def test_answers_are_those_of_the_graph(engine: Engine) -> None:
    outputs, _ = engine.run(inputs(), engine.new_state())
    np.testing.assert_array_equal(outputs["labels"].ravel(), np.arange(24))
    assert (outputs["confidence"] == 255).all()
    np.testing.assert_allclose(outputs["waypoints"], 40.0)


def test_cameras_and_hits_are_free(engine: Engine) -> None:
    outputs, _ = engine.run(inputs(cameras=3, hits=2), engine.new_state())
    np.testing.assert_array_equal(outputs["labels"].ravel(), 2 * np.arange(24))


def test_outputs_are_new_arrays_each_time(engine: Engine) -> None:
    first, state = engine.run(inputs(), engine.new_state())
    first["labels"][:] = 77
    second, _ = engine.run(inputs(), state)
    assert (second["labels"] != 77).all()


def test_bound_constants_need_not_be_given_again(engine: Engine) -> None:
    frame = inputs()
    engine.bind({name: frame.pop(name) for name in ("rows", "bins", "weights")})
    outputs, _ = engine.run(frame, engine.new_state())
    np.testing.assert_array_equal(outputs["labels"].ravel(), np.arange(24))


def test_warm_up_runs_with_the_lengths_asked_for(engine: Engine) -> None:
    assert engine.warm_up(cameras=2, hits=2) > 0


def test_every_wrong_input_is_named(engine: Engine) -> None:
    frame = inputs()
    del frame["bins"]
    frame["images"] = frame["images"][:, :4]
    frame["weights"] = frame["weights"].astype(np.float64)
    frame["odd"] = np.zeros(1)
    with pytest.raises(EngineError) as caught:
        engine.run(frame, engine.new_state())
    text = str(caught.value)
    assert all(word in text for word in ("'bins' is missing", "'odd' is unknown", "[1, 4, 12, 3]", "float64"))


def test_a_free_length_must_be_one_and_the_same(engine: Engine) -> None:
    frame = inputs(hits=2)
    frame["bins"] = frame["bins"][:1]
    with pytest.raises(EngineError, match="bins"):
        engine.run(frame, engine.new_state())


def test_it_says_what_really_runs(engine: Engine) -> None:
    said = engine.describe()
    assert (said.provider, said.device, said.precision, said.variant) == ("CPUExecutionProvider", "cpu", "fp32", "fp32")
    assert said.backend == f"onnxruntime {onnxruntime.__version__}"
    assert said.build_s > 0
    assert said.threads == 1
    assert said.model_id == "tiny@1.0.0"


needs_cpu_build = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)


@needs_cpu_build
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_that_cannot_be_had_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(EngineError, match="onnxruntime-gpu"):
        load_engine(load_manifest(folder), device=device)  # type: ignore[arg-type]


@needs_cpu_build
def test_the_cpu_stands_in_for_a_gpu_only_when_allowed(folder: Path) -> None:
    engine = load_engine(load_manifest(folder), device="cuda", allow_cpu=True)
    assert engine.describe().device == "cpu"


def test_a_provider_that_falls_away_while_loading_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime-gpu without a driver lists CUDA as available, then quietly gives a session on the CPU.
    from occ_perception.engines import onnxruntime as backend

    monkeypatch.setattr(backend.ort, "get_available_providers",
                        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    original = backend._open_session
    monkeypatch.setattr(backend, "_open_session", lambda path, device, threads: original(path, "cpu", threads))
    with pytest.raises(EngineError, match="gave CPUExecutionProvider"):
        load_engine(load_manifest(folder), device="cuda")
    assert load_engine(load_manifest(folder), device="cuda", allow_cpu=True).describe().device == "cpu"
    assert load_engine(load_manifest(folder), device="auto").describe().device == "cpu"


def test_unknown_names_are_answered_with_the_known_ones(folder: Path) -> None:
    manifest = load_manifest(folder)
    with pytest.raises(EngineError, match="onnxruntime"):
        load_engine(manifest, backend="abacus")
    with pytest.raises(EngineError, match="tensorrt"):
        load_engine(manifest, device="toaster")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="fp32"):
        load_engine(manifest, variant="int3")


def rewrite(folder: Path, change: dict[str, object]) -> None:
    file = folder / "manifest.yaml"
    content = yaml.safe_load(file.read_text())
    for path, value in change.items():
        part = content
        *keys, last = path.split(".")
        for key in keys:
            part = part[int(key)] if isinstance(part, list) else part[key]
        if isinstance(part, list):
            part[int(last)] = value
        else:
            part[last] = value
    file.write_text(yaml.safe_dump(content))


def test_all_differences_between_graph_and_manifest_are_named(folder: Path) -> None:
    rewrite(folder, {
        "image_size": [16, 12], "inputs.0.shape": ["cameras", 16, 12, 3], "outputs.1.dtype": "float32",
        "outputs.2.name": "path", "tasks": ["occupancy"],
    })
    with pytest.raises(EngineError) as caught:
        load_engine(load_manifest(folder), device="cpu")
    text = str(caught.value)
    assert "[cameras, 8, 12, 3] in the graph" in text
    assert "'confidence' is uint8" in text
    assert "'path' is in the manifest but not" in text
    assert "'waypoints' is in the graph but not" in text


def test_a_graph_that_is_none_is_refused(folder: Path) -> None:
    from occ_perception.engines import sha256_of

    graph = folder / "tiny_fp32.onnx"
    graph.write_bytes(b"no graph at all")
    rewrite(folder, {"variants.fp32.sha256": sha256_of(graph)})
    with pytest.raises(OccPerceptionError, match="cannot load the graph"):
        load_engine(load_manifest(folder), device="cpu")
