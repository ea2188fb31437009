r"""One picture of a class, from noise or from a picture: the field's methods are values of one function.

    x_t ~ start(image),    x = sampler(guide(prior, label), x_t; t -> 0)

Where it starts (the prior, a noised picture, its inversion, between two inversions), how it is guided, and by which
sampler, are the fields of a `Recipe`; `diffinv.augmentation.recipes` has the named ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffinv import linalg, operators, posterior, samplers, times
from diffinv.describe import Described, described
from diffinv.loop import sample
from diffinv.measurement import GaussianNoise, Measurement
from diffinv.prior import Prior
from diffinv.process import Process
from diffinv.typing import Array, Cost, Key, Sample, Sampler, Scalar, Solution, Time


@described
class Example(NamedTuple):
    """What one picture is made from; what a recipe does not need may be None.

    Attributes:
      label: the class of the result, an int32 scalar.
      image: (H, W, C) in [-1, 1].
      other: a second one, for recipes between two pictures.
      mask: (H, W, 1), 1 where the picture may change, for masked edits.
    """

    label: Array
    image: Sample | None = None
    other: Sample | None = None
    mask: Array | None = None


Start = Callable[[Key, Prior, Example, Time], Sample]
"""`(key, prior, example, t) -> x_t`; the prior is the guided one."""
Guide = Callable[[Prior, Example], Prior]
Method = Callable[[Prior, Example], Sampler]


def from_prior(key: Key, prior: Prior, example: Example, t: Time) -> Sample:
    """Noise: the class alone decides."""
    return prior.start(key, t)


def from_noised(key: Key, prior: Prior, example: Example, t: Time) -> Sample:
    r"""A draw of `p(x_t | image)`: SDEdit, which keeps of the picture what its level `t` leaves.

    Under a Gaussian prior of covariance C, with exact denoising and the ODE, the law of the result is the prior's for
    every t, and along an eigenvector of variance c it is correlated with the picture by

        rho = alpha sqrt(c) / sqrt(alpha^2 c + sigma^2).

    Source: Meng et al. 2021, arXiv:2108.01073; the closed form is original.
    """
    return prior.process.perturb(_image(example, "from_noised"), t).sample(key)


def from_inverse(key: Key, prior: Prior, example: Example, t: Time, steps: int = 18) -> Sample:
    """The picture's own latent by the probability-flow ODE, `samplers.invert`: with no change of label it comes back.

    `steps` is static. Source: Song et al. 2021, arXiv:2011.13456, section 4.3; the first half of ReGuidance.
    """
    return samplers.invert(prior, _image(example, "from_inverse"), _upwards(prior.process, t, steps))


def from_between(key: Key, prior: Prior, example: Example, t: Time, steps: int = 18, around: bool = False) -> Sample:
    """Between the latents of two pictures, `slerp` at u ~ U(0, 1), or anywhere on the circle through both.

    Source: Wang & Chen 2024, arXiv:2408.16266 (Diff-II), of which we had the abstract alone: "circle interpolation" of
    inversions of two pictures of one class. `around` (static) draws u over the whole circle, `[0, 2 pi / angle]`.

    Raises ValueError where the example has no second picture. `steps` is static.
    """
    if example.other is None:
        raise ValueError("example.other is None; `from_between` needs a second picture of the class")
    grid = _upwards(prior.process, t, steps)
    a, b = (samplers.invert(prior, x, grid) for x in (_image(example, "from_between"), example.other))
    u = jax.random.uniform(key, (), a.dtype)
    return slerp(a, b, u * 2 * jnp.pi / _angle(a, b) if around else u)


def from_changed(start: Start, change: Callable[[Key, Sample], Sample]) -> Start:
    """The start from pictures that are changed at random first, each by itself, as their class allows.

    `change` is `(key, image) -> image`, static, such as `partial(data.augment, turn=True)`: so few pictures have more
    neighbourhoods, and a pair more latents between. Original.
    """

    def begin(key: Key, prior: Prior, example: Example, t: Time) -> Sample:
        first, second, rest = jax.random.split(key, 3)
        image = None if example.image is None else change(first, example.image)
        other = None if example.other is None else change(second, example.other)
        return start(rest, prior, example._replace(image=image, other=other), t)

    return begin


def _angle(a: Array, b: Array) -> Array:
    cosine = linalg.inner(a, b) / jnp.maximum(linalg.norm(a) * linalg.norm(b), jnp.finfo(a.dtype).tiny)
    return jnp.arccos(jnp.clip(cosine, -1, 1))


def slerp(a: Array, b: Array, u: Scalar) -> Array:
    r"""Spherical interpolation, `(sin((1 - u) w) a + sin(u w) b) / sin w`, w the angle between a and b.

    It is a at u = 0 and b at u = 1; straight where they are parallel. Source: Shoemake 1985, doi:10.1145/325165.325242.
    """
    w = _angle(a, b)
    straight = jnp.sin(w) < 1e-4
    sine = jnp.where(straight, 1.0, jnp.sin(w))
    left = jnp.where(straight, 1 - u, jnp.sin((1 - u) * w) / sine)
    right = jnp.where(straight, u, jnp.sin(u * w) / sine)
    return left * a + right * b


def _image(example: Example, start: str) -> Sample:
    if example.image is None:
        raise ValueError(f"example.image is None; `{start}` starts from a picture: give one, or start=from_prior")
    return example.image


def labelled(prior: Prior, example: Example) -> Prior:
    """The prior of the example's class."""
    return prior.given(label=example.label)


