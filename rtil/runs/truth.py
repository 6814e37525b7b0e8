"""Which selections look at the true image: what they select is no result, and always says so.

Reports know it from here without torch, and `rtil.inversion.estimate` shows the true image to
these rules alone. To add such a rule, name it here too, with what a page calls it.
"""

from __future__ import annotations

ORACLES = {"oracle": "oracle", "authors": "published oracle"}


def looks_at_truth(selection: object) -> bool:
    """Whether a value of `selection` picks iterates by the true image."""
    return selection in ORACLES
