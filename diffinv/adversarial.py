r"""StackGAN's losses, of one example each: the judges' and the generator's, the text's divergence, colour consistency.

A judge gives logits l, with `D = sigmoid(l)`; so `-log D = softplus(-l)` and `-log(1 - D) = softplus(l)`, which are
finite for every logit.

Source: Zhang et al. 2018, arXiv:1710.10916, and the authors' code, StackGAN-v2 6228e34 and StackGAN-Pytorch e72ef88.
Where paper and code differ each function says so; defaults are the code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from diffinv.typing import Array


class Heads(Protocol):
    """What a judge tells of a picture, as `nn.stackgan.Logits`: logits, shape (), or None where it has no such head."""

    @property
    def conditional(self) -> Array | None:
        """Of the picture with its text."""

    @property
    def unconditional(self) -> Array | None:
        """Of the picture alone."""


def _as_real(logit: Array | None) -> Array | float:
    return 0.0 if logit is None else jax.nn.softplus(-logit)


def _as_fake(logit: Array | None) -> Array | float:
    return 0.0 if logit is None else jax.nn.softplus(logit)


def judge_loss(real: Heads, fake: Heads, wrong: Heads | None = None, wrong_is_real: bool = True) -> Array:
    r"""What one judge loses on a real picture, on a generated one, and on a real one with another's text, ().

        -log D(x) - log(1 - D(s)) - log D(x, c) - log(1 - D(s, c)) [- log(1 - D(x', c)) - log D(x')]

    Source: eq. 6 and 7; the part in brackets is the code's, whose head of the picture alone counts the mismatched
    picture as real a second time, so that its optimum is `2 p / (2 p + q)`; `wrong_is_real=False` (static) leaves the
    last term out, as the paper does. Without the head of the picture alone the code halves the two false pairs; without
    a text nothing but the first two terms is left.
    """
    alone = _as_real(real.unconditional) + _as_fake(fake.unconditional)
    if real.conditional is None:
        return jnp.asarray(alone)
    pairs = _as_real(real.conditional)
    false = _as_fake(fake.conditional) + (_as_fake(wrong.conditional) if wrong else 0.0)
    if real.unconditional is None:
        return jnp.asarray(pairs + (0.5 if wrong else 1.0) * false)
    again = _as_real(wrong.unconditional) if wrong and wrong_is_real else 0.0
    return jnp.asarray(pairs + false + alone + again)


def first_judge_loss(real: Heads, fake: Heads, wrong: Heads) -> Array:
    r"""As the code of the first version weighs it: means of what is real and of what is not, ().

        (real_c + real_u) / 2 + (fake_c + wrong_c + fake_u) / 3, or real_c + (wrong_c + fake_c) / 2 without D_u.

    Source: StackGAN-Pytorch e72ef88, `compute_discriminator_loss`; the paper's eq. 3 has no mismatched pair.
    """
    pair, false = _as_real(real.conditional), _as_fake(wrong.conditional) + _as_fake(fake.conditional)
    if real.unconditional is None:
        return jnp.asarray(pair + false / 2)
    return jnp.asarray((pair + _as_real(real.unconditional)) / 2 + (false + _as_fake(fake.unconditional)) / 3)


def generator_loss(fakes: Sequence[Heads]) -> Array:
    r"""`sum_i -log D_i(s_i) - log D_i(s_i, c)` over the scales, (). Source: eq. 8, which is not the minimax loss."""
    return jnp.asarray(sum(_as_real(fake.unconditional) + _as_real(fake.conditional) for fake in fakes))


def text_divergence(mean: Array, log_variance: Array, averaged: bool = True) -> Array:
    r"""`KL(N(mean, exp(log_variance)) || N(0, I))` in nats, ().

    Source: eq. 1, whose weight is 1 on the sum. The code takes twice the mean over the dimensions, `2 / width` of the
    sum, which is what `averaged` (static) gives. Args: (width,) each.
    """
    each = (mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2
    return 2 * jnp.mean(each) if averaged else jnp.sum(each)


def colours(x: Array) -> tuple[Array, Array]:
    """A picture's mean colour (C,) and the covariance of its colours (C, C), over the pixels of (H, W, C)."""
    pixels = x.reshape(-1, x.shape[-1])
    mean = jnp.mean(pixels, 0)
    centred = pixels - mean[None]
    return mean, centred.T @ centred / len(pixels)


def colour_consistency(
    x: Array, coarse: Array, mean_weight: float = 1.0, covariance_weight: float = 5.0, averaged: bool = True
) -> Array:
    r"""How far a picture's colours are from those of the coarser one, ():

        l_1 |mu - mu'|^2 + l_2 |S - S'|_F^2

    0 where each pixel of `coarse` was repeated. The coarser picture is a constant to the gradient.

    Source: eq. 9, with l_1 = 1 and l_2 = 5; its weight in the generator's loss is 50 without a text and 0 with one. The
    code takes the means over 3 and over 9 entries in place of the sums, which is what `averaged` (static) gives.

    Args:
      x: (H, W, C) in [-1, 1]; coarse: (h, w, C).
      mean_weight: l_1. covariance_weight: l_2. Dimensionless.
    """
    (mean, covariance), (mean_c, covariance_c) = colours(x), colours(jax.lax.stop_gradient(coarse))
    total = jnp.mean if averaged else jnp.sum
    return mean_weight * total((mean - mean_c) ** 2) + covariance_weight * total((covariance - covariance_c) ** 2)


def colour_entropy(pictures: Array, bins: int = 8) -> Array:
    """Entropy in nats of all colours of a batch (N, H, W, C) in [-1, 1], each channel in `bins` (static) levels, ().

    0 where every pixel has one colour: how a collapse of the generator shows first. At most `C log bins`. Original.
    """
    level = jnp.clip(jnp.floor((pictures + 1) / 2 * bins), 0, bins - 1).astype(jnp.int32)
    code = jnp.sum(level * bins ** jnp.arange(pictures.shape[-1], dtype=jnp.int32)[None, None, None], -1)
    share = jnp.bincount(code.ravel(), length=bins ** pictures.shape[-1]) / code.size
    return -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0))
