"""Objectives: per-image losses of training, and what goes with them."""
