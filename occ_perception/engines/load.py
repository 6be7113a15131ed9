"""From a manifest to a running engine: the one place that knows which backends there are."""

from __future__ import annotations

from occ_perception.engines.base import DeviceChoice, Engine
from occ_perception.engines.manifest import Manifest
from occ_perception.errors import EngineError


def load_engine(
    manifest: Manifest,
    backend: str = "onnxruntime",
    device: DeviceChoice = "auto",
    variant: str | None = None,
    allow_cpu: bool = False,
    threads: int | None = None,
) -> Engine:
    """Load a model on a device.

    Args:
        manifest: a manifest whose files were checked by `load_manifest`.
        backend: `onnxruntime`.
        device: `auto` takes the best one at hand; a device asked for by name is obtained or refused.
        variant: name of a variant; default the first in the manifest that suits the device.
        allow_cpu: run on the CPU where the GPU that was asked for cannot be had, instead of refusing.
        threads: threads of one operator on the CPU; default one per core.

    Raises:
        EngineError: no such backend, device or variant, or the graph does not fit the manifest.
    """
    if backend != "onnxruntime":
        raise EngineError(f"unknown backend {backend!r}", where="load_engine", fix="Known backends: onnxruntime")
    from occ_perception.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(manifest, device=device, variant=variant, allow_cpu=allow_cpu, threads=threads)
