"""Estimates of an image from its measurements. No inverter ever receives the true image."""

from rtil.inverters.inverter import build_inverter

__all__ = ["build_inverter"]
