r"""Forward processes: `p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)`, diagonal in the process's own coordinates.

Every process is given by `log_alpha` and `log_sigma` on times in [0, 1]; logarithms, because `alpha_t / alpha_s`
is 0/0 under strong blur. They broadcast against one sample: shape `()` for the isotropic ones and `(H, W, 1)` for
those that act on the coefficients of the discrete cosine transform. Everything else is derived through `x_0`.
"""

from diffinv.process.base import DEAD, TRUSTED, Explicit, Process, require_isotropic
from diffinv.process.blurring import Blurring, HeatDissipation, dct_frequencies
from diffinv.process.isotropic import DDPM, EDM, VE, VP, Cosine, Flow, ResidualShift, ddpm

__all__ = [
    "Blurring",
    "Cosine",
    "DDPM",
    "DEAD",
    "EDM",
    "Explicit",
    "Flow",
    "HeatDissipation",
    "Process",
    "ResidualShift",
    "TRUSTED",
    "VE",
    "VP",
    "dct_frequencies",
    "ddpm",
    "require_isotropic",
]
