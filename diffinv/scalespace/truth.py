"""The truth table: which property holds for which process, by derivation, before anything is measured.

Each claim is the one that `properties` states. An entry "" leaves the outcome to the data, and `REASONS` says why.
"""

from __future__ import annotations

from diffinv import process as processes
from diffinv.process import Process
from diffinv.scalespace.blocks import Relay

CLASSES = ("VP", "VE", "IHD", "blurring", "relay")
_h, _f = "holds", "fails"

TRUTH: dict[str, tuple[str, str, str, str, str]] = {
    "initial": (_h, _h, _f, _h, _h),
    "semigroup": (_h, _h, _h, _h, _h),
    "conditional_entropy": (_h, _h, _f, _h, _h),
    "information": (_h, _h, _h, _h, _h),
    "relative_entropy": (_h, "", "", "", ""),
    "whitened_relative_entropy": (_h, _h, _h, _h, _h),
    "marginal_entropy": ("", _h, "", "", ""),
    "invariant_law": (_h, _f, _f, _f, _f),
    "permutations": (_h, _h, _f, _f, _f),
    "flips": (_h, _h, _h, _h, _h),
    "transpose": (_h, _h, _h, _h, _h),
    "quarter_turns": (_h, _h, _h, _h, _h),
    "shifts": (_h, _h, _f, _f, _f),
    "average_grey": (_f, _h, _h, _f, _h),
    "steady": (_h, _f, _f, _h, _f),
}

REASONS: dict[str, str] = {
    "initial": "Heat dissipation starts at the data convolved with N(0, delta^2). Blurring starts at the data: its "
    "sigma(0) is 0, where the published schedule starts at a log-SNR of 10.",
    "conditional_entropy": "It is n/2 ln(2 pi e) + sum ln s_t: constant where the noise is.",
    "information": "Data processing: it falls along every Markov chain.",
    "relative_entropy": "It falls for every data law where N(0, I) is invariant, which is VP alone. Elsewhere the data "
    "decide: with the covariance C = (1 - s_s^2) / a_s^2 the law is N(0, I) at time s and not after it.",
    "whitened_relative_entropy": "Its rate is (E z^2 - mmse) / 2 >= 0 in every coordinate's SNR, which never rises.",
    "marginal_entropy": "I falls, h(U_t | U_0) rises, so the sum may do either under VP, blurring, relay; under VE "
    "noise is only added; under heat dissipation h(U_t | U_0) is constant, so the sum falls wherever I does."
    " (On data that it never confuses, both stand still.)",
    "invariant_law": "Blurring contracts faster than its noise fills up, until d_t has reached d_min.",
    "permutations": "Isotropic noise does not know where a pixel is; a blur does.",
    "shifts": "The cosine basis reflects at the border, so cyclic shifts do not commute; a relay's do by whole blocks.",
    "average_grey": "In expectation: a_t of the mean grey coefficient is 1 without a VP or cosine factor.",
    "steady": "VE has no steady state; heat dissipation and relay keep (block) average grey values."
    " The bound on W2 is met where what is left of the data is small.",
}


def kind(process: Process) -> str:
    """The column of the truth table, "" for a process without one."""
    if isinstance(process, (processes.VP, processes.DDPM, processes.Cosine)):
        return "VP"
    if isinstance(process, (processes.VE, processes.EDM)):
        return "VE"
    known = {processes.HeatDissipation: "IHD", processes.Blurring: "blurring", Relay: "relay"}
    return known.get(type(process), "")


def expected(process: Process, name: str) -> str:
    """ "holds", "fails", or "" where the data decide or the table has no such column."""
    column = kind(process)
    return TRUTH[name][CLASSES.index(column)] if column else ""


def counterexample(alpha: float, sigma: float, later_alpha: float, later_sigma: float) -> tuple[float, float]:
    """(KL at s, KL at t) to N(0, 1) of the data law N(0, (1 - sigma_s^2) / alpha_s^2): 0, then above 0.

    It shows that the relative entropy need not fall where N(0, I) is not invariant. Original. The arguments are the
    coefficients of one coordinate at s and at a later t, with `sigma < 1`.
    """
    import math

    variance = (1 - sigma**2) / alpha**2
    gaussian = lambda v: 0.5 * (v - 1 - math.log(v))
    return gaussian(alpha**2 * variance + sigma**2), gaussian(later_alpha**2 * variance + later_sigma**2)
