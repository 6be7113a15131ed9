"""The synchroniser: exact sets, a reason for every drop, and nothing lost or used twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError
from occ_perception.pipelines import SyncedSet, Synchroniser
from occ_perception.pipelines.synchroniser import REASONS

MS = 1_000_000
T0 = 1_000_000 * MS


def stereo(**options: object) -> Synchroniser:
    return Synchroniser("left", ["right"], **options)  # type: ignore[arg-type]


def pushed(sync: Synchroniser, *items: tuple[str, int]) -> list[SyncedSet]:
    """Push (sensor, ms after T0) items whose payload names them."""
    return [out for sensor, ms in items for out in sync.push(sensor, T0 + round(ms * MS), f"{sensor}{ms}")]


def test_an_anchor_alone_goes_out_at_once() -> None:
    (out,) = pushed(Synchroniser("left"), ("left", 0))
    assert (out.stamp_ns, out.payloads, out.missing) == (T0, {"left": "left0"}, frozenset())


def test_a_set_is_complete_when_the_last_sensor_arrives_whichever_it_is() -> None:
    sync = stereo()
    assert pushed(sync, ("left", 0)) == []
    (out,) = pushed(sync, ("right", 10))
    assert out.payloads == {"left": "left0", "right": "right10"}
    assert out.stamps_ns == {"left": T0, "right": T0 + 10 * MS}
    (out,) = pushed(sync, ("right", 95), ("left", 100))
    assert out.payloads == {"left": "left100", "right": "right95"}
    assert not sync.drops
    assert sync.pending == 0


def test_the_nearest_item_is_taken_and_older_ones_are_dropped() -> None:
    sync = stereo()
    (out,) = pushed(sync, ("right", -40), ("right", -8), ("right", 30), ("left", 0))
    assert out.payloads["right"] == "right-8"
    assert sync.drops == {"no_match": 1}
    assert sync.pending == 1  # right30 may serve the next anchor


def test_items_beyond_the_tolerance_do_not_match() -> None:
    sync = stereo(tolerance_s=0.02)
    (out,) = pushed(sync, ("left", 0), ("right", 21))  # nothing nearer can come any more: no more waiting
    assert out.missing == {"right"}
    assert sync.pending == 1


def test_offsets_correct_the_stamps() -> None:
    sync = stereo(tolerance_s=0.005, offsets_s={"left": 0.010, "right": -0.030})
    (out,) = pushed(sync, ("left", 0), ("right", 40))
    assert out.stamp_ns == T0 + 10 * MS
    assert out.stamps_ns["right"] == T0 + 10 * MS


def test_a_dead_camera_delays_one_set_by_the_wait_and_later_ones_not_at_all() -> None:
    sync = stereo(wait_s=0.05, silent_s=0.25)
    pushed(sync, ("right", 0), ("left", 0))
    waits = []
    for ms in range(100, 1000, 100):
        out = pushed(sync, ("left", ms))
        late = sync.expire(T0 + (ms + 50) * MS)
        assert len(out) + len(late) == 1
        assert (out or late)[0].missing == {"right"}
        waits.append(bool(late))
    assert waits == [True, True] + [False] * 7  # 100 and 200 ms after its last sign of life; then it counts as dead
    (back,) = pushed(sync, ("right", 1000), ("left", 1000))
    assert back.missing == frozenset()


def test_without_a_timer_the_next_anchor_ends_the_wait() -> None:
    sync = stereo()
    assert pushed(sync, ("left", 0)) == []
    (out,) = pushed(sync, ("left", 100))
    assert (out.stamp_ns, out.missing) == (T0, {"right"})


def test_a_camera_that_never_spoke_is_waited_for_only_at_the_beginning() -> None:
    sync = stereo(silent_s=0.3)
    assert pushed(sync, ("left", 0)) == []
    outs = pushed(sync, *(("left", ms) for ms in range(100, 1000, 100)))
    assert len(outs) == 10
    assert sync.pending == 0


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([("left", -T0 / MS)], "no_stamp"),
        ([("left", 0), ("left", 0)], "duplicate"),
        ([("left", 100), ("left", 50)], "stamp_went_back"),
        ([("left", 0), ("left", 200), ("left", 400), ("right", 10)], "too_old"),
        ([("right", 0), ("right", 100), ("left", 100)], "no_match"),
    ],
)
def test_every_drop_has_its_reason(items: list[tuple[str, float]], reason: str) -> None:
    sync = stereo()
    pushed(sync, *items)  # type: ignore[arg-type]
    assert sync.drops == {reason: 1}
    assert sync.drops_by_sensor[items[-1][0] if reason != "no_match" else "right", reason] == 1


def test_a_queue_is_bounded_and_keeps_the_newest() -> None:
    sync = stereo(capacity=3)
    pushed(sync, *(("right", ms) for ms in range(0, 500, 100)))
    assert sync.drops == {"overflow": 2}
    (out,) = pushed(sync, ("left", 400))
    assert out.payloads["right"] == "right400"


def test_a_backward_jump_of_the_clock_drops_what_waits_and_says_so_once() -> None:
    sync = stereo()
    pushed(sync, ("left", 5000), ("right", 5000), ("left", 5100))
    assert pushed(sync, ("left", 0)) == []
    assert sync.drops == {"clock_jump": 1}
    assert sync.jumps == 1
    (out,) = pushed(sync, ("right", 0))
    assert out.after_jump
    (out,) = pushed(sync, ("left", 100), ("right", 100))
    assert not out.after_jump


def test_a_looping_bag_gives_every_set_of_every_loop() -> None:
    sync = stereo()
    for _ in range(3):
        outs = [out for ms in range(0, 3000, 100) for out in pushed(sync, ("right", ms), ("left", ms))]
        assert len(outs) == 30
        assert all(not out.missing for out in outs)
    assert sync.jumps == 2


def test_flush_gives_what_still_waits() -> None:
    sync = stereo()
    pushed(sync, ("left", 0))
    (out,) = sync.flush()
    assert out.missing == {"right"}
    assert sync.pending == 0


def scanned(**options: object) -> Synchroniser:
    return Synchroniser("left", ["top"], held_s={"top": 0.3}, **options)  # type: ignore[arg-type]


def test_a_held_sensor_is_never_waited_for_and_serves_until_something_newer_is_there() -> None:
    sync = scanned()
    (out,) = pushed(sync, ("left", 0))
    assert out.missing == {"top"}
    taken = []
    for ms in (100, 200, 300, 400, 500):  # sweeps of 5 Hz arrive 200 ms after their stamp
        arrived = [("top", ms - 200)] if ms % 200 == 0 else []
        (out,) = pushed(sync, *arrived, ("left", ms))
        taken.append(out.payloads.get("top"))
    assert taken == [None, "top0", "top0", "top200", "top200"]
    assert not sync.drops
    assert sync.pending == 0


def test_a_held_item_that_grew_too_old_is_no_loss_and_one_that_nobody_took_is() -> None:
    sync = scanned()
    assert pushed(sync, ("top", 0), ("left", 0))[0].payloads["top"] == "top0"
    assert pushed(sync, ("left", 300))[0].missing == frozenset()
    assert pushed(sync, ("left", 301))[0].missing == {"top"}
    assert not sync.drops
    (out,) = pushed(sync, ("top", 400), ("top", 500), ("left", 550))
    assert out.payloads["top"] == "top500"
    assert sync.drops == {"no_match": 1}
    pushed(sync, ("top", 240))
    assert sync.drops == {"no_match": 1, "stamp_went_back": 1}


def test_of_held_items_the_nearest_within_both_limits_is_taken() -> None:
    (out,) = pushed(scanned(), ("top", -100), ("top", 60), ("left", 0))
    assert out.payloads["top"] == "top-100"  # 60 ms ahead is beyond the tolerance
    sync = scanned()
    (out,) = pushed(sync, ("top", -100), ("top", 40), ("left", 0))
    assert out.payloads["top"] == "top40"


def test_a_jump_of_the_clock_forgets_what_was_held() -> None:
    sync = scanned()
    pushed(sync, ("top", 5000), ("left", 5000), ("top", 5100))
    (out,) = pushed(sync, ("left", 0))
    assert out.missing == {"top"}
    assert sync.drops == {"clock_jump": 1}  # the one that was used is no loss


def stereo_scanned() -> Synchroniser:
    return Synchroniser("left", ["right", "top"], held_s={"top": 0.3}, wait_s=0.05, silent_s=0.5)


@pytest.mark.parametrize("scan_ms", [37_000, -95, -37_000])
def test_the_clock_of_a_held_sensor_neither_ends_nor_prolongs_a_wait(scan_ms: float) -> None:
    sync = stereo_scanned()
    assert pushed(sync, ("right", -100), ("top", scan_ms - 100), ("left", 0), ("top", scan_ms)) == []
    assert sync.now_ns == T0
    (out,) = pushed(sync, ("right", 5))
    assert (out.stamp_ns, "right" in out.payloads) == (T0, True)
    assert pushed(sync, ("left", 100), ("top", scan_ms + 100)) == []
    assert sync.now_ns == T0 + 100 * MS
    assert sync.expire(sync.now_ns + 49 * MS) == []
    (late,) = sync.expire(sync.now_ns + 50 * MS)
    assert "right" in late.missing


def test_a_held_sensor_that_speaks_first_does_not_use_up_the_patience_with_the_others() -> None:
    sync = stereo_scanned()
    assert pushed(sync, ("top", -2000), ("left", 0)) == []  # right may still come: the stream of cameras is young
    (out,) = pushed(sync, ("right", 0))
    assert not out.missing - {"top"}


def test_a_held_sensor_whose_clock_jumps_back_loses_only_what_was_at_hand_of_it() -> None:
    sync = stereo_scanned()
    pushed(sync, ("top", 4900), ("right", 5000), ("left", 5000), ("top", 5000), ("left", 5100))
    assert pushed(sync, ("top", 3000)) == []
    assert (sync.jumps, sync.now_ns, sync.pending) == (0, T0 + 5100 * MS, 1)
    assert sync.drops_by_sensor == {("top", "clock_jump"): 1, ("top", "too_old"): 1}  # one had been used
    (out,) = pushed(sync, ("right", 5100))
    assert (out.missing, out.after_jump) == ({"top"}, False)
    (out, ) = pushed(sync, ("top", 5150), ("right", 5200), ("left", 5200))  # its clock was set right
    assert out.payloads["top"] == "top5150"


def test_an_unannounced_sensor_and_bad_options_are_refused_with_all_faults() -> None:
    with pytest.raises(ConfigurationError, match="left, right"):
        stereo().push("middle", T0, None)
    with pytest.raises(ConfigurationError) as caught:
        Synchroniser("a", ["b", "b"], capacity=0, tolerance_s=-1.0, offsets_s={"c": 0.0}, held_s={"a": 1.0, "b": -1.0})
    assert len(caught.value.faults) == 6


SENSORS = ("left", "right", "top")
ITEMS = st.lists(st.tuples(st.sampled_from(SENSORS), st.integers(-5, 3000)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(items=ITEMS, capacity=st.integers(1, 4), expire=st.booleans(), held=st.booleans())
def test_every_item_is_used_once_or_pending_or_dropped_for_a_known_reason(
    items: list[tuple[str, int]], capacity: int, expire: bool, held: bool
) -> None:
    sync = Synchroniser("left", ["right", "top"], capacity=capacity, held_s={"top": 0.2} if held else None)
    used: list[int] = []
    for number, (sensor, ms) in enumerate(items):
        outs = sync.push(sensor, ms * MS, number)
        outs += sync.expire(ms * MS) if expire else []
        for out in outs:
            used += out.payloads.values()
            assert out.stamps_ns["left"] == out.stamp_ns
            assert out.missing == set(SENSORS) - set(out.payloads)
            for name, stamp_ns in out.stamps_ns.items():
                older = 200 * MS if held and name == "top" else 50 * MS
                assert -older <= stamp_ns - out.stamp_ns <= 50 * MS
        assert all(len(queue.items) <= capacity for queue in sync._queues.values())
    assert held or len(used) == len(set(used))
    ready = sum(item not in used for _, item in sync._queues["top"].items) if held else 0
    assert len(set(used)) + sync.pending + ready + sync.drops.total() == len(items)
    assert set(sync.drops) <= set(REASONS)
    by_reason: Counter[str] = Counter()
    for (_, reason), count in sync.drops_by_sensor.items():
        by_reason[reason] += count
    assert by_reason == sync.drops
    last = {"left": -1}
    for out in sync.flush():
        assert out.stamp_ns > last["left"]
        last["left"] = out.stamp_ns
    assert not sync._queues["left"].items
