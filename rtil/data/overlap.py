"""Which images two splits share: a picture is known by its contents, whatever it is called.

A pack of `rtil.data.pack` says what its images were made from, so they are known in another size
too. What follows from it for a generator is in `rtil.data.lineage`.
"""

from __future__ import annotations

from rtil.data.source import SplitFiles


def shared(one: SplitFiles, other: SplitFiles) -> list[str]:
    """Names of the files of a split whose contents, or those they were made from, are another's.

    Sizes go first: the checksum of a file in a folder has to read it.
    """
    sizes = _sizes(one) & _sizes(other)
    known = {content for i in other.order for content in other.files.contents(i, sizes)}
    names = one.files.names
    return [names[i] for i in one.order if known & {*one.files.contents(i, sizes)}]


def are_cut_apart(one: SplitFiles, other: SplitFiles) -> bool:
    """Whether they are splits of one folder or zip that have no file in common."""
    return one.files.path.samefile(other.files.path) and not {*one.order} & {*other.order}


def namesakes(one: SplitFiles, other: SplitFiles) -> int:
    """How many files of a split may be another's though their contents differ, by their names.

    None are unless one of the two is a zip that does not say what it was made from, and one that
    the other is not cut from. Names as 0001 are everywhere: fewer than half of them mean nothing.
    """
    is_unknown = one.files.is_unmarked_zip() or other.files.is_unmarked_zip()
    if not is_unknown or one.files.path.samefile(other.files.path):
        return 0
    stems = {_stem(other.files.names[i]) for i in other.order}
    alike = sum(_stem(one.files.names[i]) in stems for i in one.order)
    return alike if 2 * alike >= len(one.order) else 0


def _sizes(split: SplitFiles) -> set[int]:
    """Of all files of a split, and of what they were made from."""
    files = split.files
    own = {files.size(i) for i in split.order}
    return own | {source.size for i in split.order for source in files.sources(i)}


def _stem(name: str) -> str:
    """A name without its ending, which packing changes."""
    return name.rpartition(".")[0]
