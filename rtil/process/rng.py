"""Random generators seeded by what they draw, (seed, image id, purpose), not by call order."""

from __future__ import annotations

import hashlib

import torch


def seeded(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator whose stream depends on the parts alone, e.g. (seed, image id, "noise")."""
    return torch.Generator(device=device).manual_seed(seed_of(*parts))


def seed_of(*parts: object) -> int:
    """What `seeded` seeds its generator with."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
