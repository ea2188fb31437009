"""The properties of a probabilistic scale-space, measured: values over time, tolerance, verdict and deviation.

What is simplified is the law `p_t` of `U_t = V (a_t V^T U_0 + s_t eps)`, not an image. No statement here is about
"entropy" as such: the conditional, the marginal and the relative entropies and the mutual information behave
differently, and only the mutual information falls for every process.

Source: Peter 2023, arXiv:2303.07900; Peter et al. 2024, arXiv:2309.08511. Differs: each statement is about one
functional and can be derived from the process; where the outcome depends on the data, the statement says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.charts import Chart
from diffinv.describe import Described, described
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.scalespace.blocks import basis
from diffinv.scalespace.laws import LOG_2PI_E, Law, conditional_entropy, law
from diffinv.scalespace.truth import expected
from diffinv.typing import Array, Key

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@described
class Property(NamedTuple):
    """One property, measured.

    Attributes:
      name: of the property.
      formula: what is claimed.
      times: at which the functional was measured.
      values: of the functional at these times.
      errors: standard errors of the values, 0 where they are exact.
      tolerance: of `deviation`, in the unit of the values.
      deviation: by how much the claim is missed at worst.
      verdict: "holds", "fails", or "undecided" where the interval is too wide.
      note: how it went, in words.
      expected: the truth table's verdict, "holds" or "fails", or "" where the data decide.
    """

    name: str
    formula: str
    times: list[float]
    values: list[float]
    errors: list[float]
    tolerance: float
    deviation: float
    verdict: str
    note: str = ""
    expected: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the verdict is the truth table's. Any verdict agrees where the data decide, and "undecided" agrees
        always.
        """
        return self.expected in ("", self.verdict) or self.verdict == UNDECIDED


@dataclass(frozen=True)
class PropertyReport(Described):
    """The properties of one process on one law; `report["information"]` is the property of that name.

    Attributes:
      process: the name of the process.
      rows: the properties.
    """

    process: str
    rows: list[Property]

    def __getitem__(self, name: str) -> Property:
        return next(row for row in self.rows if row.name == name)

    def disagreements(self) -> list[Property]:
        """The properties whose verdict is not the truth table's."""
        return [row for row in self.rows if not row.agrees]


@described
class Setting(NamedTuple):
    """What all measurements share.

    Attributes:
      process: that is measured, diagonal in the chart.
      chart: of its codes.
      law: of the data, in the codes.
      times: increasing.
      key: of all draws.
      draws: of the Monte-Carlo estimates.
    """

    process: Process
    chart: Chart
    law: Law
    times: np.ndarray
    key: Key
    draws: int

    def scales(self, t: float) -> tuple[Array, Array]:
        """`(a_t, s_t)`, flattened, (n,)."""
        wide = lambda x: jnp.broadcast_to(x, self.chart.shape).ravel()
        return wide(self.process.alpha(t)), wide(self.process.sigma(t))

    def noisy(self) -> np.ndarray:
        """The times at which there is noise in every coordinate, so that densities exist."""
        return np.array([t for t in self.times if float(jnp.min(self.process.sigma(t))) > 0])


def check_snr(process: Process, times: Sequence[float] | np.ndarray) -> None:
    """Raises ValueError where the SNR rises, with the time from which it does: no kernel that adds noise makes it
    rise.
    """
    levels = [np.asarray(process.log_snr(t), np.float64) for t in times]
    for s, t, before, after in zip(times, times[1:], levels, levels[1:]):
        rise = np.max(np.where(np.isfinite(after), after - before, 0.0))
        if np.isnan(after).any() or rise > 1e-9 * (1 + np.max(np.abs(after))):
            name = type(process).__name__
            raise ValueError(
                f"{name} has an SNR that rises from time {s:g} to {t:g}; mend its schedule, or end before {s:g}"
            )


