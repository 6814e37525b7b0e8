# Types of the names that __init__.py imports when they are first used.
from rtil.checkpoint import load_generator as load_generator
from rtil.latents.additive import Additive as Additive
from rtil.latents.mixture import Mixture as Mixture
from rtil.latents.multicode import MultiCode as MultiCode
from rtil.models.wrapped import wrap as wrap
from rtil.operators import build_operator as build_operator

__version__: str
