"""Names of the published checkpoints' entries, mapped onto ours (paper's released models).

The published StyleGAN2 files hold the layout of a widely used PyTorch port, the PGGAN files that
of another; both are listed in the tests' golden data. Arithmetic is the same, names differ.
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
            raise ValueError(f"{who}: entry {name!r} has no counterpart in rtil's {who}.")
    return renamed


def _expand(match: re.Match, target: str) -> str:
    """Fills {0}, {1+2}, {1/2+1}: group number, then integer arithmetic on it."""

    def fill(hole: re.Match) -> str:
        value = int(match.group(int(hole[1])))
        return str(value // int(hole[2] or 1) + int(hole[3] or 0))

    return re.sub(r"\{(\d)(?:/(\d))?([+-]\d)?\}", fill, target)


def stylegan2_generator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published StyleGAN2 generator entries under our names and shapes.

    Raises:
        ValueError: an entry that has no counterpart.
    """
    tail = [("conv.weight", "conv.weight"), ("conv.modulation.weight", "conv.style.weight"),
            ("conv.modulation.bias", "conv.style.bias"), ("noise.weight", "noise_strength"),
            ("activate.bias", "bias"), ("bias", "bias")]
    rules = [(r"style\.(\d+)\.(?:weight)", "mapping.{1-1}.weight"),
             (r"style\.(\d+)\.(?:bias)", "mapping.{1-1}.bias"),
             (r"input\.input", "const"), (r"noises\.noise_(\d+)", "noise_{1}"),
             (r".*\.kernel", "")]
    for theirs, ours in tail:
        end = re.escape(theirs)
        rules += [(rf"conv1\.{end}", f"blocks.0.conv.{ours}"),
                  (rf"to_rgb1\.{end}", f"blocks.0.to_rgb.{ours}"),
                  (rf"to_rgbs\.(\d+)\.{end}", f"blocks.{{1+1}}.to_rgb.{ours}"),
                  (rf"convs\.(\d*[02468])\.{end}", f"blocks.{{1/2+1}}.up.{ours}"),
                  (rf"convs\.(\d*[13579])\.{end}", f"blocks.{{1/2+1}}.conv.{ours}")]
    renamed = _rename(state, rules, "StyleGAN2Generator")
    for name, value in renamed.items():
        if name.endswith("conv.weight"):
            renamed[name] = value[0]
        elif name.endswith("noise_strength"):
            renamed[name] = value.reshape(())
        elif name.endswith("to_rgb.bias"):
            renamed[name] = value.flatten()
    return renamed


def stylegan2_discriminator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published StyleGAN2 discriminator entries under our names."""
    rules = [(r".*\.kernel", ""),
             (r"convs\.0\.0\.weight", "from_rgb.conv.weight"),
             (r"convs\.0\.1\.bias", "from_rgb.bias"),
             (r"convs\.(\d+)\.conv1\.0\.weight", "blocks.{1-1}.conv1.conv.weight"),
             (r"convs\.(\d+)\.conv1\.1\.bias", "blocks.{1-1}.conv1.bias"),
             (r"convs\.(\d+)\.conv2\.1\.weight", "blocks.{1-1}.conv2.conv.weight"),
             (r"convs\.(\d+)\.conv2\.2\.bias", "blocks.{1-1}.conv2.bias"),
             (r"convs\.(\d+)\.skip\.1\.weight", "blocks.{1-1}.skip.conv.weight"),
             (r"final_conv\.0\.weight", "conv.conv.weight"), (r"final_conv\.1\.bias", "conv.bias"),
             (r"final_linear\.0\.weight", "hidden.weight"),
             (r"final_linear\.0\.bias", "hidden.bias"),
             (r"final_linear\.1\.weight", "score.weight"),
             (r"final_linear\.1\.bias", "score.bias")]
    return _rename(state, rules, "StyleGAN2Discriminator")


def pggan_generator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published PGGAN generator entries under our names."""
    rules = [(r"input_layer\.0\.conv\.weight_orig", "input"),
             (r"input_layer\.0\.conv\.bias", "input_bias")]
    for block, size in enumerate(4 * 2**i for i in range(9)):
        for theirs, ours in (("weight_orig", "weight"), ("bias", "bias")):
            conv = rf"progression_{size}\.conv"
            rules += [(rf"{conv}\.0\.conv\.{theirs}", f"blocks.{block}.conv0.{ours}"),
                      (rf"{conv}\.3\.conv\.{theirs}", f"blocks.{block}.conv1.{ours}"),
                      (rf"to_rgb_{size}\.conv\.{theirs}", f"to_rgb.{block}.{ours}")]
    return _rename(state, rules, "PGGANGenerator")


def pggan_discriminator(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published PGGAN discriminator entries under our names; theirs count from the largest."""
    last = max(int(m[1]) for name in state if (m := re.match(r"from_rgb\.(\d+)", name)))
    rules = [(r"linear\.linear\.weight_orig", "score.weight"),
             (r"linear\.linear\.bias", "score.bias")]
    for theirs, ours in (("weight_orig", "weight"), ("bias", "bias")):
        for i in range(last + 1):
            block = last - i
            conv = rf"progression\.{i}\.conv"
            rules += [(rf"{conv}\.0\.conv\.{theirs}", f"blocks.{block}.0.{ours}"),
                      (rf"{conv}\.3\.conv\.{theirs}", f"blocks.{block}.1.{ours}"),
                      (rf"from_rgb\.{i}\.conv\.{theirs}", f"from_rgb.{block}.{ours}")]
    return _rename(state, rules, "PGGANDiscriminator")
