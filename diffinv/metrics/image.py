r"""Distances between two pictures `x, y` of shape (H, W, C). The argument order of truth and estimate is immaterial,
but for `nmse`.

Every metric asks for `data_range = (low, high)`, the values of black and white: (-1, 1) in this library, (0, 255) for
uint8. Arithmetic is float32, or float64 where a picture is. `vmap` supplies the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffinv.linalg import added
from diffinv.typing import Array

DataRange = tuple[float, float]
LUMA = (65.481, 128.553, 24.966)
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""MS-SSIM's weights, from the finest scale on."""


def span_of(data_range: DataRange) -> tuple[float, float]:
    """(low, high - low), or one clear error."""
    remedy = "give (low, high), the values of black and white: (-1, 1), (0, 1) or (0, 255)"
    if not isinstance(data_range, (tuple, list)) or len(data_range) != 2:
        raise ValueError(f"data_range is {data_range!r}; {remedy}")
    low, high = map(float, data_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"data_range is {data_range!r}, which is empty; {remedy}")
    return low, high - low


def _float(x: Array, other: jnp.dtype) -> Array:
    """As float64 where it or the `other` dtype is, and else as float32."""
    return jnp.asarray(x, jnp.float64 if jnp.float64 in (x.dtype, other) else jnp.float32)


def _picture(name: str, x: Array) -> Array:
    """As an array of real numbers; ValueError for anything else."""
    found = x if isinstance(x, jax.Array) else np.asarray(x)
    if not (found.dtype.kind in "biuf" or jnp.issubdtype(found.dtype, jnp.floating)):
        raise ValueError(f"{name} is {found.dtype}; give one real picture (H, W, C)")
    return jnp.asarray(found)


def in_range(data_range: DataRange, **pictures: Array) -> None:
    """ValueError where bytes are told to lie in (-1, 1) or (0, 1)."""
    for name, x in pictures.items():
        dtype = _picture(name, x).dtype
        if jnp.issubdtype(dtype, jnp.integer) and max(map(abs, data_range)) <= 1:
            raise ValueError(f"{name} is {dtype}, data_range {data_range}; give (0, 255), or the picture as floats")


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Both as floats of one dtype; refuses unequal shapes, which would broadcast."""
    x, y = _picture("x", x), _picture("y", y)
    if x.shape != y.shape:
        raise ValueError(f"x is {x.shape} and y is {y.shape}; give two pictures of one shape")
    if x.ndim != 3:
        raise ValueError(f"x is {x.shape}; give one picture (H, W, C), and vmap over a batch")
    return _float(x, y.dtype), _float(y, x.dtype)


def two_pictures(x: Array, y: Array, data_range: DataRange) -> tuple[Array, Array]:
    """Both in 0 .. 1, as floats of one dtype; ValueError for a range that is none, or no two pictures of one shape."""
    low, span = span_of(data_range)
    in_range(data_range, x=x, y=y)
    x, y = _pair(x, y)
    return (x - low) / span, (y - low) / span


def _decibel(error: Array, peak: float) -> Array:
    """`10 log10(peak^2 / error)`."""
    return 20 * math.log10(peak) - 10 * jnp.log10(error)


def psnr(x: Array, y: Array, data_range: DataRange) -> Array:
    r"""Peak signal-to-noise ratio in dB; infinite for equal pictures.

        PSNR = 10 log10((high - low)^2 / mean((x - y)^2)),    mean over H, W and C.

    Source: standard; as `skimage.metrics.peak_signal_noise_ratio`.

    Args:
      x, y: (H, W, C), in `data_range`, which is static.

    Returns: ().
    """
    _, peak = span_of(data_range)
    in_range(data_range, x=x, y=y)
    x, y = _pair(x, y)
    return _decibel(jnp.mean((x - y) ** 2), peak)


def nmse(truth: Array, x: Array, data_range: DataRange) -> Array:
    r"""Normalised mean square error of `x`, 0 where it is the truth: `|x - truth|^2 / |truth - low|^2`, dimensionless.

    The signal is measured from black, so that a picture of no signal has the error 1. A black truth gives infinity, or
    NaN where x is black, too.

    Source: Zbontar et al. 2018 (fastMRI), arXiv:1811.08839, section 5.2, for `low = 0`.

    Args:
      truth, x: (H, W, C), in `data_range`, which is static; the order matters.

    Returns: ().
    """
    low, _ = span_of(data_range)
    in_range(data_range, truth=truth, x=x)
    truth, x = _pair(truth, x)
    return jnp.sum((x - truth) ** 2) / jnp.sum((truth - low) ** 2)


def _window(sigma: float = 1.5, radius: int = 5) -> list[float]:
    """The 11 Gaussian weights of one axis, which sum to 1."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    return [w / sum(weights) for w in weights]


