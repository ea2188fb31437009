"""A network that may be asked about pictures of any size, asked about one of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffinv import tiles
from diffinv.describe import Described
from diffinv.process import Process
from diffinv.typing import Cost, Denoiser, Sample, Time


@struct.dataclass
class Sized(Described):
    """A denoiser whose network wants sides that `unit` divides, for pictures of any sides, whole or in tiles.

    A side that is no multiple is extended at its end by mirroring, and what was added is cut off again. A picture that
    is larger than `tile` is denoised tile by tile; a pixel within `reach` of a tile's inner border has no say, so that
    the result is that of the whole picture, at the memory of one tile.

    Attributes:
      denoise: of a network of local view, such as `nn.convnet.ConvUNet`.
      unit: what the network's sides are multiples of, in pixels; static.
      reach: how far the network sees to each side, in pixels; static.
      tile: longest side that is denoised at once, in pixels, a multiple of `unit`; 0 for the whole picture; static.

    Raises ValueError for tiles that are not longer than twice their overlap, or no multiple of the unit.
    """

    denoise: Denoiser
    unit: int = struct.field(pytree_node=False)
    reach: int = struct.field(pytree_node=False)
    tile: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        if self.tile and (self.tile % self.unit or self.tile <= self.overlap):
            least = self.overlap + self.unit
            raise ValueError(f"tile is {self.tile}; give a multiple of {self.unit} from {least} on, or 0 for no tiles")

    @property
    def overlap(self) -> int:
        """Of neighbouring tiles, in pixels: twice the reach and a little, to blend over."""
        return self.unit * (2 * self.reach // self.unit + 2)

    @property
    def process(self) -> Process:
        """The denoiser's own."""
        return self.denoise.process  # type: ignore[attr-defined]

    @property
    def cost(self) -> Cost:
        """Of one call: every pixel is denoised once, but for the overlaps."""
        return getattr(self.denoise, "cost", Cost())

    def given(self, **condition: Any) -> Sized:
        """The same denoiser under `condition`."""
        return replace(self, denoise=self.denoise.given(**condition))  # type: ignore[attr-defined]

    def __call__(self, x: Sample, t: Time) -> Sample:
        height, width = x.shape[:2]
        whole = jnp.pad(x, ((0, -height % self.unit), (0, -width % self.unit), (0, 0)), "symmetric")
        one = lambda part: self.denoise(part, t)
        fits = not self.tile or max(whole.shape[:2]) <= self.tile
        denoised = one(whole) if fits else tiles.tiled(one, self.tile, self.overlap, self.reach)(whole)
        return denoised[:height, :width]
