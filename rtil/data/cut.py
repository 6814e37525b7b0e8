"""How training, validation and test images are cut from the files of one folder or zip.

Which files a split then reads lives in `rtil.data.folder`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtil.data.stream import permutation

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Cut:
    """Sizes of the splits: disjoint parts of a permutation of n files, the same on every machine.

    Test images come first, then validation, then training, so that held-out images stay when
    more training images are asked for.

    Attributes:
        train, val, test: number of images; None takes all that the others leave.
        seed: of the permutation.
    """

    train: int | None = None
    val: int | None = 0
    test: int | None = 0
    seed: int = 0

    def indices(self, n: int, split: str) -> list[int]:
        """Which of n files are in a split, one of `SPLITS`; "all" are all, in their order.

        Raises:
            ValueError: unknown or empty split, a negative count, more images asked for than n.
        """
        if split not in SPLITS:
            raise ValueError(f"ImageFolder: split={split!r}; allowed are {', '.join(SPLITS)}")
        if split == "all":
            return list(range(n))
        counts = {"test": self.test, "val": self.val, "train": self.train}
        asked = ", ".join(f"num_{key}={count}" for key, count in counts.items())
        if min(count or 0 for count in counts.values()) < 0:
            raise ValueError(f"ImageFolder: {asked}; each must be 0 or more")
        rest = n - sum(count or 0 for count in counts.values())
        if rest < 0:
            raise ValueError(f"ImageFolder: {asked} ask for more than the {n} images there are")
        order, start = permutation(n, self.seed, 0), 0
        for key, count in counts.items():
            stop = start + (rest if count is None else count)
            if key == split and stop > start:
                return order[start:stop].tolist()
            start = stop
        raise ValueError(
            f"ImageFolder: the {split} split is empty, {asked} of {n} images; "
            "change data.num_train, data.num_val, data.num_test"
        )
