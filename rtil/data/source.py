"""The contract of what makes a data set's images: one module of this folder, one yaml or more.

`source: NAME` of a yaml in configs/data is the module `rtil.data.NAME`, whose `SOURCE` makes its
images. To add one, write that module, with a subclass of `Source` and one of `ImageData`, and the
yaml; nothing else names it. How a split is read lives in `rtil.data.load`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, NamedTuple

import rtil.data
from rtil.data.base import ImageData
from rtil.data.files import ImageFiles


class SplitFiles(NamedTuple):
    """The files of a data set, and those of one split by their numbers in its order."""

    files: ImageFiles
    order: list[int]

    def digest(self) -> str:
        """Tells the split's files from others."""
        return self.files.digest(self.order)


class Source(ABC):
    """Makes the images of a yaml of configs/data, which arrives resolved, as a plain mapping.

    Attributes:
        from_files: whether files make the images, or settings alone.
    """

    from_files: ClassVar[bool]

    @abstractmethod
    def load(
        self, data: Mapping[str, Any], resolution: int, split: str, channels: int | str
    ) -> ImageData:
        """One split.

        Args:
            resolution: image side in pixels.
            split: "train", "val", "test", or where files make the images "all".
            channels: 1, 3 or "auto".

        Raises:
            FileNotFoundError: no images there. ValueError: settings that make none.
        """

    @abstractmethod
    def split_files(self, data: Mapping[str, Any], split: str) -> SplitFiles | None:
        """The files of a split, without reading them; None where no files make the images.

        Raises what `load` raises for its files.
        """


def source_of(data: Mapping[str, Any]) -> Source:
    """The source that a yaml of configs/data names.

    Raises:
        ValueError: there is no such source; names those that are.
    """
    name = str(data.get("source"))
    modules = [module.name for module in iter_modules(rtil.data.__path__)]
    if name in modules:
        source = getattr(import_module(f"rtil.data.{name}"), "SOURCE", None)
        if isinstance(source, Source):
            return source
    known = [m for m in modules if hasattr(import_module(f"rtil.data.{m}"), "SOURCE")]
    raise ValueError(
        f"data={data.get('name')}: source={data.get('source')!r}; allowed are {', '.join(known)}"
    )