def chapman_kolmogorov(process: Process, q: float, s: float, t: float) -> float:
    r"""How far the kernels from q to s and from s to t are from composing to the one from q to t, for `q < s < t`.

        max(|r_{t|s} r_{s|q} - r_{t|q}|, |r_{t|s}^2 s_{s|q}^2 + s_{t|s}^2 - s_{t|q}^2| / s_t^2)

    Source: Peter 2023, the recursivity of the trajectory; in the process's own coordinates, derived.
    """
    one = jnp.ones_like(process.alpha(t) + process.sigma(t))
    (r_sq, v_sq), (r_ts, v_ts), (r_tq, v_tq) = (process.forward(one, a, b) for a, b in ((q, s), (s, t), (q, t)))
    mean = jnp.max(jnp.abs(r_ts * r_sq - r_tq))
    variance = jnp.max(jnp.abs((r_ts * v_sq) ** 2 + v_ts**2 - v_tq**2) / process.sigma(t) ** 2)
    return float(jnp.maximum(mean, variance))


def elements(key: Key, height: int, width: int) -> dict[str, list[np.ndarray]]:
    """Groups of permutations of the pixels, each as indices (H W,).

    They are a random permutation, the flips and the shifts, and for square pictures the transpose and the quarter turn.
    """
    grid = np.arange(height * width).reshape(height, width)
    found = {
        "permutations": [np.asarray(jax.random.permutation(key, height * width))],
        "flips": [grid[::-1].ravel(), grid[:, ::-1].ravel()],
        "shifts": [np.roll(grid, 1, 0).ravel(), np.roll(grid, 1, 1).ravel()],
    }
    if height == width:
        found |= {"transpose": [grid.T.ravel()], "quarter_turns": [np.rot90(grid).ravel()]}
    return found


def pixel_matrix(chart: Chart, scale: Array) -> np.ndarray:
    """The matrix `V diag(scale) V^T` on the pixels of one channel, (H W, H W)."""
    height, width, channels = chart.shape
    unit = jnp.eye(height * width, dtype=jnp.result_type(scale)).reshape(-1, height, width, 1)
    act = jax.vmap(lambda x: chart.decode(scale * chart.encode(jnp.repeat(x, channels, 2)))[..., 0])
    return np.asarray(act(unit)).reshape(height * width, -1)


def commutator(matrix: np.ndarray, order: np.ndarray) -> float:
    """`|P B - B P|_F` for the permutation P of the pixels: 0 where the trajectory of every data law commutes with P."""
    return float(np.linalg.norm(matrix[np.ix_(order, order)] - matrix))


def _floats(values: Iterable[Array | float]) -> list[float]:
    return [float(value) for value in values]


def _exact(
    name: str, formula: str, times: Iterable[float], values: Sequence[float], tolerance: float, note: str = ""
) -> Property:
    """A property whose values are deviations from the claim, without sampling."""
    worst = max(values)
    verdict = HOLDS if worst <= tolerance else FAILS
    return Property(
        name, formula, _floats(times), _floats(values), [0.0] * len(values), tolerance, worst, verdict, note
    )


def trend(draws: np.ndarray, rising: bool, strict: bool = False, share: float = 0.05) -> tuple[str, float, float]:
    """(verdict, deviation, tolerance) of the claim that the means of `draws` never fall (`rising`), or never rise.

    Consecutive times share their draws, so a step is judged by three standard errors of the paired difference. The
    verdict is "fails" where a step goes against the claim by more than that, and "undecided" where three errors exceed
    `share` of the whole range. Original.

    Args:
      draws: (T, M), with M = 1 where they are exact.
      rising: whether the claim is that the means never fall.
      strict: whether the means must change at every step.
      share: of the range, dimensionless.
    """
    steps = np.diff(draws, axis=0) * (-1 if rising else 1)
    errors = 3 * steps.std(1, ddof=1) / np.sqrt(steps.shape[1]) if steps.shape[1] > 1 else np.zeros(len(steps))
    means, against = draws.mean(1), steps.mean(1)
    tolerance = 1e-9 * (1 + np.abs(means).max())
    deviation = float(max(against.max(), 0.0))
    if (against - errors > tolerance).any():
        return FAILS, deviation, tolerance
    if strict and not (against < -tolerance).all():
        return FAILS, deviation, tolerance
    wide = errors.max() > max(share * np.ptp(means), 0.02)
    return (UNDECIDED if wide else HOLDS), deviation, max(tolerance, float(errors.max()))


