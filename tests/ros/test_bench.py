"""What the bench says about its figures, and where it writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.ros.bench import Figure, metric_figures, node_figures, rate_of, write_json
from occ_perception.ros.bench_node import NodeFigures

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("figure", "reached"), [
    (Figure("a", 5.0, "ms", at_most=5.0), True), (Figure("a", 5.1, "ms", at_most=5.0), False),
    (Figure("a", 5.0, "Hz", at_least=5.0), True), (Figure("a", 4.9, "Hz", at_least=5.0), False),
    (Figure("a", 5.0, "ms"), None), (Figure("a", math.nan, "Hz", at_least=5.0), None),
])
def test_a_promise_is_kept_missed_or_not_made(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_the_file_is_whole_json_with_null_for_what_was_not_measured(tmp_path: Path) -> None:
    write_json([Figure("a", 1.5, "ms", at_most=2.0), Figure("b", math.nan, "Hz", note="skipped")],
               tmp_path / "deep" / "bench.json", {"bag": "x"})
    content = json.loads((tmp_path / "deep" / "bench.json").read_text())
    assert [(f["value"], f["reached"]) for f in content["figures"]] == [(1.5, True), (None, None)]
    assert content["machine"]["cores"] >= 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bench.json"]


def test_figures_of_the_node_name_drops_and_growth() -> None:
    node = NodeFigures(
        images=200, answered=198, drops={"replaced": 2, "too_old": 0},
        stages_ms={"receive_to_publish": {"p50": 40.0, "p95": 60.0, "p99": 70.0}, "outside_engine": {"p50": 6.0}},
        end_to_end_ms={"p50": 41.0, "p95": 62.0, "p99": 72.0}, rss_mb=[300.0] * 4 + [400.0] * 4 + [402.0] * 8)
    figures = {figure.name: figure for figure in node_figures(node)}
    assert figures["node: images answered"].value == 99.0
    assert figures["node: images answered"].reached
    assert "replaced 2" in figures["node: images answered"].note
    assert "too_old" not in figures["node: images answered"].note
    assert figures["node: growth of memory"].value == 2.0
    assert math.isnan(figures["node: engine, median"].value)


def test_a_rate_is_calls_per_second_of_processor_time() -> None:
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        sum(range(20_000))

    rate = rate_of(work, batches=2, batch_s=0.02)
    assert 10 < rate < 1e6
    assert calls >= 4


def test_both_scores_that_are_computed_per_frame_are_measured_against_what_is_promised() -> None:
    figures = metric_figures(batches=1)
    assert [(figure.name, figure.at_least) for figure in figures] == [
        ("RayIoU, road 200x200x16", 60.0), ("RayIoU, sidewalk 100x100x50", 60.0),
        ("OccupancyIoU, sidewalk 100x100x50", 500.0)]
    assert all(0.0 < figure.value < math.inf for figure in figures)
