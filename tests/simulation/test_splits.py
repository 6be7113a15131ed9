"""The named splits: fixed, disjoint, each shift moves one thing."""

from __future__ import annotations

import itertools

import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.simulation.generate import build_world
from occ_perception.simulation.splits import SIM_VERSION, SPLITS, Split, get_split


def test_no_seed_is_in_two_splits() -> None:
    seeds = [scene.seed for split in SPLITS.values() for scene in split.scenes]
    assert len(set(seeds)) == len(seeds)
    names = [scene.name for split in SPLITS.values() for scene in split.scenes]
    assert len(set(names)) == len(names)


def test_each_shifted_split_shifts_one_thing() -> None:
    def kinds(name: str) -> tuple[set[str], set[bool], set[str]]:
        scenes = SPLITS[name].scenes
        return {s.district for s in scenes}, {s.night for s in scenes}, {s.embodiment for s in scenes}

    familiar = ({"touristy", "residential"}, {False}, {"wheeled"})
    assert kinds("train") == kinds("val") == kinds("test") == familiar
    assert kinds("night") == (familiar[0], {True}, familiar[2])
    assert kinds("districts") == ({"commercial"}, familiar[1], familiar[2])
    assert kinds("embodiments") == (*familiar[:2], {"quadruped", "wheelchair", "humanoid"})


def test_embodiments_are_not_tied_to_districts() -> None:
    assert len({(s.district, s.embodiment) for s in SPLITS["embodiments"].scenes}) == 6


def test_every_frame_has_its_future() -> None:
    scene = SPLITS["test"].scenes[0]
    times = scene.times_s()
    assert len(times) == scene.frames
    assert {round(b - a, 9) for a, b in itertools.pairwise(times)} == {0.5}
    assert scene.duration_s >= times[-1] + 5.0


def test_the_hash_names_the_scenes() -> None:
    val = SPLITS["val"]
    assert val.specification_hash() == Split("other name", val.scenes).specification_hash()
    assert val.specification_hash() != val.limited(10).specification_hash()
    assert len({split.specification_hash() for split in SPLITS.values()}) == len(SPLITS)


def test_a_limit_keeps_whole_scenes() -> None:
    test = SPLITS["test"]
    assert test.limited(None) is test
    assert test.limited(1).frames == test.scenes[0].frames
    assert test.limited(test.scenes[0].frames + 1).scenes == test.scenes[:2]
    with pytest.raises(ConfigurationError, match="at least one frame"):
        test.limited(0)


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="train, val, test, night, districts, embodiments"):
        get_split("trian")


def test_the_worlds_of_version_1_are_these() -> None:
    assert SIM_VERSION == "1"
    assert build_world(SPLITS["test"].scenes[0]).content_hash().startswith("24d87038df93cebe")
    assert build_world(SPLITS["night"].scenes[0]).content_hash().startswith("929cd0ae0be99e3f")