def _sequence(
    name: str, formula: str, times: np.ndarray, draws: np.ndarray, rising: bool, strict: bool = False, note: str = ""
) -> Property:
    """A property that says in which direction a functional goes; its note says how it went."""
    verdict, deviation, tolerance = trend(draws, rising, strict)
    values = draws.mean(1)
    errors = draws.std(1, ddof=1) / np.sqrt(draws.shape[1]) if draws.shape[1] > 1 else np.zeros(len(draws))
    went = f"{values[0]:.4g} to {values[-1]:.4g}"
    if np.ptp(values) <= 1e-9 * (1 + np.abs(values).max()):
        went = f"constant, {values[0]:.4g}"
    elif verdict == FAILS:
        went = f"{went}, against the claim by up to {deviation:.3g} a step"
    elif verdict == UNDECIDED:
        went = f"{went}, within ± {3 * errors.max():.3g}: too few draws or data for a verdict"
    text = f"{went}; {note}" if note else went
    return Property(
        name, formula, _floats(times), _floats(values), _floats(errors), tolerance, deviation, verdict, text
    )


def _initial(x: Setting) -> Property:
    a, s = x.scales(0.0)
    away = float(jnp.sqrt(jnp.sum((1 - a) ** 2 * x.law.second_moment()) + jnp.sum(s**2)))
    note = f"sigma(0) = {float(jnp.max(s)):.3g}: the data convolved with that noise" if away > 0 else ""
    return _exact("initial", "W2(p_0, data) = 0, by sqrt(|1 - a_0|^2 E z^2 + |s_0|^2)", [0.0], [away], 1e-12, note)


def _semigroup(x: Setting) -> Property:
    inner = x.times[1:-1]
    error = [chapman_kolmogorov(x.process, float(x.times[0]), float(s), float(x.times[-1])) for s in inner]
    triples = [chapman_kolmogorov(x.process, *map(float, x.times[i : i + 3])) for i in range(len(inner))]
    worst = [max(pair) for pair in zip(error, triples)]
    tolerance = 1e-12 if jnp.result_type(float) == jnp.float64 else 1e-5
    return _exact("semigroup", "T_t = T_t|s T_s: coefficients and variances compose", inner, worst, tolerance)


def _lyapunov(x: Setting) -> list[Property]:
    """The entropies, all from one set of draws of the information."""
    times = x.noisy()
    scales = [x.scales(t) for t in times]
    information = np.stack([np.asarray(x.law.information(x.key, a, s, x.draws)) for a, s in scales])
    conditional = np.array(_floats(conditional_entropy(s) for _, s in scales))[:, None]
    moment, size = x.law.second_moment(), len(scales[0][0])
    energy = np.array(_floats(jnp.sum(a**2 * moment + s**2) for a, s in scales))[:, None]
    whitened = np.array(_floats(jnp.sum((a / s) ** 2 * moment) for a, s in scales))[:, None]
    marginal = information + conditional
    relative = 0.5 * (size * (LOG_2PI_E - 1) + energy) - marginal
    return [
        _sequence("conditional_entropy", "h(U_t | U_0) rises strictly", times, conditional, True, strict=True),
        _sequence("information", "I(U_0; U_t) never rises", times, information, False),
        _sequence("relative_entropy", "KL(p_t | N(0, I)) never rises", times, relative, False),
        _sequence(
            "whitened_relative_entropy",
            "KL(law of U_t / s_t | N(0, I)) never rises",
            times,
            0.5 * whitened - information,
            False,
        ),
        _sequence("marginal_entropy", "h(U_t) = I + h(U_t | U_0) never falls", times, marginal, True),
    ]


def _invariant_law(x: Setting) -> Property:
    """By how much a kernel moves the unit variance of N(0, I)."""
    defects = []
    for s, t in zip(x.times[:-1], x.times[1:]):
        ratio, std = x.process.forward(jnp.ones(x.chart.shape), s, t)
        defects.append(float(jnp.max(jnp.abs(ratio**2 + std**2 - 1))))
    return _exact("invariant_law", "N(0, I) is invariant: r^2 + s_t|s^2 = 1", x.times[1:], defects, 1e-6)


