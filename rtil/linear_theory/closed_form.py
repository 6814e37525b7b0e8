"""Expected errors of both models in closed form: Lemma 5.2 of the paper with measurement noise.

(5) needs n1 <= m; (4) holds for any m, as vanilla estimates lie in the range of W1* W0*.
"""

from __future__ import annotations

import torch

from rtil.linear_theory.truth import Truth
from rtil.models.linear import expected_error, train_rtil, train_vanilla
from rtil.operators import Dense

# The closed form of W1 that each way of training ends in (Lemmas 5.1 and B.1).
TRAIN = {"vanilla": train_vanilla, "rtil": train_rtil}


def closed_form(truth: Truth, A: Dense, noise_std: float) -> dict[str, float]:
    """E|x* - x_hat|^2 over z0, z1 and e ~ N(0, s^2 I) of both models, for a given A and any m.

    Write M^+ for the pseudo-inverse and V = W1 W0*. Both stages are linear in y,

        z0 = (A V)^+ y,    z1 = (A W1)^+ (y - A V z0),    x_hat = W1 (W0* z0 + z1) = R y,

    with R = V (A V)^+ + W1 (A W1)^+ (I - A V (A V)^+). As x* = W1* (W0* z0* + z1*),

        x* - x_hat = (I - R A) W1* W0* z0* + (I - R A) W1* z1* - R e,

    and as z0*, z1* and e are independent and E|M z|^2 = |M|_F^2 for z ~ N(0, I),

        E|x* - x_hat|^2 = |(I - R A) W1* W0*|_F^2 + |(I - R A) W1*|_F^2 + s^2 |R|_F^2,

    which is what rtil.models.linear.expected_error computes.

    RTIL has W1 = W1*. Where A W1* has full column rank, so n1 <= m, range(A V) lies in
    range(A W1*), so R = W1* (A W1*)^+ and R A W1* = W1*, and what is left is

        s^2 |W1* (A W1*)^+|_F^2,    which is (5) for s = 0.

    Vanilla has W1 = W1* W0* W0*^+, so V = W1* W0*, and A W1 has the range of A V: the second stage
    adds nothing, R = V (A V)^+ and, where n0 <= m, R A V = V. With the projector P onto range(V),
    (I - R A) W1* = (I - R A) (I - P) W1*, of which (I - P) W1* is orthogonal to the rest:

        |(I - P) W1*|_F^2 + |V (A V)^+ A (I - P) W1*|_F^2 + s^2 |V (A V)^+|_F^2.

    The first term does not depend on A or m and is at least |(I - P) W1*|_2^2, which is (4).

    Args:
        A: measures (1, 1, nd).
        noise_std: s.

    Returns:
        {"vanilla": error, "rtil": error}.
    """
    errors = {}
    for name, train in TRAIN.items():
        errors[name] = expected_error(*truth, train(*truth), A.matrix, noise_std)
    return errors


def average_error(truth: Truth, m: int, noise_std: float) -> dict[str, float]:
    """Mean of `closed_form` over A (m, nd) with entries N(0, 1/nd), where it is finite.

    In the notation of `closed_form`, let Q be an orthonormal basis of range(V), H = (I - P) W1*
    and G = A Q, so that V (A V)^+ = Q G^+. The columns of Q are orthogonal to those of H, so G and
    A H are independent, and G has entries N(0, 1/nd): nd G^T G is a Wishart matrix whose inverse
    has the mean I / (m - n0 - 1). Hence E|G^+|_F^2 = nd n0 / (m - n0 - 1) and
    E|G^+ A H|_F^2 = |H|_F^2 E|G^+|_F^2 / nd, so that for vanilla

        |H|_F^2 (1 + n0 / (m - n0 - 1)) + s^2 nd n0 / (m - n0 - 1).

    For RTIL only the noise is left, with range(W1*) in place of range(V):

        s^2 nd n1 / (m - n1 - 1).

    RTIL trades the bias |H|_F^2 for the noise of n1 instead of n0 unknowns.

    Args:
        m: measurements, n1 + 2 or more.
        noise_std: s.

    Returns:
        {"vanilla": error, "rtil": error}.

    Raises:
        ValueError: m below n1 + 2, where the mean is not finite.
    """
    (n1, n0), nd = truth.w0.shape, len(truth.w1)
    if m < n1 + 2:
        raise ValueError(
            f"average_error: m={m} has no finite mean over A; it needs n1 + 2 = {n1 + 2} or more."
        )
    q = torch.linalg.qr(truth.w1 @ truth.w0).Q
    bias = float((truth.w1 - q @ (q.T @ truth.w1)).square().sum())
    vanilla, rtil = n0 / (m - n0 - 1), n1 / (m - n1 - 1)
    noise = noise_std**2 * nd
    return {"vanilla": bias * (1 + vanilla) + noise * vanilla, "rtil": noise * rtil}
