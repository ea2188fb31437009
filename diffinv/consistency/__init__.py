"""Consistency models: losses for the one trainer, whose result is a denoiser, so a `Prior`, for `samplers.renoise`."""

from diffinv.consistency.base import (
    doubling,
    ema_rate,
    karras_level,
    karras_points,
    progressive,
    pseudo_huber,
    square,
    uniform,
)
from diffinv.consistency.continuous import meanflow, scm, shortcut
from diffinv.consistency.discrete import cd, ct, ect, ict
from diffinv.consistency.maps import FlowMap, ctm, imm, leap, second_channel

__all__ = [
    "FlowMap",
    "cd",
    "ct",
    "ctm",
    "doubling",
    "ect",
    "ema_rate",
    "ict",
    "imm",
    "karras_points",
    "karras_level",
    "leap",
    "meanflow",
    "progressive",
    "pseudo_huber",
    "scm",
    "second_channel",
    "shortcut",
    "square",
    "uniform",
]
