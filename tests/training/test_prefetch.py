"""Making ahead: in order, only so far ahead, errors at their turn."""

from __future__ import annotations

from itertools import count, islice

import pytest

from occ_perception.training.prefetch import prefetched


@pytest.mark.parametrize("threads", [1, 3])
def test_everything_is_made_once_and_in_order(threads: int) -> None:
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        return key * key

    assert list(prefetched(make, range(20), threads)) == [key * key for key in range(20)]
    assert sorted(made) == list(range(20))


def test_of_endless_keys_only_a_few_are_made_ahead() -> None:
    made: list[int] = []
    source = prefetched(made.append, count(), 2)
    list(islice(source, 3))
    source.close()
    assert len(made) <= 3 + 2 + 2


def test_an_error_is_raised_where_its_key_stands() -> None:
    source = prefetched(lambda key: 1 / key, [2, 1, 0, 1])
    assert [next(source), next(source)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(source)
