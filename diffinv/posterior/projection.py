"""Projection of the denoised mean onto what the measurement says: no gradient through the network."""

from __future__ import annotations

from diffinv.guided import guided
from diffinv.measure import Measurement, require_linear
from diffinv.prior import Prediction, Prior
from diffinv.typing import Array, Time


def _ddnm(prior: Prior, measurement: Measurement, x: Array, t: Time) -> Prediction:
    prediction = prior.predict(x, t)
    x0 = prediction.x0 + measurement.operator.pinv(measurement.residual(prediction.x0))
    return prediction._replace(x0=x0)


def ddnm(prior: Prior, measurement: Measurement) -> Prior:
    """Replaces the range of x0 by the measurement: `x0' = x0 + A^+ (y - A x0)`; use it under `ddim(eta=0.85)`.

    Source: Wang et al. 2023, arXiv:2212.00490, eq. 13 and algorithm 1. It is the noiseless form: noise in y goes into
    x0 as it is, amplified by `A^+`. Raises TypeError for an operator that is not linear.
    """
    require_linear(measurement, "ddnm")
    return guided(prior, measurement, _ddnm)