def unlabelled(null: int) -> Guide:
    """The prior told nothing, by the label `null`."""
    return lambda prior, example: prior.given(label=jnp.asarray(null, jnp.int32))


def free(weight: Scalar, null: int) -> Guide:
    """Classifier-free guidance of the class against the label `null`, `posterior.cfg`; 1 is `labelled`."""
    nothing = unlabelled(null)
    return lambda prior, example: posterior.cfg(labelled(prior, example), nothing(prior, example), weight)


def against(weak: Prior, weight: Scalar) -> Guide:
    """Autoguidance by a weaker network of the same classes, `posterior.autoguidance`."""
    return lambda prior, example: posterior.autoguidance(labelled(prior, example), labelled(weak, example), weight)


@struct.dataclass
class Climbing(Described):
    """`x0 + scale sigma^2 / alpha grad_x R(x0(x))`: the prior whose score has the reward's gradient besides.

    Attributes:
      prior: the one that is guided.
      reward: `x0 -> R`, static.
      scale: dimensionless; 1 takes the reward for a log likelihood.
    """

    prior: Prior
    reward: Callable[[Array], Array] = struct.field(pytree_node=False)
    scale: Scalar

    def __call__(self, x: Array, t: Time) -> Array:
        def climbed(x: Array) -> tuple[Array, Array]:
            x0 = self.prior.denoise(x, t)
            return self.reward(x0), x0

        slope, x0 = jax.grad(climbed, has_aux=True)(x)
        process = self.prior.process
        return x0 + self.scale * process.sigma(t) ** 2 / process.alpha(t) * slope

    @property
    def cost(self) -> Cost:
        """One evaluation and its pullback."""
        return self.prior.cost.plus(vjps=self.prior.cost.nfe)


def rewarded(log_probabilities: Callable[[Array], Array], scale: Scalar = 1.0) -> Guide:
    """Classifier guidance at the denoised picture: the class's log probability is the reward.

    `log_probabilities` is `x0 -> (classes,)`, static. Source: Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 1;
    differs: its classifier sees the noisy picture, this one the denoised mean, as DPS's likelihood does.
    """

    def guide(prior: Prior, example: Example) -> Prior:
        told = labelled(prior, example)
        return replace(told, denoise=Climbing(told, lambda x0: log_probabilities(x0)[example.label], scale))

    return guide


