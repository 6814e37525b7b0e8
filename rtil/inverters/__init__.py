"""Estimates of an image from its measurements. No inverter ever receives the true image."""
