"""What a random degradation draws before it sees a picture: a few numbers, to be looked at, kept, or shared in a batch.

Every draw is a NamedTuple of dynamic scalars, for one example.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.degrade.kernels import NONE, SINC
from diffinv.degrade.resizing import MODES
from diffinv.degrade.settings import FAMILIES, BlurSettings, NoiseSettings, ResizeSettings, Settings, Stage
from diffinv.describe import described
from diffinv.linalg import added
from diffinv.typing import Array, Key


@described
class BlurDraw(NamedTuple):
    """The arguments of `kernels.kernel`; those that the family does not read are drawn all the same.

    Attributes:
      family: the place of the kernel's family in `kernels.FAMILIES`, or one of the two after them.
      side: of the kernel, in pixels, odd.
      deviations: along the two axes, in pixels, (2,).
      angle: of the first axis, in radians.
      beta: the exponent.
      cutoff: of a sinc filter, in radians a pixel.
    """

    family: Array
    side: Array
    deviations: Array
    angle: Array
    beta: Array
    cutoff: Array


@described
class ResizeDraw(NamedTuple):
    """One resizing.

    Attributes:
      scale: of the sides.
      mode: a place in `resizing.MODES`.
    """

    scale: Array
    mode: Array


@described
class NoiseDraw(NamedTuple):
    """One noise.

    Attributes:
      gaussian: whether it is Gaussian, else Poisson.
      sigma: of Gaussian noise, in levels of 255.
      poisson: the factor of Poisson noise.
      grey: whether all channels have the same noise.
    """

    gaussian: Array
    sigma: Array
    poisson: Array
    grey: Array


@described
class StageDraw(NamedTuple):
    """One stage.

    Attributes:
      blur: its kernel.
      resize: its resizing.
      noise: its noise.
      quality: of its JPEG.
    """

    blur: BlurDraw
    resize: ResizeDraw
    noise: NoiseDraw
    quality: Array


@described
class Draw(NamedTuple):
    """A whole degradation: two stages and the end.

    Attributes:
      first: the first stage.
      second: the second stage, whose JPEG is the last one.
      second_order: whether the second stage takes place.
      sinc: the last filter.
      mode: of the last resizing, a place in `resizing.MODES`.
      resize_first: whether the last resizing and filter come before the last JPEG.
    """

    first: StageDraw
    second: StageDraw
    second_order: Array
    sinc: BlurDraw
    mode: Array
    resize_first: Array


def _between(u: Array, *marks: float) -> Array:
    """Uniform between neighbouring marks, each interval as likely as the others: their quantile function at `u`."""
    steps = enumerate(zip(marks, marks[1:], strict=False))
    return marks[0] + added((end - start) * jnp.clip((len(marks) - 1) * u - k, 0.0, 1.0) for k, (start, end) in steps)


def _choice(u: Array, probabilities: tuple[float, ...]) -> Array:
    """A place, int32, with the given probabilities."""
    return jnp.sum(u >= jnp.cumsum(jnp.asarray(probabilities, u.dtype))[:-1], dtype=jnp.int32)


def _whole(u: Array, count: int) -> Array:
    """Uniform among 0, ..., count - 1, int32."""
    return jnp.minimum(jnp.floor(count * u), count - 1).astype(jnp.int32)


def _side(u: Array, sides: tuple[int, int]) -> Array:
    """Uniform among the odd numbers."""
    return sides[0] + 2 * _whole(u, (sides[1] - sides[0]) // 2 + 1)


def draw_blur(u: Array, blur: BlurSettings) -> BlurDraw:
    """Family, side, deviations, angle in [-pi, pi], exponent and cutoff; the latter from pi/5, under 13 pixels pi/3.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833, as in BasicSR. `u` (10,) is uniform in [0, 1).
    """
    side, bell, flat, mixed, filtered, blurred, one, two, angle, cutoff = u
    side, mixed = _side(side, blur.sides), _choice(mixed, blur.families)
    bell, flat = (_between(v, low, 1.0, high) for v, (low, high) in ((bell, blur.generalised), (flat, blur.plateau)))
    family = jnp.where(filtered < blur.sinc, SINC, mixed)
    return BlurDraw(
        jnp.where(blurred < blur.probability, family, NONE),
        side,
        jnp.stack((_between(one, *blur.deviation), _between(two, *blur.deviation))),
        _between(angle, -np.pi, np.pi),
        jnp.where(mixed < FAMILIES.index("plateau_iso"), bell, flat),
        jnp.where(side < 13, _between(cutoff, np.pi / 3, np.pi), _between(cutoff, np.pi / 5, np.pi)),
    )


def draw_resize(u: Array, resize: ResizeSettings) -> ResizeDraw:
    """Up, down or as it is, and one of three modes with equal probability. `u` (3,) is uniform in [0, 1)."""
    way, amount, mode = u
    (low, high), chosen = resize.scale, _choice(way, (resize.up, resize.down, resize.keep))
    scales = _between(amount, 1.0, high), _between(amount, low, 1.0), jnp.ones_like(amount)
    return ResizeDraw(jax.lax.select_n(chosen, *scales), _whole(mode, len(MODES)))


def draw_noise(u: Array, noise: NoiseSettings) -> NoiseDraw:
    """Gaussian or Poisson, its strength, and whether it is grey. `u` (4,) is uniform in [0, 1)."""
    law, sigma, poisson, grey = u
    strengths = _between(sigma, *noise.sigma), _between(poisson, *noise.poisson)
    return NoiseDraw(law < noise.gaussian, *strengths, grey < noise.grey)


def draw_stage(u: Array, stage: Stage) -> StageDraw:
    """Blur, resize, noise and quality, independently. `u` (18,) is uniform in [0, 1)."""
    return StageDraw(
        draw_blur(u[:10], stage.blur),
        draw_resize(u[10:13], stage.resize),
        draw_noise(u[13:17], stage.noise),
        _between(u[17], *stage.quality),
    )


def draw(key: Key, settings: Settings) -> Draw:
    """All random numbers of one degradation but the noise itself; `settings` are static.

    Source: Wang et al. 2021 (Real-ESRGAN), arXiv:2107.10833; Yue et al. 2023 (ResShift), arXiv:2307.12348. Differs: the
    published code draws once for a batch: up or down, scale, mode, the law of the noise, whether there is a second
    stage and the order at the end (and Real-ESRGAN and ResShift mix batches in a queue); here every example draws its
    own. Share one draw by `vmap` of `degrade` with `in_axes=None`.
    """
    u = jax.random.uniform(key, (51,), float)
    final = draw_blur(u[36:46], replace(settings.second.blur, sides=settings.sinc_sides))
    return Draw(
        draw_stage(u[:18], settings.first),
        draw_stage(u[18:36], settings.second),
        u[46] < settings.second_order,
        final._replace(family=jnp.where(u[47] < settings.sinc, SINC, NONE), cutoff=_between(u[48], np.pi / 3, np.pi)),
        _whole(u[49], len(MODES)),
        u[50] < settings.resize_first,
    )
