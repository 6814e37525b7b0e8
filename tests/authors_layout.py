"""Names of the published discriminators' entries, mapped onto ours (paper's released models).

The published StyleGAN2 files hold the layout of a widely used PyTorch port, the PGGAN files that
of another; both are listed in the tests' golden data. Arithmetic is the same, names differ.
Generators are read by rtil.importers.
"""

from __future__ import annotations

import re

from torch import Tensor


def _rename(state: dict[str, Tensor], rules: list[tuple[str, str]], who: str) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for pattern, target in rules:
            match = re.fullmatch(pattern, name)
            if match:
                new = _expand(match, target)
                if new:
                    renamed[new] = value
                break
        else:
            raise ValueError(f"entry {name!r} has no counterpart in rtil's {who}.")
    return renamed


def _expand(match: re.Match, target: str) -> str:
    """Fills {1-1}: a group's number, then an integer added to it."""

    def fill(hole: re.Match) -> str:
        return str(int(match.group(int(hole[1]))) + int(hole[2]))

    return re.sub(r"\{(\d)([+-]\d)\}", fill, target)


def stylegan2_discriminator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published StyleGAN2 discriminator entries under our names."""
    rules = [
        (r".*\.kernel", ""),
        (r"convs\.0\.0\.weight", "from_rgb.conv.weight"),
        (r"convs\.0\.1\.bias", "from_rgb.bias"),
        (r"convs\.(\d+)\.conv1\.0\.weight", "blocks.{1-1}.conv1.conv.weight"),
        (r"convs\.(\d+)\.conv1\.1\.bias", "blocks.{1-1}.conv1.bias"),
        (r"convs\.(\d+)\.conv2\.1\.weight", "blocks.{1-1}.conv2.conv.weight"),
        (r"convs\.(\d+)\.conv2\.2\.bias", "blocks.{1-1}.conv2.bias"),
        (r"convs\.(\d+)\.skip\.1\.weight", "blocks.{1-1}.skip.conv.weight"),
        (r"final_conv\.0\.weight", "conv.conv.weight"),
        (r"final_conv\.1\.bias", "conv.bias"),
        (r"final_linear\.0\.weight", "hidden.weight"),
        (r"final_linear\.0\.bias", "hidden.bias"),
        (r"final_linear\.1\.weight", "score.weight"),
        (r"final_linear\.1\.bias", "score.bias"),
    ]
    return _rename(state, rules, "StyleGAN2Discriminator")


def pggan_discriminator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published PGGAN discriminator entries under our names; theirs count from the largest."""
    last = max(int(m[1]) for name in state if (m := re.match(r"from_rgb\.(\d+)", name)))
    rules = [
        (r"linear\.linear\.weight_orig", "score.weight"),
        (r"linear\.linear\.bias", "score.bias"),
    ]
    for theirs, ours in (("weight_orig", "weight"), ("bias", "bias")):
        for i in range(last + 1):
            block = last - i
            conv = rf"progression\.{i}\.conv"
            rules += [
                (rf"{conv}\.0\.conv\.{theirs}", f"blocks.{block}.0.{ours}"),
                (rf"{conv}\.3\.conv\.{theirs}", f"blocks.{block}.1.{ours}"),
                (rf"from_rgb\.{i}\.conv\.{theirs}", f"from_rgb.{block}.{ours}"),
            ]
    return _rename(state, rules, "PGGANDiscriminator")
