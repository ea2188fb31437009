r"""The field's named methods, each as what is fine-tuned, how pictures are generated, and how they are used.

A `Plan` is a paper in three words. Its published defaults are those of Stable Diffusion at 512 pixels: their strengths
are shares of that model's noise schedule, which `noise_of` turns into noise-to-signal ratios for data of any deviation.
DiffuseMix (arXiv:2405.14881), whose recipe is patented, is not among them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffinv.augmentation.finetuning import Learnt, adapters, embeddings, everything, together
from diffinv.augmentation.generation import (
    Example,
    Guide,
    Recipe,
    free,
    from_between,
    from_inverse,
    from_noised,
    from_prior,
    labelled,
)
from diffinv.describe import described
from diffinv.prior import Prior
from diffinv.process import VP
from diffinv.typing import Array, Key, Sample, Scalar, Time

Learns = Callable[[tuple[int, ...]], Learnt | None]
"""By the labels that are new, what is fine-tuned; None for nothing."""


def nothing(labels: tuple[int, ...]) -> None:
    """The prior as it is."""


def all_weights(labels: tuple[int, ...]) -> Learnt:
    """`everything`, whatever the labels."""
    return everything()


def words_and_adapters(labels: tuple[int, ...]) -> Learnt:
    """The labels' embeddings, and adapters of rank 4."""
    return together(embeddings(labels), adapters())


@described
class Plan(NamedTuple):
    """A method of augmentation.

    Attributes:
      learns: what is fine-tuned: `nothing`, `embeddings`, `words_and_adapters`, `all_weights`, or your own.
      recipes: by which pictures are made; each draw takes one of them at random.
      probability: of a made picture, where one is drawn for a training batch.
      foreign: pictures start from another class's.
      pairs: pictures start from two of their class.
    """

    learns: Learns
    recipes: tuple[Recipe, ...]
    probability: float = 0.5
    foreign: bool = False
    pairs: bool = False


def noise_of(strength: float, sigma_data: float = 0.5) -> float:
    r"""The noise-to-signal ratio at which a share `strength` of a variance-preserving schedule starts.

        sigma_data sigma_t / alpha_t  at t = strength,    VP with linear betas

    Published strengths are shares of the steps of a schedule over codes of deviation 1. Original; the schedule is the
    linear one of Song et al. 2021, arXiv:2011.13456, not Stable Diffusion's own. Raises ValueError for a strength that
    is not above 0 and at most 1.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}; give a number above 0, at most 1")
    with jax.ensure_compile_time_eval():
        return float(sigma_data * jnp.exp(-0.5 * VP().log_snr(jnp.asarray(strength))))


def class_sampling(guide: Guide = labelled, learns: Learns = all_weights, steps: int = 18) -> Plan:
    """Pictures of a class out of noise, under a network that was fine-tuned whole. Source: Azizi et al. 2023,
    arXiv:2304.08466."""
    return Plan(learns, (Recipe(from_prior, jnp.inf, guide, steps=steps),))


def sdedit(sigma: Scalar, guide: Guide = labelled, learns: Learns = nothing, steps: int = 18) -> Plan:
    """Noised pictures of the class, denoised: Real Guidance. Source: Meng et al. 2021, arXiv:2108.01073; as
    augmentation, He et al. 2022, arXiv:2210.07574."""
    return Plan(learns, (Recipe(from_noised, sigma, guide, steps=steps),))


def da_fusion(
    null: int, sigma_data: float = 0.5, strengths: tuple[float, ...] = (1, 0.75, 0.5, 0.25), weight: Scalar = 7.5,
    steps: int = 18,
) -> Plan:  # fmt: skip
    """Learnt words, SDEdit at several strengths, guidance 7.5. Source: Trabucco et al. 2023, arXiv:2302.07944, and
    their code ea784ad: strengths stacked 1, 0.75, 0.5, 0.25; 10 pictures of each real one; probability 0.5.

    `null` is the label that says nothing.
    """
    at = lambda strength: Recipe(from_noised, noise_of(strength, sigma_data), free(weight, null), steps=steps)
    return Plan(embeddings, tuple(map(at, strengths)), probability=0.5)


def diff_mix(sigma: Scalar, guide: Guide = labelled, steps: int = 18) -> Plan:
    """Pictures of one class made into another's, under learnt words and adapters; their labels are mixed, see
    `mixed_label`. Source: Wang et al. 2024, arXiv:2403.19600."""
    return Plan(words_and_adapters, (Recipe(from_noised, sigma, guide, steps=steps),), foreign=True)


def diff_ii(guide: Guide = labelled, sigma: Scalar = jnp.inf, around: bool = True, steps: int = 18) -> Plan:
    """Learnt words, inversions of two pictures of a class, a point of the circle through both. Source: Wang & Chen
    2024, arXiv:2408.16266, abstract; its second stage, suffixes of the prompt, has no meaning for classes."""
    start = partial(from_between, steps=steps, around=around)
    return Plan(embeddings, (Recipe(start, sigma, guide, steps=steps),), pairs=True)


def inversion(guide: Guide = labelled, sigma: Scalar = jnp.inf, steps: int = 18) -> Plan:
    """A picture's own latent, denoised as another class or under guidance. Original in this form."""
    return Plan(embeddings, (Recipe(partial(from_inverse, steps=steps), sigma, guide, steps=steps),), foreign=True)


