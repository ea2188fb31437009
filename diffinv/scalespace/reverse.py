"""The reverse side: whether a denoiser, and the trajectories it makes, are those of the scale-space run backwards.

Denoisers are `(x, t) -> E[x_0 | x_t]` of one example under an isotropic process. Every estimate comes with its
interval, and one from too few data gives no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import linalg
from diffinv.describe import described
from diffinv.loop import sample
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.scalespace.laws import Mixture
from diffinv.typing import Array, Denoiser, Key, Time

FEW = 20


@described
class Band(NamedTuple):
    """A two-sample statistic.

    Attributes:
      value: of the statistic.
      level: that equal laws reach in 1 of 20 permutations.
      verdict: what follows from both.
    """

    value: float
    level: float
    verdict: str


def mmd2(kernel: np.ndarray, count: int) -> float:
    """Unbiased squared MMD of the first `count` rows of a joint kernel matrix against the rest.

    Source: Gretton et al. 2012, JMLR 13, eq. 3.
    """
    a, b, cross = kernel[:count, :count], kernel[count:, count:], kernel[:count, count:]
    within = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    return float(within(a) + within(b) - 2 * cross.mean())


def sliced_w2(projected: np.ndarray, count: int) -> float:
    """Sliced 2-Wasserstein distance of the first rows against the rest, (count + count, directions) projections.

    Source: Bonneel et al. 2015, J. Math. Imaging Vis. 51, eq. 7, over the given directions.
    """
    a, b = np.sort(projected[:count], 0), np.sort(projected[count:], 0)
    return float(np.sqrt(np.mean((a - b) ** 2)))


def _band(statistic: Callable[[np.ndarray], float], key: Key, size: int, permutations: int) -> Band:
    """The statistic of the rows in order, and its 95 % level over random orders."""
    orders = [np.asarray(jax.random.permutation(k, size)) for k in jax.random.split(key, permutations)]
    value, level = statistic(np.arange(size)), float(np.quantile([statistic(order) for order in orders], 0.95))
    verdict = "undecided" if size < 2 * FEW else "holds" if value <= level else "fails"
    return Band(value, level, verdict)


def matching(
    key: Key, forward: Array, reverse: Array, permutations: int = 200, directions: int = 128
) -> dict[str, Band]:
    """Marginal matching at one time: whether forward samples and reverse samples (M, ...) have the same law.

    The statistics are "mmd2" under a Gaussian kernel of the median distance and "sliced_w2" over random directions,
    each with the 95 % level of a permutation test. With fewer than 20 samples on either side there is no verdict. Runs
    on the host.

    The combination is original. Source: Gretton et al. 2012, section 5 (permutation test).
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (forward, reverse))
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"forward is {a.shape} and reverse is {b.shape}; give equally many samples of one size, >= 2")
    rows = np.concatenate([a, b])
    square = np.sum(rows**2, 1)
    distance = np.maximum(square[:, None] + square - 2 * rows @ rows.T, 0)
    kernel = np.exp(-distance / np.median(distance[distance > 0]))
    draw, order = jax.random.split(key)
    axes = np.asarray(jax.random.normal(draw, (rows.shape[1], directions)), np.float64)
    projected = rows @ (axes / np.linalg.norm(axes, axis=0))
    statistics = {
        "mmd2": lambda i: mmd2(kernel[np.ix_(i, i)], len(a)),
        "sliced_w2": lambda i: sliced_w2(projected[i], len(a)),
    }
    return {name: _band(f, order, len(rows), permutations) for name, f in statistics.items()}


def trapezoid(levels: Array, errors: Array) -> Array:
    """`1/2 int mmse d snr` over log-spaced increasing `levels`, and the part below the first at its value."""
    inner = jnp.sum(0.5 * (levels[1:] * errors[1:] + levels[:-1] * errors[:-1]) * jnp.diff(jnp.log(levels)))
    return 0.5 * (levels[0] * errors[0] + inner)


def finite_mmse(key: Key, data: Array, levels: Array, labels: Array | None = None, passes: int = 1) -> Array:
    r"""`mmse(snr) = E|x_0 - E[x_0 | sqrt(snr) x_0 + eps]|^2` of a finite data set at `levels` (L,), by matrix products.

    Every datum is noised `passes` (static) times at each level. With `labels` (N,) it is mmse(snr | c): the posterior
    of a class-conditional denoiser, over the data of the datum's own class. Source: Guo, Shamai, Verdu 2005, eq. 1.
    """
    flat = data.reshape(len(data), -1)
    law = Mixture(flat, jnp.full(len(flat), -math.log(len(flat)), flat.dtype))
    same = None if labels is None else jnp.where(labels[:, None] == labels[None], 0.0, -jnp.inf).astype(flat.dtype)
    one = jnp.ones(flat.shape[1], flat.dtype)

    def one_pass(k: Key, level: Array) -> Array:
        z = jnp.sqrt(level) * flat + jax.random.normal(k, flat.shape, flat.dtype)
        scores = law.log_joint(z, jnp.sqrt(level) * one, one)
        weights = jax.nn.softmax(scores if same is None else scores + same, axis=1)
        return jnp.mean(jnp.sum((flat - jnp.matmul(weights, flat, precision="highest")) ** 2, 1))

    keys = jax.random.split(key, (len(levels), passes))
    return jax.lax.map(lambda now: jnp.mean(jax.lax.map(lambda k: one_pass(k, now[1]), now[0])), (keys, levels))


