"""Perceptual distances whose weights are drawn, where none are on disk."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace

import torch
import torchvision

import rtil.metrics
from rtil.metrics.st_lpips import STAGES

FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def _distances():
    modules = [
        import_module(f"rtil.metrics.{m.name}") for m in iter_modules(rtil.metrics.__path__)
    ]
    return {
        module.__name__.rpartition(".")[2]: module.DISTANCE
        for module in modules
        if hasattr(module, "DISTANCE")
    }


DISTANCES = _distances()


@cache
def classifiers():
    """{net: weights of a random classifier, without its last layers}."""
    makers = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}
    drawn = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for net, make in makers.items():
            layers = undrawn(make)().features
            for layer in layers:
                if isinstance(layer, torch.nn.Conv2d):
                    layer.reset_parameters()
            drawn[net] = {f"features.{key}": value for key, value in layers.state_dict().items()}
    return drawn


def undrawn(make):
    """`make`, which builds a classifier, without the seconds in which it draws the weights."""

    def build(**_):
        with torch.device("meta"):
            classifier = make(weights=None)
        return classifier.to_empty(device="cpu")

    return build


def hub_folder(home):
    """A torch hub folder with random classifiers, without their last layers."""
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for net, weights in classifiers().items():
        torch.save(weights, folder / FILES[net])


@cache
def shift_tolerant(net):
    """Random tensors as the package stlpips-pytorch names them."""
    weights = {
        "scaling_layer.shift": torch.tensor([-0.03, -0.088, -0.188]).view(1, 3, 1, 1),
        "scaling_layer.scale": torch.tensor([0.458, 0.448, 0.45]).view(1, 3, 1, 1),
    }
    start = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, modules in enumerate(STAGES[net]()):
            stage = torch.nn.Sequential(*modules)
            for key, value in stage.state_dict().items():
                layer, part = key.split(".")
                weights[f"net.slice{number + 1}.{start + int(layer)}.{part}"] = value
                channels = len(value)
            start += len(modules)
            weights[f"lin{number}.model.1.weight"] = torch.rand(1, channels, 1, 1)
    return weights


def drawn_weights(home, patch):
    """Puts random weights where the distances look for theirs."""
    hub_folder(home)
    patch.setenv("TORCH_HOME", str(home))
    models = torchvision.models
    # What lpips builds loads its weights from that folder.
    quick = SimpleNamespace(alexnet=undrawn(models.alexnet), vgg16=undrawn(models.vgg16))
    patch.setattr("lpips.pretrained_networks.tv", quick)
    patch.setattr("rtil.metrics.st_lpips.load_weights", shift_tolerant)
