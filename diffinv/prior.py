r"""Priors: a process together with the denoiser `E[x_0 | x_t]`, exact or a network.

A network of any parametrisation becomes `(x, t) -> x_0` here and nowhere else; everything above sees only a denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffinv.describe import Described, described
from diffinv.ends import require_noisy_end, require_same
from diffinv.process import Process
from diffinv.typing import Array, Cost, Denoiser, Key, Sample, Time


@described
class Prediction(NamedTuple):
    """What a network says of `x_t`.

    Attributes:
      x0: the denoised mean.
      v: the share in [0, 1] of the log variance between the posterior's (0) and the forward kernel's (1), as ADM learns
        it; None where none is learned.
    """

    x0: Sample
    v: Sample | None


@struct.dataclass
class Prior(Described):
    """`p(x_0)` through a process and its denoiser.

    Attributes:
      process: the forward process.
      denoise: `(x, t) -> x0`, a callable pytree.
      shape: of one sample; static.
      law: of x_0, roughly: with `sample(key)`, to start from where a process does not end in noise; or None.

    Raises ValueError where the denoiser names another process: its noise levels would be those of other times.

    >>> import jax.numpy as jnp, diffinv as di
    >>> prior = di.gaussian(di.process.VP(), jnp.zeros(2), jnp.eye(2))
    >>> prior
    Prior(
      process=VP(),
      denoise=GaussianDenoiser(8 numbers in 3 arrays, float32),
      shape=(2,),
    )
    """

    process: Process
    denoise: Denoiser
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    law: Any = None

    def __post_init__(self) -> None:
        require_same(self.process, self.denoise)

    def predict(self, x: Sample, t: Time) -> Prediction:
        """`Prediction(x0, v)`; `v` is None where the denoiser learns no variance."""
        predict = getattr(self.denoise, "predict", None)
        return predict(x, t) if predict else Prediction(self.denoise(x, t), None)

    @property
    def cost(self) -> Cost:
        """Of one call of `denoise`; a guided denoiser says its own."""
        return getattr(self.denoise, "cost", Cost())

    def given(self, **condition: Any) -> Prior:
        """The conditional prior `p(x_0 | condition)`; the arguments reach the network's `apply` by name."""
        if not hasattr(self.denoise, "given"):
            raise TypeError(f"denoiser {type(self.denoise).__name__} takes no condition; use a NetworkDenoiser")
        return replace(self, denoise=self.denoise.given(**condition))

    def start(self, key: Key, t: Time = 1.0) -> Sample:
        """A draw of `x_t` at the noisy end, in the dtype of `t`.

        It is `N(0, sigma_t^2)`, which is exact in the limit `alpha_t -> 0`; where the prior has a `law`, it is
        `alpha_t` times a draw of the law, plus that noise. Raises ValueError where the process does not end in noise
        and there is no law: see `ends.require_noisy_end`.
        """
        if self.law is not None:
            draw, noise = jax.random.split(key)
            return self.process.perturb(self.law.sample(draw), t).sample(noise)
        require_noisy_end(self.process)
        sigma = self.process.sigma(t)
        return sigma * jax.random.normal(key, self.shape, sigma.dtype)


def ddpm_index(process: Process, t: Time) -> Array:
    """The index that a 1000-step DDPM network was trained with: `1000 t - 1` (index k - 1 at time k/1000)."""
    return 1000.0 * jnp.asarray(t) - 1.0


def unit_time(process: Process, t: Time) -> Array:
    """The time itself."""
    return jnp.asarray(t)


def _from_eps(process: Process, x: Array, t: Time, out: Array) -> Array:
    return (x - process.sigma(t) * out) / process.alpha(t)


def _from_v(process: Process, x: Array, t: Time, out: Array) -> Array:
    alpha, sigma = process.alpha(t), process.sigma(t)
    return (alpha * x - sigma * out) / (alpha**2 + sigma**2)


def _from_score(process: Process, x: Array, t: Time, out: Array) -> Array:
    return (x + process.sigma(t) ** 2 * out) / process.alpha(t)