def _local_mean(x: Array) -> Array:
    """Gaussian mean where the 11 x 11 window fits: (H, W, C) to (H - 10, W - 10, C)."""
    weights = _window()
    h, w = x.shape[0] - len(weights) + 1, x.shape[1] - len(weights) + 1
    x = added(a * x[k : k + h] for k, a in enumerate(weights))
    return added(a * x[:, k : k + w] for k, a in enumerate(weights))


def ssim(x: Array, y: Array, data_range: DataRange) -> Array:
    r"""Mean structural similarity, in [-1, 1]; 1 for equal pictures. Dimensionless.

        SSIM = mean of (2 m_x m_y + C1)(2 v_xy + C2) / ((m_x^2 + m_y^2 + C1)(v_x + v_y + C2)),
        C1 = (0.01 L)^2,   C2 = (0.03 L)^2,   L = high - low,

    over the positions where an 11 x 11 Gaussian window (standard deviation 1.5 pixels) fits, and over channels.
    The pictures are measured from `low`: the luminance term is not invariant to an offset, so that `data_range=2` on
    [-1, 1] pixels, the common slip, gives another number than the same pictures do in [0, 255]. This gives the same.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861; as `skimage.metrics.structural_similarity` with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False` on `x - low`.

    Args:
      x, y: (H, W, C), in `data_range`, which is static; H, W >= 11.

    Returns: ().
    """
    low, span = span_of(data_range)
    in_range(data_range, x=x, y=y)
    x, y = _pair(x, y)
    if min(x.shape[:2]) < 11:
        raise ValueError(f"x is {x.shape}; the 11 x 11 window needs height, width >= 11; enlarge the pictures")
    luminance, structure = _similarities(x - low, y - low, span)
    return jnp.mean(luminance * structure)


def _similarities(x: Array, y: Array, span: float) -> tuple[Array, Array]:
    """SSIM's two factors where the window fits, of pictures measured from black: luminance, contrast and structure."""
    m_x, m_y = _local_mean(x), _local_mean(y)
    v_x, v_y = _local_mean(x**2) - m_x**2, _local_mean(y**2) - m_y**2
    v_xy = _local_mean(x * y) - m_x * m_y
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return (2 * m_x * m_y + c1) / (m_x**2 + m_y**2 + c1), (2 * v_xy + c2) / (v_x + v_y + c2)


