r"""Fourier and cosine transforms over the last two axes that compile wherever XLA splits them.

XLA's CPU compiler gives a transform that it splits over devices whatever memory layout its neighbours prefer, and the
transform then refuses to run (`RET_CHECK failure fft_thunk.cc: IsMonotonicWithDim0Major`). So every transform here
stands between two `row_major`, which pin the layout there, and are nothing on one device or another backend. Use these,
not `jnp.fft`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.scipy.fft import dctn, idctn

from diffinv.typing import Array

_row_major = Primitive("row_major")
_row_major.def_impl(lambda x: x)
_row_major.def_abstract_eval(lambda x: x)
ad.deflinear2(_row_major, lambda ct, _: [_row_major.bind(ct)])


def _batched(arrays: tuple, axes: tuple) -> tuple[Array, int]:
    """The new axis goes first, where the transform's own rule puts it: after the pinned layout nothing is moved."""
    return _row_major.bind(jnp.moveaxis(arrays[0], axes[0], 0)), 0


def _pinned(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _lowered(context: mlir.LoweringRuleContext, x: Any) -> Any:
    """Nothing where the program has one device: there the layouts are right, and a pin would cost a copy."""
    devices = getattr(context.module_context.axis_context, "num_devices", None)
    return [x] if devices == 1 else mlir.lower_fun(_pinned, multiple_results=False)(context, x)


batching.primitive_batchers[_row_major] = _batched
mlir.register_lowering(_row_major, lambda _, x: [x])
mlir.register_lowering(_row_major, _lowered, platform="cpu")


def row_major(x: Array) -> Array:
    """`x`, on a CPU laid out row by row in memory; linear, differentiable, any shape."""
    return _row_major.bind(x)


def at_least_single(x: Array) -> Array:
    """Half precision as single, in which transforms and complex numbers begin; anything else as it is."""
    return x.astype(jnp.float32) if x.dtype in (jnp.float16, jnp.bfloat16) else x


def _guarded(transform: Callable[[Array], Array], x: Array) -> Array:
    return row_major(transform(row_major(at_least_single(x))))


def fft2(z: Array, norm: str | None = None) -> Array:
    """Of complex or real (..., H, W). `norm` as in `jnp.fft`."""
    z = at_least_single(z)
    wide = z if jnp.iscomplexobj(z) else jax.lax.complex(z, jnp.zeros_like(z))
    return _guarded(lambda z: jnp.fft.fft2(z, norm=norm), wide)


def ifft2(z: Array, norm: str | None = None) -> Array:
    """The inverse of `fft2`, of complex (..., H, W)."""
    return _guarded(lambda z: jnp.fft.ifft2(z, norm=norm), z)


def rfft2(x: Array) -> Array:
    """Of real (..., H, W), (..., H, W//2 + 1)."""
    return _guarded(jnp.fft.rfft2, x)


def irfft2(z: Array, size: tuple[int, int]) -> Array:
    """The inverse of `rfft2`, of `size` (H, W)."""
    return _guarded(lambda z: jnp.fft.irfft2(z, s=size), z)


def dct2(x: Array) -> Array:
    """The orthonormal DCT-II of real (..., H, W)."""
    return _guarded(lambda x: dctn(x, axes=(-2, -1), norm="ortho"), x).astype(x.dtype)


def idct2(x: Array) -> Array:
    """The inverse, and transpose, of `dct2`."""
    return _guarded(lambda x: idctn(x, axes=(-2, -1), norm="ortho"), x).astype(x.dtype)


def in_planes(function: Callable[[Array], Array], x: Array) -> Array:
    """`function` of the channels (C, H, W) of a picture (H, W, C), put back as (H', W', C)."""
    return jnp.moveaxis(function(jnp.moveaxis(x, -1, 0)), 0, -1)
