"""The fixed named splits: which worlds everyone trains and scores on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle

from occ_perception.errors import ConfigurationError
from occ_perception.simulation.scene import District, Embodiment

SIM_VERSION = "1"
"""Raised by every change of worlds or sensors: scores of different versions are not comparable."""
FRAME_HZ = 2.0
RIGS: dict[Embodiment, str] = {"wheeled": "sidewalk_wheeled", "quadruped": "quadruped", "wheelchair": "wheelchair",
                               "humanoid": "humanoid"}
"""Rig file of each embodiment, in `calibration/`."""

_FAMILIAR: tuple[District, ...] = ("touristy", "residential")
_OTHER_BODIES: tuple[Embodiment, ...] = ("quadruped", "wheelchair", "humanoid")
_FUTURE_S = 5.0
_START_S = 0.5


@dataclass(frozen=True)
class SceneSpec:
    """Everything that decides one scene: `frames` at 2 Hz from half a second on, each with a future of 5 s."""

    seed: int
    district: District
    night: bool
    embodiment: Embodiment
    frames: int

    @property
    def name(self) -> str:
        """Folder of the scene."""
        return f"{self.seed}_{self.district}_{'night' if self.night else 'day'}_{self.embodiment}"

    @property
    def duration_s(self) -> float:
        """Length of the robot's track."""
        return self.times_s()[-1] + _FUTURE_S + 0.5

    def times_s(self) -> list[float]:
        """When the frames are taken."""
        return [_START_S + k / FRAME_HZ for k in range(self.frames)]


@dataclass(frozen=True)
class Split:
    """A named list of scenes. `images_only`: their samples are images with 2D labels, as of robots without LiDAR."""

    name: str
    scenes: tuple[SceneSpec, ...]
    images_only: bool = False

    @property
    def frames(self) -> int:
        """Number of samples in all."""
        return sum(scene.frames for scene in self.scenes)

    def specification_hash(self) -> str:
        """SHA-256 of version and scenes."""
        text = json.dumps([SIM_VERSION, [asdict(scene) for scene in self.scenes]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def limited(self, frames: int | None) -> Split:
        """The first scenes, as many as hold `frames` samples (all if None)."""
        if frames is None:
            return self
        if frames < 1:
            raise ConfigurationError([f"a split needs at least one frame, got {frames}"])
        kept, count = [], 0
        for scene in self.scenes:
            if count >= frames:
                break
            kept.append(scene)
            count += scene.frames
        return replace(self, scenes=tuple(kept))


def _split(name: str, first_seed: int, scenes: int, frames: int, districts: Sequence[District] = _FAMILIAR,
           night: bool = False, embodiments: Sequence[Embodiment] = ("wheeled",), images_only: bool = False) -> Split:
    district, embodiment = cycle(districts), cycle(embodiments)
    return Split(name, tuple(SceneSpec(first_seed + k, next(district), night, next(embodiment), frames)
                             for k in range(scenes)), images_only)


SPLITS: dict[str, Split] = {
    split.name: split for split in (
        _split("train", 1_000_000, 200, 9),
        _split("val", 2_000_000, 20, 10),
        _split("test", 3_000_000, 40, 10),
        _split("night", 4_000_000, 20, 10, night=True),
        _split("districts", 5_000_000, 20, 10, districts=("commercial",)),
        _split("embodiments", 6_000_000, 20, 10, embodiments=_OTHER_BODIES),
        _split("trunk", 7_000_000, 150, 8, images_only=True),
        _split("images_day", 8_000_000, 60, 8, images_only=True),
        _split("images_night", 9_000_000, 60, 8, night=True, images_only=True),
        _split("images_embodiments", 10_000_000, 60, 8, embodiments=_OTHER_BODIES, images_only=True),
        _split("paths", 11_000_000, 200, 10),
        _split("val_night", 12_000_000, 6, 6, night=True),
        _split("val_embodiments", 13_000_000, 9, 4, embodiments=_OTHER_BODIES),
    )
}
"""train, val and test share districts, daylight and body; night, districts and embodiments each shift one of them.

`trunk` is what image encoders are pretrained on: no night, no other body. `images_...` are the 2D-only images of hybrid
training. `paths` is like test and large enough for rates of rare events. `val_...` serve choices about other domains,
which must not be made on test splits. No world is in two splits.
"""


def get_split(name: str) -> Split:
    """The split of that name; raises ConfigurationError naming the known ones."""
    try:
        return SPLITS[name]
    except KeyError:
        raise ConfigurationError([f"unknown split {name!r}"], fix=f"Known splits: {', '.join(SPLITS)}") from None
