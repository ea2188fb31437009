"""What `experiments.reconstruct` undoes: operators by name, and the fields of the configuration that they read.

One's own is one entry of `OPERATORS`, a function from configuration, key and one picture's shape to an `Operator`; its
settings are fields of `FIELDS`, with defaults in configs/reconstruct.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffinv import operators
from diffinv.data import fitting
from diffinv.measurement import Measurement
from diffinv.operators.base import Operator
from diffinv.schema import Schema, number, path, whole
from diffinv.typing import Array, Key
from experiments.common import pictures
from experiments.restore import mri


class Damage(NamedTuple):
    """What is undone.

    Attributes:
      operator: for one picture's shape.
      colour: it needs three channels.
      shrinks: the measurement's sides are the picture's over `config.factor`.
      random: it is drawn, so that nobody's own picture was damaged just so.
      kspace: it measures k-space of grey pictures, whose -1 is no signal; a scan is such a measurement.
      picture: what it measures is a picture, which may be given.
      reads: which of `FIELDS` it depends on, by full name, or a section by its own; None where that is not said, and it
        may be all of them.
    """

    operator: Callable[[ConfigDict, Key, tuple[int, ...]], Operator]
    colour: bool = False
    shrinks: bool = False
    random: bool = False
    kspace: bool = False
    picture: bool = True
    reads: tuple[str, ...] | None = None

    def __call__(self, config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
        return self.operator(config, key, shape)


def _box(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    top, left, size = config.box.top, config.box.left, config.box.size
    if top == left == 0 and size >= max(shape[:2]):
        raise ValueError(f"config.box.size is {size}, which hides the whole picture; give less than {max(shape[:2])}")
    return operators.box_inpainting(shape, top, left, size)


def _gaussian_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    if config.blur.size > min(shape[:2]):
        raise ValueError(f"config.blur.size is {config.blur.size}; give a size that the picture has room for")
    return operators.gaussian_blur(shape, config.blur.size, config.blur.std, threshold=config.blur.threshold)


def _mask(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    return operators.inpainting(shape, jnp.asarray(~hidden(config.mask, shape)[..., None]))


def hidden(file: str, shape: tuple[int, ...]) -> np.ndarray:
    """The bright half of a mask's values, (H, W) bool: what is missing. Raises ValueError for other sides."""
    if not file:
        raise ValueError("config.mask is '', and task inpaint needs one: a picture, bright where pixels are missing")
    found = fitting.eight(fitting.opaque(pictures.plain(file), 1, 0))[..., 0] > 127
    if found.shape != tuple(shape[:2]):
        sides = f"{found.shape[0]} x {found.shape[1]}, and the picture {shape[0]} x {shape[1]}"
        raise ValueError(f"config.mask is {sides}; give a mask of the picture's size")
    if found.all() or not found.any():
        raise ValueError(f"config.mask hides {'everything' if found.all() else 'nothing'}; give another")
    return found


def _deblur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    """The user's kernel, or a Gaussian; the world goes on beyond the picture, as its mirror image."""
    if not config.kernel:
        return operators.blur(shape, operators.gaussian_kernel(config.blur.size, config.blur.std), "reflect")
    return operators.blur(shape, jnp.asarray(kernel(config.kernel, shape)), "reflect")


