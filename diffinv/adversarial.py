r"""StackGAN's losses, of one example each: the judges' and the generator's, the text's divergence, colour consistency.

A judge gives logits l, with `D = sigmoid(l)`; so `-log D = softplus(-l)` and `-log(1 - D) = softplus(l)`, which are
finite for every logit.

Source: Zhang et al. 2018, arXiv:1710.10916, and the authors' code, StackGAN-v2 6228e34 and StackGAN-Pytorch e72ef88.
Where paper and code differ each function says so; defaults are the code's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from diffinv.typing import Array, Key

Generator = Callable[..., Any]
"""`(params, z, embedding, eps) -> nn.stackgan.Generated` of one example, as in training."""
Critic = Callable[..., "Heads"]
"""`(params, picture, condition) -> Heads` of one example, as in training."""


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


def slope(judge: Critic, weights: Any, x: Array, condition: Array | None) -> Array:
    """`|d/dx (l_c + l_u)|^2 / 2` of a judge at a real picture, (): what keeps a judge from winning outright.

    Source: Mescheder et al. 2018, arXiv:1801.04406, eq. 9 (R1). Differs: a judge with batch normalisation has the slope
    of the batch's sum. StackGAN has none.
    """

    def logits(x: Array) -> Array:
        told = judge(weights, x, condition)
        heads = (told.conditional, told.unconditional)
        return jnp.asarray(sum(logit for logit in heads if logit is not None))

    return jnp.sum(jax.grad(logits)(x) ** 2) / 2


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
    (mean, covariance), (mean_c, covariance_c) = colours(x), colours(stop_gradient(coarse))
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


def pyramid(x: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
    """A picture (H, W, C) at each of the sides `sizes` (static), which divide its own, by block averages.

    Source: the code shrinks by bilinear interpolation, which is the block average where the factor is 2.
    """
    height, width, channels = x.shape
    wrong = [size for size in sizes if height % size or width != height]
    if wrong:
        raise ValueError(f"sizes has {wrong[0]}, and pictures are {height} x {width}; give squares, and divisors of it")
    blocks = lambda size: x.reshape(size, height // size, size, width // size, channels).mean((1, 3))
    return tuple(blocks(size) for size in sizes)


def joint_loss(
    generate: Generator,
    judges: Sequence[Critic],
    noise: int,
    width: int = 128,
    text_weight: float = 1.0,
    colour_weight: float = 0.0,
    wrong_is_real: bool = True,
    slope_weight: float = 0.0,
    axis: str = "batch",
) -> Callable[[Key, Any, Any], Array]:
    r"""Both sides of the game as one loss, `(key, params, batch) -> scalar`, for `train.trainer`.

    `params` holds "generator" and "judges", a sequence. The loss is the judges' on pictures that are constants to it,
    plus the generator's under judges that are constants to it, so that each side's gradient is that of its own loss and
    one optimizer moves both at once.

    Source: Zhang et al. 2018, arXiv:1710.10916, section 4, and StackGAN-v2 6228e34: judges see the mean of the
    condition, detached, and the generator is moved through it. Differs: both sides step at once from the same weights,
    where the code steps the judges first; pictures that do not fit their text are `batch["other"]`.

    Args:
      generate, judges: networks of one example; they run under `vmap` with the name `axis` (static), over which batch
        normalisation averages: the real, the mismatched and the generated pictures each for themselves.
      noise: numbers in z ~ N(0, I); width: in the condition. Static.
      text_weight: of `text_divergence`; colour_weight: of `colour_consistency`, 50 in the code without a text and 0
        with one.
      wrong_is_real: of `judge_loss`; static.
      slope_weight: of `slope`, 0 in the source, and then it is not computed; static.

    The batch holds "image" (N, H, W, C) in [-1, 1] and, with texts, "embedding" (N, d) and "other" (N, H, W, C).
    """

    def loss(key: Key, params: Any, batch: Any) -> Array:
        image, embedding = batch["image"], batch.get("embedding")
        z_key, eps_key = jax.random.split(key)
        z = jax.random.normal(z_key, (len(image), noise), image.dtype)
        eps = jax.random.normal(eps_key, (len(image), width), image.dtype)
        texts = (None, None) if embedding is None else (embedding, eps)
        axes = tuple(None if each is None else 0 for each in texts)
        made = jax.vmap(generate, (None, 0, *axes), axis_name=axis)(params["generator"], z, *texts)
        condition = None if made.text is None else made.text.mean
        sizes = [picture.shape[1] for picture in made.pictures]
        scales = lambda pictures: jax.vmap(lambda x: pyramid(x, sizes))(pictures)
        others = scales(batch["other"]) if "other" in batch else (None,) * len(sizes)
        total, fakes = jnp.zeros((), image.dtype), []
        for judge, weights, real, fake, other in zip(
            judges, params["judges"], scales(image), made.pictures, others, strict=True
        ):
            run = jax.vmap(judge, (None, 0, None if condition is None else 0), axis_name=axis)
            shown = jnp.stack([real, stop_gradient(fake), *([] if other is None else [other])])
            told = jax.vmap(run, (None, 0, None))(weights, shown, stop_gradient(condition))
            groups = [jax.tree.map(lambda logit, i=i: logit[i], told) for i in range(len(shown))]
            total += jnp.mean(jax.vmap(partial(judge_loss, wrong_is_real=wrong_is_real))(*groups))
            if slope_weight:
                steep = jax.vmap(partial(slope, judge, weights), (0, None if condition is None else 0), axis_name=axis)
                total += slope_weight * jnp.mean(steep(real, stop_gradient(condition)))
            fakes.append(run(stop_gradient(weights), fake, condition))
        total += jnp.mean(jax.vmap(generator_loss)(fakes))
        if made.text is not None:
            total += text_weight * jnp.mean(jax.vmap(text_divergence)(*made.text))
        for fine, coarse in zip(made.pictures[1:], made.pictures):
            if colour_weight:
                total += colour_weight * jnp.mean(jax.vmap(colour_consistency)(fine, coarse))
        return total

    return loss
