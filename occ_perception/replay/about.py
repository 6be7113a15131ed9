"""What a score must name to mean something: the data, the model, the machine, the software."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

import occ_perception
from occ_perception.engines import EngineDescription, Manifest

_LIBRARIES = ("numpy", "numba", "scipy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu",
              "rosbags", "pydantic", "torch")
_ROS_VARIABLES = ("ROS_DISTRO", "RMW_IMPLEMENTATION", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_DOMAIN_ID")


def about_recording(path: Path) -> dict[str, Any]:
    """Name and SHA-256 of a bag; split, version and content hash where a `split.yaml` in it or X.yaml by it tells."""
    files = sorted([*path.glob("*.mcap"), *path.glob("*.db3")]) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    about: dict[str, Any] = {"recording": path.name, "sha256": digest.hexdigest()}
    for card in (path / "split.yaml", path.with_suffix(".yaml")):
        if card.is_file():
            content = yaml.safe_load(card.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                about |= {key: content[key] for key in ("split", "scene", "version", "content_hash") if key in content}
    return about


def about_model(manifest: Manifest) -> dict[str, Any]:
    """Model and version, and what it was trained on with which seed."""
    training = manifest.training
    return {
        "model": manifest.model_id, "trained_on": training.data, "training_data_version": training.data_version,
        "training_data_hash": training.data_hash, "seed": training.seed, "steps": training.steps,
    }


def about_engine(manifest: Manifest, engine: EngineDescription) -> dict[str, Any]:
    """The variant and provider really obtained."""
    return {
        "variant": engine.variant, "precision": engine.precision, "backend": engine.backend,
        "provider": engine.provider, "device": engine.device, "threads": engine.threads,
        "sha256": manifest.variants[engine.variant].sha256,
    }


def about_machine() -> dict[str, Any]:
    """Processor, cores, memory, operating system."""
    return {
        "processor": _processor(), "cores": os.cpu_count() or 0, "memory_gb": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
    }


def about_software() -> dict[str, Any]:
    """Versions of this package, Python and the libraries that matter, and the ROS variables that are set."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "occ_perception": occ_perception.__version__, "commit": commit(), "python": sys.version.split()[0], **versions,
        **{name: os.environ[name] for name in _ROS_VARIABLES if name in os.environ},
    }


def commit() -> str:
    """Commit of the checkout that this package runs from, with `+` behind it where files differ; else empty."""
    folder = Path(occ_perception.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True,
                          timeout=10).stdout.strip()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def about_providers() -> dict[str, str]:
    """Execution providers that this onnxruntime could use, in its order of preference."""
    import onnxruntime

    return dict.fromkeys(onnxruntime.get_available_providers(), "available")