@described
class Expansion(NamedTuple):
    """What `expanded` gives.

    Attributes:
      x: states at the recipe's level, (count, *shape).
      score: S before and after the step, (2,).
    """

    x: Array
    score: Array


def expanded(
    key: Key,
    prior: Prior,
    example: Example,
    t: Time,
    log_probabilities: Callable[[Sample], Array],
    count: int = 5,
    step: Scalar = 0.1,
    bound: Scalar = 0.8,
) -> Expansion:
    r"""GIF's starts: one picture's noised state, scaled and moved `count` times, one signed step up a reward.

        x_i = clip((1 + z_i) x + b_i),    (z, b) <- (z, b) + step sign grad S
        S = mean_i [p_i(c) + H(p_i) - H(p)] + mean_i KL(p_i || mean_j p_j)

    where p is the classifier of the picture, c the class that it takes it for, p_i that of the denoised x_i, H the
    entropy, and `clip` keeps x_i within `bound` of x. Each is then finished by `generate(..., x=x_i)`.

    Source: Zhang et al. 2023, arXiv:2211.13976, section 3, and their code 554e608 (its CIFAR settings: one step of 0.1,
    bound 0.8). Before the step z ~ U(0, 1) and b ~ N(0, 1), which are ours, so that nothing here compares with their
    numbers. `count` is static.

    Raises ValueError for an example without a picture.
    """
    noise, shift = jax.random.split(key)
    x, shape = from_noised(noise, prior, example, t), (count, *prior.shape)
    start = jax.random.uniform(shift, shape, x.dtype), jax.random.normal(jax.random.fold_in(shift, 1), shape, x.dtype)
    known = jnp.exp(log_probabilities(jnp.asarray(example.image)))
    place = lambda pair: x[None] + jnp.clip(pair[0] * x[None] + pair[1], -bound, bound)

    def score(pair: tuple[Array, Array]) -> Array:
        told = jax.vmap(lambda state: log_probabilities(prior.denoise(state, t)))(place(pair))
        return _informative(told, known) + _diverse(told)

    before, slope = jax.value_and_grad(score)(start)
    moved = jax.tree.map(lambda value, each: value + step * jnp.sign(each), start, slope)
    return Expansion(place(moved), jnp.stack([before, score(moved)]))


def _entropy(p: Array) -> Array:
    return -jnp.sum(jax.scipy.special.xlogy(p, p), -1)


def _informative(told: Array, known: Array) -> Array:
    p = jnp.exp(told)
    return jnp.mean(p[:, jnp.argmax(known)] + _entropy(p) - _entropy(known))


def _diverse(told: Array) -> Array:
    p = jnp.exp(told)
    return jnp.mean(jnp.sum(p * (told - jnp.log(jnp.mean(p, 0))[None]), -1))
