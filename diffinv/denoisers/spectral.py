r"""Networks under processes that act on cosine coefficients: the exact denoiser of a Gaussian field, and what is added.

With `V` the orthonormal cosines of rows, columns and colours, `z = V x`, and a field of mean m and variances v,

    E[z_0 | z_t] = m + alpha v (z_t - alpha m) / w^2 + sigma sqrt(v) / w  V F,    w^2 = alpha^2 v + sigma^2,

per coefficient, where the network `F(pictures, t)` sees pixels and its output is measured in posterior deviations.
F = 0 is Wiener's filter, so that nothing is divided by an alpha that a blur has made 0. The field is also where
samplers start: heat dissipation does not end in noise.

Original: EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, table 1) per coefficient, to which it falls back
where v = sigma_data^2 and m = 0 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.fft import dct

from diffinv.charts import Chart
from diffinv.checks import require_choice
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.describe import Described
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.typing import Array, Key, Time

GREY_STEP = (2 / 255) ** 2 / 12  # the variance of rounding to 8 bits


def _matrix(size: int, dtype: Any) -> Array:
    """The orthonormal DCT-II of (size,): on small sides a product by it is faster than a Fourier transform."""
    return jnp.asarray(dct(np.eye(size), axis=0, norm="ortho"), dtype)


def _cosines(x: Array) -> Array:
    for size in x.shape:  # each product moves the next axis to the front
        x = jnp.tensordot(x, _matrix(size, x.dtype), ((0,), (1,)), precision="highest")
    return x


def _pictures(z: Array) -> Array:
    for size in z.shape:
        z = jnp.tensordot(z, _matrix(size, z.dtype), ((0,), (0,)), precision="highest")
    return z


def cosines(shape: tuple[int, ...]) -> Chart:
    """Orthonormal cosine coefficients of (H, W, C) along all three axes; of RGB: grey, red - blue, green - magenta.

    A process that is diagonal in `charts.dct` is so here; of one channel they are the same.
    """
    return Chart(_cosines, _pictures, tuple(shape), True)


def field(process: Process, pictures: Array, chart: Chart | None = None) -> GaussianDenoiser:
    """The Gaussian field in `cosines` with the means and variances of `pictures` (N, H, W, C) in [-1, 1].

    Variances are at least that of rounding to 8 bits. `chart` as in `SpectralDenoiser`.
    """
    codes = jax.vmap(_cosines if chart is None else chart.encode)(pictures)
    return GaussianDenoiser(process, jnp.mean(codes, 0), jnp.maximum(jnp.var(codes, 0), GREY_STEP))


@struct.dataclass
class SpectralDenoiser(Described):
    """A network `apply(params, pictures, t, **given) -> F` as the denoiser of the module's head, in `cosines`.

    It sees, as channels, `V^T (z_t - alpha m) / w`, whose coefficients have unit variance under the field, and the
    noisy picture `V^T z_t` over its root mean square: (H, W, 2 C) in all.

    Attributes:
      params: of the network.
      law: the field, with the process.
      apply: the network; static.
      extra: conditions passed to `apply` by name.
      chart: orthonormal coefficients in which the process is diagonal, in the place of `cosines`; static.
    """

    params: Any
    law: GaussianDenoiser
    apply: Callable[..., Array] = struct.field(pytree_node=False)
    extra: dict[str, Any] = struct.field(default_factory=dict)
    chart: Chart | None = struct.field(pytree_node=False, default=None)

    @property
    def codes(self) -> Chart:
        """The coefficients of the process."""
        return cosines(self.law.mean.shape) if self.chart is None else self.chart

    def given(self, **condition: Any) -> SpectralDenoiser:
        """The same network under `condition`."""
        return replace(self, extra={**self.extra, **condition})

    def __call__(self, z: Array, t: Time) -> Array:
        process, m, v = self.law.process, self.law.mean, self.law.variance
        alpha, sigma = process.alpha(t), process.sigma(t)
        w = jnp.sqrt(alpha**2 * v + sigma**2)
        size = jnp.sqrt(jnp.mean((alpha * m) ** 2 + w**2))
        decode = self.codes.decode
        seen = jnp.concatenate([decode((z - alpha * m) / w), decode(z) / size], -1)
        out = self.apply(self.params, seen, jnp.asarray(t, z.dtype), **self.extra).astype(z.dtype)
        return self.law(z, t) + sigma * jnp.sqrt(v) / w * self.codes.encode(out)


def denoiser(
    variables: Any, process: Process, apply: Callable[..., Array], chart: Chart | None = None
) -> SpectralDenoiser:
    """The denoiser of a network and its field, as training keeps them.

    Args:
      variables: of the network, with the field beside them: `variables["field"] = {"mean", "variance"}`, which is a
        constant to the gradient.
      process: the forward process.
      apply: `(params, pictures, t, **given) -> F`.
      chart: as in `SpectralDenoiser`.
    """
    law = GaussianDenoiser(process, **jax.tree.map(jax.lax.stop_gradient, variables["field"]))
    params = {name: value for name, value in variables.items() if name != "field"}
    return SpectralDenoiser(params, law, apply, chart=chart)


def spectral_prior(denoiser: SpectralDenoiser) -> Prior:
    """The prior of a spectral denoiser over its codes; samplers start from its field, blurred and noised."""
    return Prior(denoiser.law.process, denoiser, denoiser.law.mean.shape, denoiser.law)


def _noise_weight(law: GaussianDenoiser, t: Time, step: float) -> Array:
    return (law.process.alpha(t) / law.process.sigma(t)) ** 2


def _posterior_weight(law: GaussianDenoiser, t: Time, step: float) -> Array:
    return _noise_weight(law, t, step) + 1 / law.variance


def _step_weight(law: GaussianDenoiser, t: Time, step: float) -> Array:
    s = jnp.maximum(t - step, 0.0)
    return (law.process.alpha(s) / law.process.sigma(t)) ** 2


WEIGHTINGS = {"posterior": _posterior_weight, "noise": _noise_weight, "step": _step_weight}


def spectral_error(
    key: Key, denoise: SpectralDenoiser, image: Array, t: Time, weighting: str = "posterior", step: float = 0.01
) -> Array:
    """The weighted error of one picture (H, W, C) at one time, of which `spectral_loss` is the mean."""
    require_choice("weighting", weighting, WEIGHTINGS)
    z0 = denoise.codes.encode(image)
    z = denoise.law.process.perturb(z0, t).sample(key)
    return jnp.mean(WEIGHTINGS[weighting](denoise.law, t, step) * (denoise(z, t) - z0) ** 2)


def spectral_loss(
    model: Callable[[Any], SpectralDenoiser], weighting: str = "posterior", step: float = 0.01, first: float = 1e-3
) -> Callable[[Key, Any, Any], Array]:
    """`(key, params, batch) -> scalar`: the mean of `omega (z0_hat - z_0)^2` over pictures, coefficients and uniform t:

        "posterior"  omega = alpha_t^2 / sigma_t^2 + 1 / v     |F - its target|^2; 1 is a network that predicts nothing
        "noise"      omega = alpha_t^2 / sigma_t^2             |eps_hat - eps|^2, of blurring diffusion
        "step"       omega = alpha_s^2 / sigma_t^2             |u_hat - alpha_s z_0|^2 / delta^2, s = t - step, of IHD

    "posterior" teaches every coefficient at every time, so that a solver may ask for x_0 also where its alpha is 0. The
    other two teach only what the next step of their own sampler needs.

    Source: Hoogeboom & Salimans 2022, arXiv:2209.05557, algorithm 1 ("noise"); Rissanen et al. 2022, arXiv:2206.13397,
    eq. 9 ("step", with `step = 1 / K`); "posterior" is original, EDM's weight per coefficient.

    Args:
      model: `params -> SpectralDenoiser`. The loss takes pictures (N, H, W, C) in [-1, 1], or a dict of `image` and
        conditions like `label`, (N, ...) each.
      weighting: one of `WEIGHTINGS`; static.
      step: of "step"; static.
      first: the smallest time, above 0 where sigma(0) = 0.

    Raises ValueError for another weighting.
    """
    require_choice("weighting", weighting, WEIGHTINGS)

    def one(key: Key, params: Any, example: dict[str, Any]) -> Array:
        given = {name: value for name, value in example.items() if name != "image"}
        clock, noise = jax.random.split(key)
        t = jax.random.uniform(clock, (), example["image"].dtype, first, 1.0)
        return spectral_error(noise, model(params).given(**given), example["image"], t, weighting, step)

    def loss(key: Key, params: Any, batch: Any) -> Array:
        batch = batch if isinstance(batch, dict) else {"image": batch}
        keys = jax.random.split(key, len(batch["image"]))
        return jnp.mean(jax.vmap(one, (0, None, 0))(keys, params, batch))

    return loss
