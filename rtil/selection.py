"""Which iterate of an inversion is reported: the only code that sees iterates and the true image.

No inverter knows of it: an oracle watches, and what it kept replaces the inverter's choice after
the inversion has ended. Wherever a number or picture of its choice goes, "oracle" goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rtil import metrics
from rtil.inverters.inverter import Loss, Reconstruction
from rtil.metrics import to_unit
from rtil.operators import ForwardOperator

CHOICES = {"selection": ("best", "last", "oracle"), "target_range": ("signed", "unit")}


def check_choices(selection: str, target_range: str, inverter: str, protocol: Mapping) -> None:
    """Checks what a protocol may set, before anything is read.

    Args:
        inverter: its name.
        protocol: `name`, and in `inverters` those that it is defined for, where not for all.

    Raises:
        ValueError: an unknown choice, or an inverter that the protocol does not have.
    """
    for key, value in {"selection": selection, "target_range": target_range}.items():
        if value not in CHOICES[key]:
            raise ValueError(f"invert: {key}={value} must be one of {', '.join(CHOICES[key])}.")
    known = protocol.get("inverters", [inverter])
    if inverter not in known:
        raise ValueError(
            f"invert: protocol={protocol['name']} has no inverter={inverter}, only "
            f"{' and '.join(known)}. Leave the protocol out, or choose one of them."
        )


class Oracle:
    """PSNR of the best iterate, judged by the true image: no user has it, so never a result.

    Args:
        x: true images (B, C, H, W) in [0, 1].
        keep: keeps those iterates too, in `image` (B, C, H, W), about [-1, 1].
    """

    def __init__(self, x: Tensor, keep: bool = False) -> None:
        self.x, self.keep, self.image = x, keep, None
        self.best = torch.full((len(x),), -torch.inf, device=x.device)

    def __call__(self, image: Tensor) -> None:
        found = metrics.psnr(to_unit(image), self.x)
        if self.keep:
            kept = image if self.image is None else self.image
            self.image = torch.where((found > self.best).view(-1, 1, 1, 1), image, kept)
        self.best = torch.maximum(self.best, found)


@torch.no_grad()
def select(
    selection: str, found: Reconstruction, oracle: Oracle, A: ForwardOperator, y: Tensor,
    loss: Loss,
) -> Reconstruction:
    """What the inverter found, with the selected iterate and its measurement loss as its image.

    Args:
        selection: best (lowest measurement loss), last, or oracle (published code), for which the
            oracle has kept its iterates.
    """
    if selection == "last":
        return found._replace(image=found.last, loss=found.last_loss)
    if selection == "oracle":
        return found._replace(image=oracle.image, loss=loss(A(oracle.image), y))
    return found