def kernel(file: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel (h, w) float32 with sum 1, of a picture or a .npy file. Raises ValueError for one that does not fit."""
    if file.endswith(".npy"):
        try:
            found = np.load(file, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"config.kernel is {file!r}, which cannot be read ({error}); give a picture or a .npy file"
            ) from None
    else:
        found = fitting.eight(fitting.opaque(pictures.plain(file), 1, 0))[..., 0].astype(np.float32)
    if found.ndim != 2 or not np.isfinite(found).all() or found.min() < 0 or not found.sum() > 0:
        raise ValueError(f"config.kernel is {file!r} of shape {found.shape}; give (h, w) numbers from 0 on, not all 0")
    if any(k // 2 >= n for k, n in zip(found.shape, shape[:2])):
        sides = f"{found.shape[0]} x {found.shape[1]}, and the picture {shape[0]} x {shape[1]}"
        raise ValueError(f"config.kernel is {sides}; give a smaller kernel, or crop its empty border")
    return found / found.sum()


def _motion_blur(config: ConfigDict, key: Key, shape: tuple[int, ...]) -> Operator:
    return operators.motion_blur(key, shape, config.blur.size, threshold=config.blur.threshold)


def _mri(task: str) -> Damage:
    """The task of this name; `mri` has the fields of its own section."""
    operator = lambda config, key, shape: mri.simulated(config, task, key, shape)
    return Damage(operator, random=True, kspace=True, reads=("mri",))


OPERATORS: dict[str, Damage] = {
    "box_inpainting": Damage(_box, reads=("box",)),
    "random_inpainting": Damage(
        lambda config, key, shape: operators.random_inpainting(key, shape, config.random.masked),
        random=True,
        reads=("random",),
    ),
    "freeform_inpainting": Damage(
        lambda config, key, shape: operators.freeform_inpainting(key, shape), random=True, reads=()
    ),
    "super_resolution": Damage(
        lambda config, key, shape: operators.average_pool(shape, config.factor), shrinks=True, reads=("factor",)
    ),
    "bicubic": Damage(
        lambda config, key, shape: operators.bicubic(shape, config.factor), shrinks=True, reads=("factor",)
    ),
    "colourisation": Damage(lambda config, key, shape: operators.grayscale(shape), colour=True, reads=()),
    "gaussian_blur": Damage(_gaussian_blur, reads=("blur",)),
    "motion_blur": Damage(_motion_blur, random=True, reads=("blur",)),
    "denoise": Damage(lambda config, key, shape: operators.identity(shape), reads=()),
    "inpaint": Damage(_mask, reads=("mask",)),
    "deblur": Damage(_deblur, reads=("kernel", "blur")),
    "nonlinear_blur": Damage(
        lambda config, key, shape: operators.nonlinear_blur(key, shape, config.nonlinear.contrast, config.blur.size),
        random=True,
        reads=("nonlinear.contrast", "blur.size"),
    ),
    "high_dynamic_range": Damage(
        lambda config, key, shape: operators.high_dynamic_range(shape, config.nonlinear.gain), reads=("nonlinear.gain",)
    ),
    "phase_retrieval": Damage(
        lambda config, key, shape: operators.phase_retrieval(shape, config.nonlinear.oversample, unit_range=True),
        picture=False,
        reads=("nonlinear.oversample",),
    ),
    **{task: _mri(task) for task in ("mri", *mri.FASTMRI)},
}

FIELDS: Schema = {
    "box": {
        "top": whole("first hidden row, of box_inpainting", 0, 65535, unit="pixels"),
        "left": whole("first hidden column", 0, 65535, unit="pixels"),
        "size": whole("side of the hidden square", 1, 65535, unit="pixels"),
    },
    "random": {"masked": number("share of hidden pixels, of random_inpainting", 0, below=1)},
    "factor": whole("of super_resolution and bicubic; it divides the picture's sides", 1, 1024),
    "mask": path("of inpaint: a picture of the same size, bright where pixels are missing"),
    "kernel": path("of deblur: a picture or a .npy file; '' for a Gaussian as of gaussian_blur"),
    "mri": mri.FIELDS,
    "nonlinear": {
        "contrast": number("of the light that nonlinear_blur blurs, exp(contrast x)", above=0, high=100),
        "gain": number("of high_dynamic_range, which clips what it brightens", above=0, high=1e3),
        "oversample": number("of phase_retrieval: eighths of the side that are added to each", 0, 64),
    },
    "blur": {
        "size": whole("side of the kernel of the blurs, odd", 1, 65535, unit="pixels"),
        "std": number("deviation of gaussian_blur", above=0, high=1e4, unit="pixels"),
        "threshold": number("transfer, relative to its greatest, under which a frequency counts as lost", 0, below=1),
    },
}


def require_fit(config: ConfigDict, tasks: list[str], shape: tuple[int, ...]) -> None:
    """Raises ValueError for a task that cannot be done on pictures of this shape."""
    for task in tasks:
        if OPERATORS[task].colour and shape[2] != 3:
            raise ValueError(f"config.task is {task}, and the prior's pictures are grey; give a prior of RGB pictures")
        if OPERATORS[task].kspace and shape[2] != 1:
            raise ValueError(f"config.task is {task}, and the prior's pictures are RGB; give one of slices, brain128")
        try:
            jax.eval_shape(lambda key, task=task: OPERATORS[task](config, key, shape), jax.random.key(0))
        except ValueError as error:
            raise ValueError(f"config.task is {task}, on pictures of {shape[0]} x {shape[1]}: {error}") from None


def damaged(config: ConfigDict, task: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a picture of this `shape` is extended to, so that `config.factor` divides what it must."""
    factor = config.factor if OPERATORS[task].shrinks else 1
    return (*(-(-side // factor) * factor for side in shape[:2]), shape[2])


def restored(config: ConfigDict, task: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a picture whose measurement is of this `shape`, (h, w, C). Raises ValueError for drawn damage."""
    able = lambda each: each.picture and not (each.random or each.colour)
    if not able(OPERATORS[task]):
        known = [name for name, each in OPERATORS.items() if able(each)]
        raise ValueError(f"config.task is {task}, which no given picture has suffered; give one of {', '.join(known)}")
    factor = config.factor if OPERATORS[task].shrinks else 1
    return (factor * shape[0], factor * shape[1], shape[2])


def shown(measurement: Measurement, shape: tuple[int, ...]) -> Array:
    """A measurement as a picture of `shape`.

    Low resolution by nearest, grey in three channels, k-space zero-filled, magnitudes by their logarithm.
    """
    y = measurement.y
    if isinstance(measurement.operator, operators.PhaseRetrieval):
        y = jnp.log1p(jnp.abs(y))
        y = 2 * y / jnp.max(y) - 1
    if jnp.iscomplexobj(y):
        dark = jnp.full(shape, -1.0, y.real.dtype)
        return dark + measurement.operator.adjoint(measurement.residual(dark))
    y = jnp.broadcast_to(y, (*y.shape[:2], shape[2])) if y.ndim == 3 else y
    return jax.image.resize(y, shape, "nearest")
