"""The order in which training reads images, and reading the next batch beside the step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def epoch_indices(n: int, seed: int, start: int, count: int) -> Tensor:
    """Which of n images the training samples number start, ..., start + count - 1 are.

    The samples are one infinite stream: sample i is at place i mod n of the permutation of epoch
    e = i // n, a function of (n, seed, e). So it reads the same in batches of any size, and the
    number of samples seen is all that resuming needs.

    Returns:
        (count,) int64 in [0, n).
    """
    parts, i = [torch.empty(0, dtype=torch.long)], start
    while i < start + count:
        epoch, place = divmod(i, n)
        parts.append(torch.tensor(permutation(n, seed, epoch)[place : place + start + count - i]))
        i += len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n images in an epoch, (n,) int64; also how splits are cut, as epoch 0."""
    # NumPy promises never to change RandomState's stream; the newer generators may change.
    key = [seed % 2**32, (seed >> 32) % 2**32, epoch]
    return np.random.RandomState(key).permutation(n).astype(np.int64)


class Prefetch(Generic[T]):
    """Compute the next batch in one background thread while the current one is in use.

    Args:
        fetch: makes the batch of a key. It runs in that thread only, one call at a time.
    """

    def __init__(self, fetch: Callable[[int], T]):
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._key: int | None = None
        self._scheduled: Future[T] | None = None

    def schedule(self, key: int) -> None:
        """Begin fetch(key); drops what was scheduled before under another key."""
        self._begin(key)

    def get(self, key: int) -> T:
        """fetch(key), begun by `schedule` or else now. Raises what fetch raises."""
        result = self._begin(key)
        self._scheduled = None
        return result.result()

    def _begin(self, key: int) -> Future[T]:
        """What computes fetch(key), begun before or now."""
        if self._scheduled is not None and self._key == key:
            return self._scheduled
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._key, self._scheduled = key, self._pool.submit(self._fetch, key)
        return self._scheduled

    def close(self) -> None:
        """Stop the thread, after the fetch it is in."""
        self._pool.shutdown(cancel_futures=True)