def _invariances(x: Setting) -> list[Property]:
    scales = [[x.process.alpha(t), x.process.sigma(t)] for t in x.times]
    kernels = [
        [pixel_matrix(x.chart, scale) for scale in pair if scale.ndim] for pair in scales
    ]  # a number commutes with all
    formula = "|P B - B P|_F = 0 for the kernels B = V diag(a_t) V^T and V diag(s_t) V^T"
    rows = []
    for name, orders in elements(x.key, *x.chart.shape[:2]).items():
        values = [max([0.0, *(commutator(B, order) for B in pair for order in orders)]) for pair in kernels]
        rows.append(_exact(name, formula, x.times, values, 1e-9 if jnp.result_type(float) == jnp.float64 else 1e-3))
    return rows


def _average_grey(x: Setting) -> Property:
    process, chart = x.process, x.chart
    code = chart.encode(jnp.full(chart.shape, 1 / float(np.prod(chart.shape))))
    kept = [float(jnp.sum(chart.decode(process.alpha(t) * code))) for t in x.times]
    spread = float(jnp.sqrt(jnp.sum((process.sigma(x.times[-1]) * code) ** 2)))
    note = f"{kept[-1]:.3g} of it is left; of one image it scatters by {spread:.3g} at the end"
    tolerance = 1e-9 if jnp.result_type(float) == jnp.float64 else 1e-4
    row = _exact("average_grey", "E mean(U_t) = E mean(U_0)", x.times, [abs(k - 1) for k in kept], tolerance, note)
    return row


def _steady(x: Setting, information: Property) -> Property:
    moment = x.law.second_moment()
    bound = [float(jnp.sqrt(jnp.sum(a**2 * moment + (1 - s) ** 2))) for a, s in map(x.scales, x.times)]
    size = int(np.prod(x.chart.shape))
    left = f"I(U_0; U_1) = {information.values[-1]:.4g} nats are left"
    tolerance = 0.02 * size**0.5
    formula = "p_1 = N(0, I): W2 <= sqrt(sum a^2 E z^2 + (1 - s)^2), at most 0.02 sqrt(n)"
    row = _exact("steady", formula, x.times, bound, tolerance, left)
    verdict = HOLDS if bound[-1] <= tolerance else FAILS
    return row._replace(deviation=bound[-1], verdict=verdict)


def properties(
    process: Process,
    data: Array | Prior,
    key: Key,
    times: Sequence[float] | None = None,
    chart: Chart | None = None,
    draws: int = 4000,
) -> PropertyReport:
    """Measures every property of the scale-space of `process` from `data`, and compares with the truth table.

    The function looks at values, so it cannot be compiled; use float64. Source: as the module; the table is `truth`'s.

    Args:
      process: any whose SNR does not rise.
      data: a finite set (N, H, W, C), or an exact prior, whose samples are (H, W, C).
      key: of all draws.
      times: increasing, in [0, 1], at least 3; eleven by default.
      chart: in whose codes the process is diagonal; by default `basis(process, shape)`.
      draws: of the Monte-Carlo estimates, which say their standard errors; a Gaussian prior needs none.

    Raises ValueError where the SNR rises, with the time; TypeError for a prior that is not exact.
    """
    shape = tuple(data.shape if isinstance(data, Prior) else data.shape[1:])
    if len(shape) != 3:
        raise ValueError(f"data has samples of shape {shape}; give (N, H, W, C), or a prior over (H, W, C)")
    times = np.linspace(0.0, 1.0, 11) if times is None else np.asarray(times, np.float64)
    if len(times) < 3 or (np.diff(times) <= 0).any():
        raise ValueError(f"times are {times.tolist()}; give at least 3 that increase")
    check_snr(process, np.union1d(times, np.linspace(times[0], times[-1], 101)))
    chart = basis(process, shape) if chart is None else chart
    x = Setting(process, chart, law(data, chart), times, key, draws)
    lyapunov = _lyapunov(x)
    rows = [_initial(x), _semigroup(x), *lyapunov, _invariant_law(x), *_invariances(x), _average_grey(x)]
    rows.append(_steady(x, lyapunov[1]))
    return PropertyReport(type(process).__name__, [row._replace(expected=expected(process, row.name)) for row in rows])
