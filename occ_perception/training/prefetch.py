"""Making things ahead of their use in threads: decoding, projection tables and numpy release the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def prefetched(make: Callable[[K], T], keys: Iterable[K], threads: int = 1) -> Generator[T, None, None]:
    """`make(key)` of each key, in order, up to `threads + 2` ahead; errors of `make` are raised at their turn."""
    remaining = iter(keys)
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        waiting = deque(pool.submit(make, key) for key in islice(remaining, threads + 2))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(make, key) for key in islice(remaining, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()
