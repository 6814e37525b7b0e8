"""Layers that training leaves as they are: `freeze=[mapping, blocks.0, D.from_rgb]`.

A name is that of a parameter, or of a module with all parameters in it, as torch has them. Those
of the discriminator begin with "D.", all others are the generator's. What is frozen needs no
gradient and is no parameter of an optimiser; the loop knows nothing of it. A layer with running
statistics uses those that it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import nn

from rtil.runs.keys import is_under

OF_D = "D"  # how names of the discriminator begin


def parameters(G: nn.Module, D: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of both networks under the names that `freeze` knows."""
    of_d = {f"{OF_D}.{name}": p for name, p in D.named_parameters()}
    return dict(G.named_parameters()) | of_d


def canonical(names: Collection[str], G: nn.Module, D: nn.Module) -> list[str]:
    """The shortest list that names the same layers, in the networks' order.

    Args:
        names: of layers, in any order.
        G, D: generator and discriminator, on any device.

    Raises:
        ValueError: a name of no layer, or all layers of a network.
    """
    every = [*parameters(G, D)]
    for name in names:
        if not any(is_under(parameter, [name]) for parameter in every):
            raise ValueError(_unknown(name, every))
    frozen = {parameter for parameter in every if is_under(parameter, names)}
    of_d = [name for name in every if is_under(name, [OF_D])]
    of_g = [name for name in every if not is_under(name, [OF_D])]
    for title, network in (("generator", of_g), ("discriminator", of_d)):
        if network and frozen.issuperset(network):
            raise ValueError(
                f"train: freeze={[*names]} names all layers of the {title}, so that nothing of it "
                "would be trained. Leave some out."
            )
    return _shortest(every, frozen)


def freeze(names: Collection[str], G: nn.Module, D: nn.Module) -> None:
    """Sets the layers of these names to need no gradient, and to keep their statistics."""
    for name, p in parameters(G, D).items():
        if is_under(name, names):
            p.requires_grad_(False)
    of_d = [(f"{OF_D}.{name}", module) for name, module in D.named_modules()]
    for name, module in [*G.named_modules(), *of_d]:
        # Batch normalisation would go on to average, in a layer that stays as it is.
        if is_under(name, names):
            module.eval()


def _shortest(every: Sequence[str], frozen: Collection[str], depth: int = 1) -> list[str]:
    """Names of `depth` parts or more that stand for the frozen ones among some parameters."""
    names = []
    for prefix in _prefixes(every, depth):
        inside = [parameter for parameter in every if is_under(parameter, [prefix])]
        count = sum(parameter in frozen for parameter in inside)
        if count == len(inside):
            names.append(prefix)
        elif count:
            names += _shortest(inside, frozen, depth + 1)
    return names


def _prefixes(every: Iterable[str], depth: int) -> list[str]:
    """The first `depth` parts of each name, each once."""
    return [*dict.fromkeys(".".join(name.split(".")[:depth]) for name in every)]


def _unknown(name: str, every: Iterable[str]) -> str:
    """Says what there is where a name is of no layer: below the part of it that there is."""
    known = name
    inside: list[str] = []
    while known and not inside:
        known = known.rpartition(".")[0]
        inside = [parameter for parameter in every if is_under(parameter, [known])]
    depth = known.count(".") + 2 if known else 1
    there = ", ".join(_prefixes(inside or every, depth))
    return f"train: freeze={name} is the name of no layer. There are {there}."
