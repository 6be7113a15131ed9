"""A fleet on a real Ray cluster of two workers on this machine."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from occ_perception.errors import ConfigurationError
from occ_perception.labeling.fleet import run_fleet
from occ_perception.labeling.pool import RayPool
from occ_perception.labeling.scene_job import Status
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import LabelSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a head without cores of its own and two nodes of one core each, which find `streets`."""
    utils = pytest.importorskip("ray.cluster_utils")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def test_a_cluster_labels_scenes_and_survives_a_killed_worker(cluster: str, streets: ModuleType, tmp_path: Path
                                                              ) -> None:
    refs = (streets.Street("a", frames=1), streets.Deadly("once", frames=1, notes=tmp_path, deaths=1),
            streets.Deadly("always", frames=1, notes=tmp_path, deaths=9), streets.Street("b", frames=2))
    towns = [streets.Town(Path("town"), refs), streets.Town(Path("cut.mcap"))]
    settings, out = LabelSettings(segmenter=SimulatedErrors(), grid=streets.SPEC), tmp_path / "labels"
    with RayPool(cluster) as pool:
        assert pool.free == 4
        result = run_fleet(towns, out, settings, pool, console=Console(file=io.StringIO()))
    assert {outcome.name for outcome in result.having(Status.done)} == {"a", "once", "b"}
    assert {(outcome.name, outcome.reason) for outcome in result.outcomes if outcome.status is not Status.done} == {
        ("always", "its worker died 2 times (killed, or out of memory)"), ("cut.mcap", "cut.mcap: is cut off")}
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "once", "settings.yaml", "splits.yaml"]
    with RayPool(cluster) as pool:
        again = run_fleet(towns[:1], out, settings, pool, console=Console(file=io.StringIO()))
    assert sorted(again.kept) == ["a", "b", "once"]


def test_an_address_without_a_cluster_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigurationError, match="ray start --head"):
        RayPool("127.0.0.1:1")
