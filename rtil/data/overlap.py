"""Which images two splits share: a picture is known by its contents, whatever it is called.

A pack of `rtil.data.pack` says what its images were made from, so they are known in another size
too. What follows from it for a generator is in `rtil.data.lineage`.
"""

from __future__ import annotations

from rtil.data.source import SplitFiles


def shared(one: SplitFiles, other: SplitFiles) -> list[str]:
    """Names of the files of a split whose contents, or those they were made from, are another's.

    What costs least goes first: sizes, then checksums, for which files in a folder are read, and
    hashes of those alone that agree so far.
    """
    sizes = _sizes(one) & _sizes(other)
    here = {i: one.files.marks(i, sizes) for i in one.order}
    there = {i: other.files.marks(i, sizes) for i in other.order}
    both = set().union(*here.values()) & set().union(*there.values())
    known: set[str] = set()
    for i, marks in there.items():
        if marks & both:
            known |= other.files.hashes(i, both)
    names = one.files.names
    return [
        names[i] for i, marks in here.items() if marks & both and known & one.files.hashes(i, both)
    ]


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
    return own | {original.mark.size for i in split.order for original in files.originals(i)}


def _stem(name: str) -> str:
    """A name without its ending, which packing changes."""
    return name.rpartition(".")[0]
