r"""Charts: geometry around a plain process. A method that runs in a chart's codes sees the picture's measurement.

Blurring is a plain process in the DCT; residual shifting is a plain one about the upsampled picture; a latent model is
a plain one in code space; a coarse stage is a plain one in coarse pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffinv import linalg
from diffinv.callables import by_value
from diffinv.describe import described
from diffinv.ends import require_noisy_end
from diffinv.measurement import GaussianNoise, Measurement, Noise
from diffinv.operators.base import LinearOperator, Operator
from diffinv.prior import Prior
from diffinv.process import require_isotropic
from diffinv.typing import Array, Key, Measured, Sample, Sampler, Solution, Solver, State, Time


@described
class Chart(NamedTuple):
    """Two maps between a picture and its code, of one sample.

    Attributes:
      encode: picture to code.
      decode: code to picture.
      shape: of a code; static.
      linear: whether `decode` is linear plus the constant `decode(0)`, which the chart promises.
    """

    encode: Callable[[Array], Array]
    decode: Callable[[Array], Array]
    shape: tuple[int, ...]
    linear: bool = False


def dct(shape: tuple[int, ...]) -> Chart:
    """Orthonormal DCT coefficients of (H, W, C). Original; see `process.Blurring`."""
    return Chart(linalg.dct_hw, linalg.idct_hw, tuple(shape), True)


def shift(y: Array) -> Chart:
    """The difference to `y` (H, W, C), as ResShift and CTMSR diffuse it.

    Source: Yue et al. 2023, arXiv:2307.12348, eq. 1.
    """
    return Chart(lambda x: x - y, lambda code: code + y, tuple(y.shape), True)


def upsample(shape: tuple[int, ...], factor: int) -> Chart:
    """Coarse pixels: a code (H/f, W/f, C) decodes to blocks of constant value; `encode` averages blocks.

    Original. `shape` is the fine picture's, static, as is `factor`. Raises ValueError where it does not divide.
    """
    height, width, channels = shape
    if height % factor or width % factor:
        raise ValueError(f"factor is {factor}; it must divide {height} and {width}: crop the picture or change it")
    coarse = (height // factor, width // factor, channels)
    encode, decode = by_value(partial(_averaged, factor)), by_value(partial(_repeated, factor))
    return Chart(encode, decode, coarse, True)


def _averaged(factor: int, x: Array) -> Array:
    height, width, channels = x.shape
    return x.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))


def _repeated(factor: int, code: Array) -> Array:
    return jnp.repeat(jnp.repeat(code, factor, 0), factor, 1)


def latent(encode: Callable[[Array], Array], decode: Callable[[Array], Array], shape: tuple[int, ...]) -> Chart:
    """An autoencoder's codes of `shape` (static). Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1."""
    return Chart(by_value(encode), by_value(decode), tuple(shape))


def generated(prior: Prior) -> Chart:
    """A one-step generator as decoder: a code `z ~ N(0, I)`, of a picture's shape, becomes `denoise(sigma_1 z, 1)`.

    For priors whose `renoise` in one step, `[1, 0]`, gives a sample: consistency models. Over the codes the prior is
    exact, `Prior(process, GaussianDenoiser(process, 0, 1), shape)` under any process. Build it where it is used, inside
    `jit`: it holds the network. There is no encoder; methods start from codes.

    Source: Bora et al. 2017, arXiv:1703.03208, section 2 (measurements of a generator's output, seen from its codes).
    Raises ValueError where the process does not end in noise, or the prior brings a law to start from.
    """
    require_noisy_end(prior.process)
    if prior.law is not None:
        raise ValueError("prior has a law to start from, so its codes are not N(0, I); use the law's own samples")

    def decode(z: Array) -> Array:
        t = jnp.ones((), z.dtype)
        return prior.denoise(prior.process.sigma(t) * z, t)

    def encode(x: Array) -> Array:
        raise ValueError(f"a generator has no encoder for x of shape {x.shape}; use a method that only decodes")

    return Chart(encode, decode, prior.shape)