def denoiser_mse(key: Key, process: Process, denoise: Denoiser, data: Array, times: Array) -> Array:
    """(T, N) squared errors `|x_0 - D(x_t, t)|^2` of each datum at each time; the noise of a datum is one at all times.

    Their mean at time t bounds mmse(snr_t) from above. Original.
    """
    noise = jax.random.normal(key, data.shape, data.dtype)

    def error(x0: Array, eps: Array, t: Array) -> Array:
        x = process.perturb(x0, t).at(eps)
        return jnp.sum((x0 - denoise(x, t)) ** 2)

    return jax.lax.map(lambda t: jax.vmap(error, (0, 0, None))(data, noise, t), times)


@described
class Excess(NamedTuple):
    """By how much the I-MMSE integral exceeds the entropy of the data, in nats.

    Attributes:
      integral: of 1/2 mse d snr.
      entropy: ln N, of N data.
      excess: their difference.
    """

    integral: Array
    entropy: float
    excess: Array


def immse(levels: Array, errors: Array, count: int) -> Excess:
    r"""The I-MMSE identity `1/2 int_0^inf mmse d snr = H(x_0) = ln N` for a finite data set of `count` distinct
    members.

    For a trained denoiser `errors >= mmse`, so the excess is what it loses, in nats, over the range of `levels`.

    Source: Guo, Shamai, Verdu 2005, IEEE Trans. Inf. Theory 51, eq. 4; Kong et al. 2023, arXiv:2302.03792, for
    diffusion.
    """
    integral = trapezoid(levels, errors)
    return Excess(integral, math.log(count), integral - math.log(count))


def differential_entropy(levels: Array, errors: Array, size: int) -> Array:
    r"""`h(x_0) <= n/2 ln(2 pi e) - 1/2 int (n / (1 + snr) - mse) d snr`, nats: a bound on held-out data's code length.

    Exact for the law's own denoiser; `levels` (L,) log-spaced until mse is the noise's n / snr, `size` n.
    Source: Kong et al. 2023, arXiv:2302.03792, eq. 6.
    """
    gained = trapezoid(levels, size / (1 + levels) - errors)
    return 0.5 * size * (math.log(2 * math.pi) + 1) - gained


def label_information(levels: Array, errors: Array, conditional: Array) -> Array:
    r"""The MMSE gap `1/2 int (mmse - mmse(. | c)) d snr = I(x_0; c)`, which is H(c) where the picture tells its label.

    What a class-conditional denoiser makes of its label, in nats. Source: Guo, Shamai, Verdu 2005, eq. 4, twice.
    """
    return trapezoid(levels, errors - conditional)


def semigroup_error(flow: Callable[[Array, Time, Time], Array], x: Array, t: Time, s: Time, end: Time = 0.0) -> Array:
    r"""`|F(F(x, t, s), s, end) - F(x, t, end)| / |F(x, t, end)|`, dimensionless.

    For the flow of the probability-flow ODE it is the solver's error, and falls at its order; for a consistency model's
    `F(x, t, 0) = f(x, t)` after an ODE step it is its self-consistency, which consistency training makes small.
    Original.
    """
    direct = flow(x, t, end)
    return linalg.norm(flow(flow(x, t, s), s, end) - direct) / linalg.norm(direct)


def equivariance_error(denoise: Denoiser, x: Array, t: Time, element: Callable[[Array], Array]) -> Array:
    """`|D(g x, t) - g D(x, t)| / |D(x, t)|` for a map g of the grid: 0 where law and network have its symmetry.

    Original; with g a permutation it is `|g^-1 D(g x) - D(x)| / |D(x)|`. Dimensionless.
    """
    clean = denoise(x, t)
    return linalg.norm(denoise(element(x), t) - element(clean)) / linalg.norm(clean)


def reverse_conditional_entropy(process: Process, t: Time, s: Time, shape: tuple[int, ...]) -> Array:
    """`h(x_s | x_t, x_0) = n/2 ln(2 pi e) + sum ln c` of an ancestral step from t to s > 0, nats. Original."""
    c = jnp.broadcast_to(process.transition(jnp.zeros(shape), jnp.zeros(shape), t, s).std, shape)
    return jnp.sum(jnp.log(c) + 0.5 * (math.log(2 * math.pi) + 1))


@described
class Memory(NamedTuple):
    """Errors of a denoiser on its training data and on held-out data, at one time.

    Attributes:
      train: mean error on the training data.
      held_out: mean error on the held-out data.
      difference: of the two.
      error: standard error of the difference.
      verdict: what follows.
    """

    train: float
    held_out: float
    difference: float
    error: float
    verdict: str


def memorisation(train: Array, held_out: Array) -> list[Memory]:
    """Per time: whether the error on training data is below that on held-out data, by more than three standard errors.

    The verdict is "memorises", "generalises", or "undecided" for fewer than 20 data on either side and for a wide
    interval. Original. Runs on the host.

    Args: squared errors (T, N) and (T, M), as `denoiser_mse` gives them.
    """
    rows = []
    for a, b in zip(np.asarray(train, np.float64), np.asarray(held_out, np.float64)):
        difference, error = (
            b.mean() - a.mean(),
            math.hypot(a.std(ddof=1) / len(a) ** 0.5, b.std(ddof=1) / len(b) ** 0.5),
        )
        verdict = (
            "memorises" if difference > 3 * error else "generalises" if 3 * error < 0.25 * b.mean() else "undecided"
        )
        rows.append(
            Memory(a.mean(), b.mean(), difference, error, "undecided" if min(len(a), len(b)) < FEW else verdict)
        )
    return rows


def ode_flow(prior: Prior, method: Callable, steps: int) -> Callable[[Array, Time, Time], Array]:
    """The probability-flow map `(x, t, s) -> x_s` by `steps` (static) even steps of `method`. Original."""

    def flow(x: Array, t: Time, s: Time) -> Array:
        times = t + (s - t) * jnp.linspace(0.0, 1.0, steps + 1).astype(x.dtype)
        return sample(jax.random.key(0), method(prior), times, x).x

    return flow
