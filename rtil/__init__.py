"""rtil: train GANs whose intermediate layers are regularised for inversion, and invert them."""

__version__ = "0.1.0"
