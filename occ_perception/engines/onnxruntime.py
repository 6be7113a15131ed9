"""The onnxruntime backend: CPU, CUDA and TensorRT execution providers, and which one was really obtained."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from occ_perception.engines.base import Arrays, DeviceChoice, EngineDescription, State, check_inputs
from occ_perception.engines.manifest import Manifest, TensorSpec
from occ_perception.errors import EngineError

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Execution provider of each device, best first."""


class OnnxRuntimeEngine:
    """An `Engine` over one onnxruntime session. Arguments as in `load_engine`."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        device: DeviceChoice = "auto",
        variant: str | None = None,
        allow_cpu: bool = False,
        threads: int | None = None,
    ) -> None:
        began = time.perf_counter()
        self._manifest = manifest
        self._threads = threads or os.cpu_count() or 1
        for candidate in _candidates(device, allow_cpu):
            self._variant = _choose_variant(manifest, candidate, variant)
            self._path = manifest.path(self._variant)
            self._session = _open_session(str(self._path), candidate, self._threads)
            self._provider = self._session.get_providers()[0]
            if self._provider == PROVIDERS[candidate]:
                break
        else:
            raise EngineError(
                f"{device} was asked for, onnxruntime gave {self._provider}", where=str(self._path),
                fix="Check the driver and CUDA libraries (onnxruntime logs the reason), or allow the CPU (allow_cpu)",
            )
        self._inputs = {spec.name: spec for spec in [*manifest.inputs, *manifest.constants, *manifest.state]}
        self._outputs = {spec.name: spec for spec in [*manifest.outputs, *manifest.features]}
        self._outputs |= {f"next_{spec.name}": spec for spec in manifest.state}
        _compare(self._session, self._inputs, self._outputs, str(self._path))
        self._output_names = list(self._outputs)
        self._constants: Arrays = {}
        self._build_s = time.perf_counter() - began

    @property
    def manifest(self) -> Manifest:
        """The manifest it was loaded from."""
        return self._manifest

    def bind(self, constants: Mapping[str, NDArray[Any]]) -> None:
        """Give inputs that stay the same; checked at the next `run`."""
        self._constants |= {name: np.ascontiguousarray(array) for name, array in constants.items()}

    def new_state(self) -> State:
        """Zeros for every state tensor."""
        return State({spec.name: np.zeros([int(n) for n in spec.shape], spec.dtype) for spec in self._manifest.state})

    def run(self, inputs: Mapping[str, NDArray[Any]], state: State) -> tuple[Arrays, State]:
        """One frame; outputs are new arrays."""
        feeds = {**self._constants, **state.tensors, **inputs}
        check_inputs(self._inputs, feeds, str(self._path))
        try:
            values = self._session.run(self._output_names, feeds)
        except Exception as error:  # onnxruntime raises its own family, none of it importable by name
            raise EngineError(f"inference failed: {error}", where=str(self._path)) from error
        outputs = dict(zip(self._output_names, values, strict=True))
        next_state = State({spec.name: outputs.pop(f"next_{spec.name}") for spec in self._manifest.state})
        return outputs, next_state

    def warm_up(self, **lengths: int) -> float:
        """Run once on zeros; seconds that it took (the first run allocates and, on a GPU, compiles)."""
        began = time.perf_counter()
        zeros = {
            name: np.zeros([lengths.get(n, 1) if isinstance(n, str) else n for n in spec.shape], spec.dtype)
            for name, spec in self._inputs.items() if name not in self._constants
        }
        self.run(zeros, State())
        return time.perf_counter() - began

    def describe(self) -> EngineDescription:
        """What really runs."""
        return EngineDescription(
            model_id=self._manifest.model_id,
            backend=f"onnxruntime {ort.__version__}",
            provider=self._provider,
            device=next(name for name, provider in PROVIDERS.items() if provider == self._provider),
            precision=self._manifest.variants[self._variant].precision,
            variant=self._variant,
            build_s=self._build_s,
            threads=self._threads,
        )


def _candidates(device: str, allow_cpu: bool) -> list[str]:
    """Devices to try in this order; refuses one that this build of onnxruntime cannot have."""
    if device not in ("auto", *PROVIDERS):
        raise EngineError(f"unknown device {device!r}", where="load_engine",
                          fix=f"Known devices: auto, {', '.join(PROVIDERS)}")
    available = ort.get_available_providers()
    asked = list(PROVIDERS) if device == "auto" else list(dict.fromkeys([device, *(["cpu"] if allow_cpu else [])]))
    candidates = [name for name in asked if PROVIDERS[name] in available]
    if not candidates:
        raise EngineError(
            f"{device} was asked for, this onnxruntime has only {', '.join(available)}", where="load_engine",
            fix="Install onnxruntime-gpu in place of onnxruntime (the extra `gpu`), or allow the CPU (allow_cpu)",
        )
    return candidates


def _choose_variant(manifest: Manifest, device: str, variant: str | None) -> str:
    """The variant asked for, or the first that suits the device."""
    if variant is not None and variant not in manifest.variants:
        raise EngineError(f"{manifest.model_id} has no variant {variant!r}", where=str(manifest.folder),
                          fix=f"Its variants: {', '.join(manifest.variants)}")
    chosen = variant or manifest.choose(device)
    if chosen is None:
        raise EngineError(f"{manifest.model_id} has no variant for {device}", where=str(manifest.folder),
                          fix=f"Its variants: {', '.join(manifest.variants)}")
    return chosen


def _open_session(path: str, device: str, threads: int) -> ort.InferenceSession:
    """A session whose first provider is that of `device`, with the CPU behind it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Spinning workers take the cores from the player, the recorder and DDS beside us.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([PROVIDERS[device], PROVIDERS["cpu"]]))
    try:
        return ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own family, none of it importable by name
        raise EngineError(f"onnxruntime cannot load the graph: {error}", where=path,
                          fix="Export the model again") from error


def _compare(
    session: ort.InferenceSession, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], where: str
) -> None:
    """Raise EngineError with every difference between the graph and the manifest."""
    faults = []
    for kind, specs, nodes in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        found = {node.name: node for node in nodes}
        faults += [f"{kind} {name!r} is in the manifest but not in the graph" for name in specs if name not in found]
        faults += [f"{kind} {name!r} is in the graph but not in the manifest" for name in found if name not in specs]
        for name in specs:
            if name not in found:
                continue
            graph = f"{_dtype_of(found[name].type)} {_shape_text(found[name].shape)}"
            manifest = f"{specs[name].dtype} {_shape_text(specs[name].shape)}"
            if graph != manifest:
                faults.append(f"{kind} {name!r} is {graph} in the graph, {manifest} in the manifest")
    if faults:
        raise EngineError("graph and manifest differ: " + "; ".join(faults), where=where, fix="Export the model again")


def _dtype_of(onnx_type: str) -> str:
    """`tensor(float)` -> `float32`, `tensor(uint8)` -> `uint8`."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape_text(shape: Any) -> str:
    return "[" + ", ".join(str(n) for n in shape) + "]"
