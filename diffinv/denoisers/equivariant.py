r"""Denoisers made to commute with the turns and mirrorings of pictures, by their average over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffinv.describe import Described, described
from diffinv.prior import Prediction, Prior
from diffinv.process import Process
from diffinv.typing import Array, Cost, Denoiser, Sample, Time


@described
class Motion(NamedTuple):
    """A motion of the square: left and right change places or not, then quarter turns, counter-clockwise.

    Attributes:
      turns: 0 to 3.
      mirrored: whether left and right change places.
    """

    turns: int
    mirrored: bool

    def __call__(self, x: Array) -> Array:
        """A picture (H, W, ...) moved; odd turns give (W, H, ...)."""
        return jnp.rot90(jnp.flip(x, 1) if self.mirrored else x, self.turns)

    def back(self, x: Array) -> Array:
        """The motion undone."""
        x = jnp.rot90(x, -self.turns)
        return jnp.flip(x, 1) if self.mirrored else x


MIRROR = (Motion(0, False), Motion(0, True))
"""Left and right: the group of faces, and of most photographs."""
FLIPS = (*MIRROR, Motion(2, False), Motion(2, True))
"""Left and right, up and down: what a rectangle has."""
SQUARE = tuple(Motion(turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""All eight: pictures from above, textures, and networks that were trained on turned pictures."""


def require_group(motions: tuple[Motion, ...]) -> None:
    """ValueError where motions repeat, or where one after another is none of them."""
    corners = np.arange(4).reshape(2, 2)
    turned = lambda motion, x: np.rot90(x[:, ::-1] if motion.mirrored else x, motion.turns)
    seen = lambda x: tuple(x.ravel().tolist())
    known = {seen(turned(motion, corners)) for motion in motions}
    made = {seen(turned(other, turned(one, corners))) for one in motions for other in motions}
    if not motions or len(known) != len(motions) or made != known:
        raise ValueError(f"motions is {motions}; give a group: denoisers.MIRROR, FLIPS or SQUARE")


@struct.dataclass
class Symmetric(Described):
    r"""`x0 = 1/|G| sum_g g^{-1} D(g x, t)`, which commutes with every motion of the group G.

    Where the law of pictures is the same after a motion, so is the exact denoiser D*, and the mean of |G| denoisers
    that are all of D's error is no worse: `E |x0 - D*(x)|^2 <= E |D(x) - D*(x)|^2`, by Jensen's inequality. It costs
    |G| evaluations. Where the law is not the same, as with pictures that have a sky, take a smaller group.

    Source: Terris et al. 2024, arXiv:2312.01831, whose plug-and-play steps draw one motion in place of the mean; of one
    network's answers, the self-ensemble of Lim et al. 2017, arXiv:1707.02921.

    Attributes:
      denoise: D, of pictures (H, W, ...); of (W, H, ...) too where motions have odd turns.
      motions: the group; static.
      at_once: evaluations at once; static.
    """

    denoise: Denoiser
    motions: tuple[Motion, ...] = struct.field(pytree_node=False, default=SQUARE)
    at_once: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_group(self.motions)
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}; give a whole number, at least 1")

    @property
    def process(self) -> Process:
        """The denoiser's own."""
        return self.denoise.process  # type: ignore[attr-defined]

    @property
    def cost(self) -> Cost:
        """An evaluation for each motion."""
        return getattr(self.denoise, "cost", Cost()).times(len(self.motions))

    def given(self, **condition: Any) -> Symmetric:
        """The same denoiser under `condition`, which does not move with the picture: a label, no picture."""
        return replace(self, denoise=self.denoise.given(**condition))  # type: ignore[attr-defined]

    def __call__(self, x: Sample, t: Time) -> Sample:
        return self._mean(lambda x: self.denoise(x, t), x)

    def predict(self, x: Sample, t: Time) -> Prediction:
        """`Prediction(x0, v)`, both as means; `v` is None where the denoiser learns no variance."""
        ask = getattr(self.denoise, "predict", None) or (lambda x, t: Prediction(self.denoise(x, t), None))
        return self._mean(lambda x: ask(x, t), x)

    def _mean(self, ask: Callable[[Sample], Any], x: Sample) -> Any:
        square = x.shape[0] == x.shape[1]
        alike = [self.motions] if square else [[m for m in self.motions if m.turns % 2 == odd] for odd in (0, 1)]
        several, parts = self.at_once if self.at_once > 1 else None, []
        for motions in filter(None, alike):
            answers = jax.lax.map(ask, jnp.stack([motion(x) for motion in motions]), batch_size=several)
            parts += [jax.tree.map(lambda a, i=i, m=m: m.back(a[i]), answers) for i, m in enumerate(motions)]
        return jax.tree.map(lambda *each: sum(each) / len(each), *parts)


def symmetric(prior: Prior, motions: tuple[Motion, ...] = SQUARE, at_once: int = 1) -> Prior:
    """The prior whose denoiser is the mean of its own over a group of motions: see `Symmetric`.

    Raises ValueError where the motions are no group.

    >>> import jax.numpy as jnp, diffinv as di
    >>> prior = di.gaussian_field(di.process.VP(), jnp.zeros((4, 4)), jnp.ones((4, 4)))
    >>> di.denoisers.symmetric(prior).cost.nfe
    8
    """
    return replace(prior, denoise=Symmetric(prior.denoise, motions, at_once))
