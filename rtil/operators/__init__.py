"""Forward operators y = A(x): what an inverse problem measures of an image."""

from rtil.operators.blur import Blur
from rtil.operators.circulant import Circulant, partial_circulant
from rtil.operators.dense import Dense
from rtil.operators.downsample import Downsample
from rtil.operators.identity import Identity
from rtil.operators.mask import Mask, inpainting
from rtil.operators.operator import ForwardOperator, LinearOperator
from rtil.operators.phase import PhaseRetrieval
from rtil.operators.task import build_operator, check_task, knobs_of

__all__ = [
    "Blur",
    "Circulant",
    "Dense",
    "Downsample",
    "ForwardOperator",
    "Identity",
    "LinearOperator",
    "Mask",
    "PhaseRetrieval",
    "build_operator",
    "check_task",
    "inpainting",
    "knobs_of",
    "partial_circulant",
]
