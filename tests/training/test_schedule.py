"""Learning rates and the samples of a step."""

from __future__ import annotations

import pytest

from occ_perception.training.schedule import batch_indices, learning_rate_factor


def test_every_epoch_visits_every_sample_once() -> None:
    visited = [index for step in range(10) for index in batch_indices(step, 10, 3, seed=1)]
    assert sorted(visited[:10]) == sorted(visited[10:20]) == sorted(visited[20:]) == list(range(10))
    assert visited[:10] != visited[10:20]


def test_streams_have_orders_of_their_own() -> None:
    first, second = (batch_indices(0, 20, 20, seed=1, stream=stream) for stream in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_no_samples_are_taken_of_an_empty_set() -> None:
    assert batch_indices(3, 0, 0, seed=1) == []


def test_the_cosine_warms_up_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(p, 0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_the_steps_are_at_two_thirds_and_eight_ninths_of_what_the_warm_up_leaves() -> None:
    factors = [learning_rate_factor(p, 0.1, "step") for p in (0.05, 0.1, 0.69, 0.71, 0.89, 0.91, 1.0)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
