"""Degradations: from a picture to the low-resolution one a network learns from; random ones with a key, and bicubic."""

from diffinv.degrade.draws import Draw, draw
from diffinv.degrade.kernels import kernel
from diffinv.degrade.noise import gaussian_noise, poisson_noise
from diffinv.degrade.pipeline import degrade, matlab_bicubic, quantise, realesrgan
from diffinv.degrade.resizing import interpolate
from diffinv.degrade.settings import Settings, resshift_test, resshift_train, stock

__all__ = [
    "Draw",
    "Settings",
    "matlab_bicubic",
    "degrade",
    "draw",
    "gaussian_noise",
    "interpolate",
    "kernel",
    "poisson_noise",
    "quantise",
    "realesrgan",
    "resshift_test",
    "resshift_train",
    "stock",
]
