"""Modules as users write them, of torch alone, and generators that wrap them, float64."""

from itertools import pairwise

import torch
from torch import nn

from rtil.models.wrapped import wrap

WIDTHS = {4: 6, 8: 5, 16: 4, 32: 3, 64: 2}


class Chain(nn.Module):
    """A DCGAN: each stage doubles the side, the last layer draws."""

    def __init__(self, resolution=16, image_channels=1, z_dim=8):
        super().__init__()
        widths = [width for side, width in WIDTHS.items() if side <= resolution]
        self.first = nn.Sequential(
            nn.ConvTranspose2d(z_dim, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in pairwise(widths)
        )
        self.draw = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    def forward(self, z):
        x = self.first(z)
        for up in self.ups:
            x = up(x)
        return torch.tanh(self.draw(x))


class Modulated(nn.Module):
    """A mapping network, and stages that each read its output beside the map before."""

    def __init__(self, resolution=16, image_channels=1, z_dim=8):
        super().__init__()
        widths = [width for side, width in WIDTHS.items() if side <= resolution]
        self.mapping = nn.Sequential(nn.Linear(z_dim, 7), nn.LeakyReLU(0.2))
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip([widths[0], *widths], widths)
        )
        self.styles = nn.ModuleList(nn.Linear(7, width) for width in [widths[0], *widths[:-1]])
        self.draw = nn.Conv2d(widths[-1], image_channels, 1)

    def forward(self, z):
        w = self.mapping(z)
        x = self.const.expand(len(z), -1, -1, -1)
        # All styles come first, as a list: they are functions of w, and no state of a block.
        gains = [1 + style(w)[:, :, None, None] for style in self.styles]
        for i, conv in enumerate(self.convs):
            if i:
                x = nn.functional.interpolate(x, scale_factor=2)
            x = torch.relu(conv(x * gains[i]))
        return torch.sigmoid(self.draw(x))


def perturbed(module, seed):
    """Weights, biases and running statistics all away from where they begin."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.3 * torch.rand(tensor.shape, generator=rng))
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=rng))
    return module.double().eval()


def chain(resolution=16, image_channels=1, seed=0):
    torch.manual_seed(seed)
    module = perturbed(Chain(resolution, image_channels), seed)
    return wrap(module, ["first", "ups.*"])


def modulated(resolution=16, image_channels=1, seed=0):
    torch.manual_seed(seed)
    module = perturbed(Modulated(resolution, image_channels), seed)
    cuts = ["convs.*"]
    return wrap(module, cuts, latent_map="mapping", image_range="unit")