def by(sampler: Callable[[Prior], Sampler]) -> Method:
    """An unconditional sampler, such as `samplers.heun`, or `samplers.renoise` of a consistency model."""
    return lambda prior, example: sampler(prior)


def within_mask(solver: Callable[[Prior, Measurement], Sampler]) -> Method:
    """A masked edit: what the mask does not free is a noiseless measurement, and any posterior sampler heeds it.

    Raises ValueError where the example has no mask or no picture.
    """

    def method(prior: Prior, example: Example) -> Sampler:
        if example.mask is None:
            raise ValueError("example.mask is None; a masked edit needs one, (H, W, 1), 1 where the picture may change")
        image = _image(example, "within_mask")
        operator = operators.inpainting(image.shape, 1 - example.mask)
        return solver(prior, Measurement(operator, operator(image), GaussianNoise(0.0)))

    return method


@described
class Recipe(NamedTuple):
    """How a picture is made.

    Attributes:
      start: `from_prior`, `from_noised`, `from_inverse`, `from_between`, or your own.
      sigma: the noise-to-signal ratio at which it starts, in units of the data; the process's last level at most.
      guide: `labelled`, `free(...)`, `against(...)`, `rewarded(...)`.
      method: `by(sampler)` or `within_mask(solver)`.
      steps: of the sampler; static.
    """

    start: Start = from_noised
    sigma: Scalar = 1.0
    guide: Guide = labelled
    method: Method = by(samplers.heun)
    steps: int = 18


FAR = 1000.0
"""A noise-to-signal ratio beyond which nothing is left of a picture."""


def ladder(process: Process, steps: int, sigma: Scalar, sigma_min: float = 0.002, rho: float = 7.0) -> Array:
    """Falling times from the noise-to-signal ratio `sigma` to `sigma_min`, then 0, spaced as `times.karras`.

    `steps` is static, `sigma` dynamic; for any isotropic process. From a ratio beyond the process's last, or beyond
    1000, the first time is 1.
    """
    last = jnp.minimum(jnp.exp(-0.5 * process.log_snr(jnp.ones(()))), FAR)
    sigma = jnp.asarray(sigma, last.dtype)
    high = jnp.minimum(sigma, last) ** (1 / rho)
    ramp = jnp.arange(steps, dtype=last.dtype) / max(steps - 1, 1)
    positive = times.from_sigma(process, (high + ramp * (sigma_min ** (1 / rho) - high)) ** rho)
    first = jnp.where(sigma >= last, 1.0, positive[0])
    return jnp.append(positive.at[0].set(first), jnp.zeros(1, positive.dtype))


def _upwards(process: Process, t: Time, steps: int) -> Array:
    """From the ladder's last positive time up to t."""
    grid = ladder(process, steps, jnp.exp(-0.5 * process.log_snr(t)))[:-1][::-1]
    return grid.at[-1].set(jnp.asarray(t, grid.dtype))


def generate(key: Key, prior: Prior, recipe: Recipe, example: Example, x: Sample | None = None) -> Solution:
    """One picture by a recipe; `vmap` over keys and examples. With x, a state at the recipe's level, it starts there.

    The one function of the field's methods, of which Wang et al. 2026, arXiv:2603.08364, tell as fine-tune, generate,
    utilise. Original in its form.
    """
    start_key, sample_key = jax.random.split(key)
    guided, grid = recipe.guide(prior, example), ladder(prior.process, recipe.steps, recipe.sigma)
    state = recipe.start(start_key, guided, example, grid[0]) if x is None else x
    return sample(sample_key, recipe.method(guided, example), grid, state)


def pasted(background: Sample, defect: Sample, mask: Array) -> Sample:
    """`mask defect + (1 - mask) background`: an anomaly where the mask is 1; a low `from_noised` blends it in."""
    return mask * defect + (1 - mask) * background
