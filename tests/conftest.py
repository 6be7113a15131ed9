"""Options of the whole test run, and what happens to test modules that import something not installed here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import pytest

OPTIONAL = {
    "torch": "the train requirements",
    "onnx": "the train requirements",
    "onnxscript": "the train requirements",
    "safetensors": "the train requirements",
    "embreex": "the train requirements",
    "plotly": "the viz requirements",
    "rclpy": "ROS 2 (scripts/with_ros)",
    "occ_perception_msgs": "the built workspace (scripts/with_ros)",
}
"""What a robot or a machine without ROS lacks, and where it comes from."""
FOLDERS = {"networks": "torch", "training": "torch", "export": "torch", "ros": "rclpy"}
"""Test folders that need an optional package as a whole, their conftest.py included."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--complete", action="store_true", help="everything is installed: a missing module is an error, not a skip"
    )


def absent_folders(config: pytest.Config) -> dict[str, str]:
    """Folders that cannot be collected here, with the package that each one lacks."""
    if config.getoption("complete"):
        return {}
    return {folder: name for folder, name in FOLDERS.items() if importlib.util.find_spec(name) is None}


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"not collected: tests/{folder} (needs {name}, which comes with {OPTIONAL[name]})"
            for folder, name in absent_folders(config).items()]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a folder that cannot be imported; None lets pytest decide as usual."""
    here = collection_path.parent == Path(__file__).parent and collection_path.is_dir()
    return True if here and collection_path.name in absent_folders(config) else None


class TestModule(pytest.Module):
    """A test module that is skipped as a whole where it imports an optional package that is not installed."""

    __test__ = False

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            name = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
            if name not in OPTIONAL or self.config.getoption("complete"):
                raise
            pytest.skip(f"needs {name}, which comes with {OPTIONAL[name]}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return TestModule.from_parent(parent, path=module_path)