@struct.dataclass
class Decoded(Operator):
    """`A(decode(code))` for a decode that is not linear.

    Attributes:
      operator: `A`, on pictures.
      chart: where the codes live; static.
    """

    operator: Operator
    chart: Chart = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.chart.shape

    def __call__(self, x: Sample) -> Measured:
        return self.operator(self.chart.decode(x))

    def project(self, y: Measured) -> Measured:
        return self.operator.project(y)


@struct.dataclass
class LinearDecoded(LinearOperator):
    """`A(decode(code) - decode(0))` for a decode that is linear plus a constant.

    Attributes:
      operator: `A`, linear, on pictures.
      chart: where the codes live; static.
    """

    operator: LinearOperator
    chart: Chart = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.chart.shape

    def __call__(self, x: Sample) -> Measured:
        return self.operator(jax.jvp(self.chart.decode, (jnp.zeros_like(x),), (x,))[1])


@struct.dataclass
class Moved(Noise):
    """The law of `y - origin` given `clean - origin`.

    Attributes:
      law: of `y` given `clean`.
      origin: what both are moved by, of the shape of `y`.
    """

    law: Noise
    origin: Array

    @property
    def sigma(self) -> Array | float:
        """The law's own; AttributeError where it has none."""
        return self.law.sigma  # type: ignore[attr-defined]  # a law may have one

    def sample(self, key: Key, clean: Array) -> Array:
        return self.law.sample(key, clean + self.origin) - self.origin

    def log_likelihood(self, y: Array, clean: Array) -> Array:
        return self.law.log_likelihood(y + self.origin, clean + self.origin)


def pull_back(chart: Chart, measurement: Measurement) -> Measurement:
    """The measurement as seen from the chart's codes.

    The constant of a linear decode moves into `y`; the law of the noise moves with it, unless the law is Gaussian and
    the same everywhere.
    """
    if not (chart.linear and isinstance(measurement.operator, LinearOperator)):
        return replace(measurement, operator=Decoded(measurement.operator, chart))
    origin = measurement.operator(chart.decode(jnp.zeros(chart.shape, jnp.finfo(measurement.y.dtype).dtype)))
    noise = measurement.noise if isinstance(measurement.noise, GaussianNoise) else Moved(measurement.noise, origin)
    operator = LinearDecoded(measurement.operator, chart)
    return replace(measurement, operator=operator, y=measurement.y - origin, noise=noise)


def within(chart: Chart, method: Callable[[Measurement], Sampler]) -> Callable[[Measurement], Sampler]:
    """Runs `method` in the chart's codes.

    Its measurement is pulled back, a given start is encoded and its final sample decoded. A start at time t that has
    the shape of a code is taken as a noisy code. Original.
    """

    def charted(measurement: Measurement) -> Sampler:
        sampler = method(pull_back(chart, measurement))

        def init(key: Key, t: Time, x: Array | None) -> State:
            return sampler.init(key, t, x if x is None or tuple(x.shape) == chart.shape else chart.encode(x))

        return Sampler(init, sampler.step, lambda key, state: chart.decode(sampler.final(key, state)))

    return charted


def through(chart: Chart, solver: Solver) -> Solver:
    """Runs a whole solver (`reguidance`, `warm_start`) in the chart's codes.

    It is like `within`: the solver's sample is decoded, while the candidates and latents in its info stay codes.
    Original.
    """

    def charted(key: Key, measurement: Measurement, x: Array | None = None) -> Solution:
        start = x if x is None or tuple(x.shape) == chart.shape else chart.encode(x)
        solution = solver(key, pull_back(chart, measurement), start)
        return solution._replace(x=chart.decode(solution.x))

    return charted


def encoded(chart: Chart, prior: Prior) -> Prior:
    """A prior over pictures whose exact samples are known, seen from the codes of an orthonormal chart.

    `E[z_0 | z_t] = encode(E[x_0 | x_t])` holds for isotropic processes only. Original. Raises ValueError for others.
    """
    require_isotropic(prior.process, "charts.encoded", "a prior over the codes themselves, as spectral_prior")

    def denoise(prior: Prior, z: Array, t: Time) -> Array:
        return chart.encode(prior.denoise(chart.decode(z), t))

    return Prior(prior.process, jax.tree_util.Partial(denoise, prior), chart.shape)
