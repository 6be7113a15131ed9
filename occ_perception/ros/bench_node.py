"""The node under its everyday load: a restamping 10 Hz JPEG player before it, a recorder beside it, for a minute."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray

from occ_perception.calibration import load_rig
from occ_perception.engines import load_manifest
from occ_perception.errors import RecordingError
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import stamp_ns
from occ_perception.recordings.frames import sensor_topics
from occ_perception.ros.demo import offset_ns, private_domain, start_node, start_recorder
from occ_perception.ros.diagnostics import as_dict
from occ_perception.ros.environment import use_transport_profile
from occ_perception.ros.processes import Operator, ProcessError
from occ_perception.ros.topics import DIAGNOSTICS, NODE, TRAJECTORY, VOXELS

IMAGE_HZ = 10.0
_WARM_S = 3.0


@dataclass(frozen=True)
class NodeFigures:
    """What a minute of the node gave.

    Attributes:
        images: number of images published after the node answered its first one, that one included.
        answered: how many of them it answered.
        drops: by reason, as the node counted them.
        stages_ms: by stage p50, p95, p99, as the node measured them.
        end_to_end_ms: p50, p95, p99 from the player's stamp to the recorder's hands, two transports included.
        rss_mb: resident memory of the node, once per second.
        provider: execution provider and variant that ran.
    """

    images: int
    answered: int
    drops: dict[str, int]
    stages_ms: dict[str, dict[str, float]]
    end_to_end_ms: dict[str, float]
    rss_mb: list[float] = field(default_factory=list)
    provider: str = ""

    @property
    def answered_percent(self) -> float:
        """Share of images that were answered."""
        return 100.0 * self.answered / max(self.images, 1)

    @property
    def rss_growth_mb(self) -> float:
        """How much more the last quarter of the run holds than the second quarter: medians, megabytes."""
        quarter = max(1, len(self.rss_mb) // 4)
        return float(np.median(self.rss_mb[-quarter:]) - np.median(self.rss_mb[quarter:2 * quarter] or self.rss_mb))

    def p(self, stage: str, percentile: int) -> float:
        """A percentile of a stage, milliseconds; NaN where the node named none."""
        return self.stages_ms.get(stage, {}).get(f"p{percentile}", float("nan"))


def bench_node(bag: Path, rig_file: Path, model: Path, *, seconds: float = 60.0,
               say: Callable[[str], None] = print) -> NodeFigures:
    """Feed the node at 10 Hz for `seconds` and measure what it does.

    The bag is played in a loop, as fast as makes its anchor camera give 10 images a second, with stamps of now.

    Raises:
        OccPerceptionError: an unusable file, or a process that failed.
    """
    use_transport_profile()
    private_domain()
    rig = load_rig(rig_file)
    takes_ranges = load_manifest(model).takes_ranges
    with BagReader(bag) as reader:
        topics = {topic: sensor for topic, (sensor, kind) in sensor_topics(reader, rig).items()
                  if kind != "cloud" or takes_ranges}
        anchor = next(topic for topic, sensor in topics.items() if sensor == rig.cameras[0].name)
        stamps = [stamp_ns(message.header) for _, _, message in reader.messages([anchor])]
    if len(stamps) < 2:
        raise RecordingError(f"{anchor} holds {len(stamps)} images", where=str(bag), fix="Take a longer recording")
    rate = IMAGE_HZ * float(np.median(np.diff(stamps))) * 1e-9
    reports: list[DiagnosticArray] = []
    with tempfile.TemporaryDirectory() as folder, Operator("bench", Path(folder) / "logs") as operator:
        operator.node.create_subscription(DiagnosticArray, DIAGNOSTICS, reports.append, 10)
        node = start_node(operator, rig, rig_file, model)
        player = operator.start("bag_player", "occ_perception.ros.player", [
            str(bag), "--loop", "--restamp", "--rate", f"{rate:.9g}", "--wait-for", anchor, "--topics", *topics])
        recorder = start_recorder(operator, Path(folder) / "bench.mcap", [VOXELS, TRAJECTORY, anchor])
        say(f"{NODE} is fed with {IMAGE_HZ:g} images/s of {bag.name} for {seconds:g} s")
        rss_mb: list[float] = []
        ends_s = time.monotonic() + _WARM_S + seconds

        def ended() -> bool:
            if len(reports) > len(rss_mb):
                rss_mb.append(_resident_mb(node.pid))
            return time.monotonic() > ends_s

        operator.until(ended, "the end of the measurement", seconds + 60.0)
        operator.stop(player)
        seen = len(reports)
        operator.until(lambda: len(reports) > seen + 1, "the last diagnostics", 10.0)
        if operator.stop(recorder) != 0:
            raise recorder.error("the recording failed")
        operator.stop(node)
        images, answered, end_to_end_ms = _compare(Path(folder) / "bench.mcap", anchor, offset_ns(rig.cameras[0]))
    parts = as_dict(reports[-1].status)
    values = parts["frames"]
    stages: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        stage, _, percentile = key.removesuffix("_ms").rpartition("_")
        if key.endswith("_ms") and percentile in ("p50", "p95", "p99"):
            stages.setdefault(stage, {})[percentile] = float(value)
    drops = {key.removeprefix("dropped_"): int(value) for key, value in values.items() if key.startswith("dropped_")}
    return NodeFigures(images, answered, drops, stages, end_to_end_ms, rss_mb, parts["engine"]["message"])


def _compare(bag: Path, anchor: str, offset: int) -> tuple[int, int, dict[str, float]]:
    """Images published and answered, and percentiles of the time from an image's stamp to its recorded grid.

    `offset` (ns) is what the stamp of a grid is later than that of its image.
    """
    recorded: dict[str, dict[int, int]] = {anchor: {}, VOXELS: {}}
    with BagReader(bag) as reader:
        for topic, time_ns, message in reader.messages(list(recorded)):
            recorded[topic][stamp_ns(message.header) - (offset if topic == VOXELS else 0)] = time_ns
    grids = recorded[VOXELS]
    if not grids:
        raise ProcessError("the node answered no image", where="bench", fix="Look at its diagnostics: drops by reason")
    # The recorder hears the images a moment before or after the node does: count from the first grid on.
    images = [stamp for stamp in recorded[anchor] if stamp >= min(grids)]
    delays_ms = [(grids[stamp] - stamp) / 1e6 for stamp in images if stamp in grids]
    p50, p95, p99 = np.percentile(delays_ms, (50, 95, 99)).tolist()
    return len(images), len(delays_ms), {"p50": p50, "p95": p95, "p99": p99}


def _resident_mb(pid: int) -> float:
    """Resident memory of a process, megabytes of 2^20 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024.0
    return float("nan")


