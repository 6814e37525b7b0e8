"""Operators with one public function each; every network computes through them."""

from rtil.kernels.dispatch import set_impl, used

__all__ = ["set_impl", "used"]