def _halved(x: Array) -> Array:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
    h, w = x.shape[:2]
    x = jnp.pad(x, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def ms_ssim(x: Array, y: Array, data_range: DataRange, weights: tuple[float, ...] = SCALES) -> Array:
    r"""Structural similarity over M scales, in [0, 1]; 1 for equal pictures. Dimensionless.

        MS-SSIM = [mean l_M cs_M]_+^{w_M}  prod_{j < M} [mean cs_j]_+^{w_j}

    of each channel, averaged over channels; l is `ssim`'s factor of luminance, cs that of contrast and structure, and
    scale j + 1 is scale j with each 2 x 2 pixels averaged. One scale of weight 1 is `ssim`, where that is above 0.

    Source: Wang, Simoncelli & Bovik 2003, doi:10.1109/ACSSC.2003.1292216, eq. 7, with the weights of its section 3.2;
    as their `msssim.m`, which takes the mean of the product at the last scale. Differs: a mean below 0, whose power is
    complex there, counts as 0 (the gradient there is 0, too, and so is the value).

    Args:
      x, y: (H, W, C), in `data_range`, which is static; H, W >= 11 2^(M-1), 176 for the published five scales.
      weights: w_1 (finest) .. w_M, above 0, static.

    Returns: ().

    Raises ValueError for a range, pictures or weights that do not fit.
    """
    low, span = span_of(data_range)
    in_range(data_range, x=x, y=y)
    x, y = _pair(x, y)
    if not (len(weights) and min(weights) > 0):
        raise ValueError(f"weights is {weights}; give one number above 0 for each scale")
    least = 11 * 2 ** (len(weights) - 1)
    if min(x.shape[:2]) < least:
        raise ValueError(f"x is {x.shape}; {len(weights)} scales need height, width >= {least}; give fewer weights")
    x, y = x - low, y - low
    value = jnp.ones(x.shape[-1], x.dtype)
    for scale, weight in enumerate(weights, 1):
        luminance, structure = _similarities(x, y, span)
        kept = jnp.mean(structure * luminance if scale == len(weights) else structure, (0, 1))
        value = value * jnp.where(kept > 0, jnp.where(kept > 0, kept, 1.0) ** weight, 0.0)
        x, y = _halved(x), _halved(y)
    return jnp.mean(value)


def y_channel(x: Array, data_range: DataRange) -> Array:
    r"""The luma of an RGB picture, in 8-bit studio units: black is 16 and white 235.

        Y = 16 + 65.481 R + 128.553 G + 24.966 B,    R, G, B in [0, 1].

    Source: ITU-R BT.601, MATLAB's `rgb2ycbcr`. Differs: not rounded. MATLAB rounds a uint8 picture's luma.

    Args:
      x: (H, W, 3), in `data_range`, which is static.

    Returns: (H, W).
    """
    low, span = span_of(data_range)
    x = _picture("x", x)
    in_range(data_range, x=x)
    if x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(f"x is {x.shape}; luma needs one RGB picture (H, W, 3)")
    x = _float(x, x.dtype)
    return 16 + added(weight * (x[..., c] - low) / span for c, weight in enumerate(LUMA))


def psnr_y(x: Array, y: Array, data_range: DataRange, border: int) -> Array:
    r"""PSNR of the luma in dB, peak 255, without `border` pixels on each side: the super-resolution papers' number.

    They use `border = scale` and quantise to uint8 first; to reproduce a table do the same. Source: as BasicSR's
    `calculate_psnr(crop_border, test_y_channel=True)`.

    Args:
      x, y: (H, W, 3), in `data_range`.
      border: pixels. `data_range` and `border` are static.

    Returns: ().
    """
    x, y = _picture("x", x), _picture("y", y)
    height, width = x.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"border is {border}, but x is {x.shape}; give 0 <= border < {min(height, width) / 2:g}")
    x, y = _pair(x, y)
    difference = y_channel(x, data_range) - y_channel(y, data_range)
    inner = difference[border : height - border, border : width - border]
    return _decibel(jnp.mean(inner**2), 255.0)


def _unit(feature: Array) -> Array:
    """Each position's channel vector scaled to length 1; a zero vector stays zero, and is differentiable."""
    return feature / jnp.sqrt(jnp.sum(feature**2, -1, keepdims=True) + 1e-10)


def feature_distance(features: Callable[[Array], tuple[Array, ...]], x: Array, y: Array) -> Array:
    r"""Distance between the features of two pictures, in [0, 4]; 0 for equal ones. **This is not LPIPS.**

        d(x, y) = mean over taps of  mean over space of  || f_k(x)/|f_k(x)| - f_k(y)/|f_k(y)| ||^2

    It has the shape of LPIPS without its two ingredients: neither its backbone (AlexNet, VGG) nor its linear weights
    learnt from human judgements. It orders reconstructions by perceptual likeness; its values compare with no published
    ones. State the network, its input size and the taps beside it.

    Source: original, after Zhang et al. 2018, arXiv:1801.03924, eq. 1 with w = 1 and a mean over layers.

    Args:
      features: `x -> (f_1, ..., f_K)`, each (h, w, c), as `metrics.features.efficientnet_features()`. It fixes
        the range of the pictures: [-1, 1] for that one.
      x, y: (H, W, C).

    Returns: (). Differentiable.
    """
    taps = jax.vmap(features)(jnp.stack(_pair(x, y)))
    return tap_distance([a for a, _ in taps], [b for _, b in taps])


def tap_distance(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """`feature_distance` of two pictures by their features, each K arrays (h, w, c): one that is compared with many is
    looked at once. Differentiable. Source: original."""
    distances = [jnp.mean(jnp.sum((_unit(f) - _unit(g)) ** 2, -1)) for f, g in zip(a, b, strict=True)]
    return added(distances) / len(distances)