def _from_velocity(process: Process, x: Array, t: Time, out: Array) -> Array:
    alpha_rate, sigma_rate = process.rates(t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    return (sigma_rate * x - sigma * out) / (alpha * sigma_rate - alpha_rate * sigma)


PARAMETRISATIONS: dict[str, Callable[[Process, Array, Time, Array], Array]] = {
    "eps": _from_eps,  # Ho et al. 2020
    "v": _from_v,  # Salimans & Ho 2022, v = alpha eps - sigma x0
    "x0": lambda process, x, t, out: out,
    "score": _from_score,  # Song et al. 2021
    "velocity": _from_velocity,  # dx/dt of the process itself; eps - x0 for Flow
}
PRECONDITIONED = ("edm", "boundary")
"""Parametrisations of networks that see a scaled picture and its noise level, whatever the process."""


@struct.dataclass
class NetworkDenoiser(Described):
    """A network `apply(params, x, condition, **given)` as a denoiser; the one seam between Flax and diffinv.

    For `parametrisation = "edm"` the network is preconditioned (Karras et al. 2022, arXiv:2206.00364, table 1), for any
    process through `r = sigma_t / alpha_t`, written without division by alpha:

        x_0 = (s^2 alpha x + sigma s w F(x / w, log(r) / 4)) / w^2,   w^2 = sigma^2 + alpha^2 s^2,   s = sigma_data,

    with `r` clipped to `bounds`, the noise levels that the network was trained on. A "boundary" network is the identity
    from the least of these on, as consistency models are (Song et al. 2023, arXiv:2303.01469, appendix C): with
    `m = max(sigma - bounds[0] alpha, 0)`,

        x_0 = s^2 alpha x / (m^2 + alpha^2 s^2) + m s F(x / w, log(r) / 4) / w.

    The others are those of `PARAMETRISATIONS`; the network is told `condition(process, t)`. No x0 follows from "eps"
    and "score" where alpha is 0, so these are asked at `process.alive(t)`.

    Attributes:
      params: the network's parameters, a pytree.
      process: the forward process it is used under.
      apply: `(params, x, condition, **given) -> F`; static.
      parametrisation: "edm", "boundary", "eps", "v", "x0", "score" or "velocity"; static.
      condition: `(process, t) -> scalar`; static; unused for "edm" and "boundary".
      learned_variance: the last half of the output channels is ADM's variance share; static.
      clip: clamp x0 to [-1, 1], with gradient 0 where it clips; static.
      sigma_data: the data's standard deviation for these two, in units of the data.
      bounds: the least and the greatest noise-to-signal ratio for these two, in units of the data.
      extra: conditions passed to `apply` by name.

    Raises ValueError for an unknown parametrisation.

    >>> import jax.numpy as jnp, diffinv as di
    >>> network = lambda params, x, condition: params["gain"] * x  # of noise, as DDPM's
    >>> denoise = di.NetworkDenoiser({"gain": jnp.asarray(0.5)}, di.process.VP(), network, parametrisation="eps")
    >>> denoise(jnp.ones(2), 0.5).shape
    (2,)
    """

    params: Any
    process: Process
    apply: Callable[..., Array] = struct.field(pytree_node=False)
    parametrisation: str = struct.field(pytree_node=False, default="edm")
    condition: Callable[[Process, Time], Array] = struct.field(pytree_node=False, default=ddpm_index)
    learned_variance: bool = struct.field(pytree_node=False, default=False)
    clip: bool = struct.field(pytree_node=False, default=False)
    sigma_data: float = 0.5
    bounds: tuple[float, float] = (0.002, 80.0)
    extra: dict[str, Any] = struct.field(default_factory=dict)

    def given(self, **condition: Any) -> NetworkDenoiser:
        """The same network under `condition`."""
        return replace(self, extra={**self.extra, **condition})

    def __call__(self, x: Sample, t: Time) -> Sample:
        return self.predict(x, t).x0

    def predict(self, x: Sample, t: Time) -> Prediction:
        """`Prediction(x0, v)`."""
        x0, v = self._preconditioned(x, t) if self.parametrisation in PRECONDITIONED else self._plain(x, t)
        return Prediction(jnp.clip(x0, -1, 1) if self.clip else x0, v)

    def _split(self, out: Array) -> tuple[Array, Array | None]:
        if not self.learned_variance:
            return out, None
        mean, v = jnp.split(out, 2, axis=-1)
        return mean, 0.5 * (v + 1)

    def _plain(self, x: Array, t: Time) -> tuple[Array, Array | None]:
        if self.parametrisation not in PARAMETRISATIONS:
            known = ", ".join([*PRECONDITIONED, *PARAMETRISATIONS])
            raise ValueError(f"parametrisation is {self.parametrisation!r}; choose one of {known}")
        if self.parametrisation in ("eps", "score"):
            t = self.process.alive(t)
        out = self.apply(self.params, x, self.condition(self.process, t), **self.extra)
        out, v = self._split(out.astype(x.dtype))
        return PARAMETRISATIONS[self.parametrisation](self.process, x, t, out), v

    def _preconditioned(self, x: Array, t: Time) -> tuple[Array, Array | None]:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        low, high = self.bounds
        log_r = jnp.clip(-0.5 * self.process.log_snr(t), jnp.log(low), jnp.log(high))
        weight = jnp.sqrt(sigma**2 + (alpha * self.sigma_data) ** 2)
        out, v = self._split(self.apply(self.params, x / weight, log_r / 4, **self.extra).astype(x.dtype))
        if self.parametrisation == "edm":
            return self.sigma_data**2 * alpha / weight**2 * x + sigma * self.sigma_data / weight * out, v
        beyond = jnp.maximum(sigma - low * alpha, 0)
        skip = self.sigma_data**2 * alpha / (beyond**2 + (alpha * self.sigma_data) ** 2)
        return skip * x + beyond * self.sigma_data / weight * out, v
