"""Pictures of any size through networks of one size: CTMSR's upscaler and the 32 x 32 prior's solvers, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from configs import reconstruct
from diffinv import GaussianNoise, Measurement, operators, seed_key, sharding, tiles
from diffinv.consistency import ctmsr
from diffinv.consistency.ctmsr import Upscaler
from diffinv.data import to_pixels
from diffinv.loop import failed_step
from diffinv.prior import Prior
from experiments.common import photos, priors
from experiments.methods import solvers

EMBEDDED = "ctmsr_x4"
BLOCK = 32  # rows of noise that share a generator, whose start costs as much as two rows
GUIDANCE = 240.0  # steps times zeta of DPS: zeta 4 at 60 steps left a residual of 0.013, under sigma_y
Tick = Callable[[int], Any]


def silent(count: int) -> None:
    """No progress bar."""


def stored(x: np.ndarray, deep: bool) -> np.ndarray:
    """Floats in [-1, 1] (others are clipped) as whole numbers of 8 bits, or of 16 where `deep`."""
    return photos.sixteen(x) if deep else to_pixels(x)


def load(model: str, scale: int) -> Upscaler:
    """The upscaler at `model`, a path or "embedded". Raises ValueError for another kind of network or another scale."""
    path = di.weights.embedded(EMBEDDED) if model == "embedded" else model
    card = di.weights.read_card(path)
    if "scale" not in card:
        name = card.get("architecture", {}).get("name", "unknown")
        raise ValueError(f"--model={model} is no super-resolution network but {name!r}; give one, or --model=embedded")
    if card["scale"] != scale:
        raise ValueError(f"--model={model} enlarges x{card['scale']}, and --scale is {scale}; give another of the two")
    return di.weights.load_upscaler(path)


def padded(low: np.ndarray, least: int) -> np.ndarray:
    """Mirrored below and to the right where a side is shorter than `least`."""
    extra = [(0, max(0, least - side)) for side in low.shape[:2]]
    return np.pad(low, (*extra, (0, 0)), "symmetric")


def tile_count(sides: tuple[int, int], tile: int, overlap: int) -> int:
    """How many tiles a picture of these sides takes."""
    return int(np.prod([len(tiles.starts(max(side, tile), tile, overlap)) for side in sides]))


class Groups:
    """A compiled function of one example, mapped over stacks: in groups of one size, split over the devices.

    `function(fixed, *examples) -> array`; `fixed`, a pytree, is the same for all.
    """

    def __init__(self, function: Callable[..., Any], fixed: Any, group: int) -> None:
        self.mesh = sharding.mesh()
        self.size = -(-group // jax.device_count()) * jax.device_count()
        self.fixed = jax.device_put(fixed, sharding.replicated(self.mesh))
        self.program = jax.jit(lambda fixed, stacks: jax.vmap(lambda example: function(fixed, *example))(stacks))

    def __call__(self, *stacks: Any, tick: Tick = silent) -> np.ndarray:
        """The results for all examples; the last group is filled up by repetition."""
        count, done = len(stacks[0]), []
        for first in range(0, count, self.size):
            chosen = np.arange(first, first + self.size) % count
            placed = jax.device_put(tuple(stack[chosen] for stack in stacks), sharding.split(self.mesh))
            done.append(np.asarray(self.program(self.fixed, placed)))
            tick(min(self.size, count - first))
        return finite(np.concatenate(done)[:count])


def noise_rows(seed: int, first: int, last: int, width: int) -> np.ndarray:
    """Rows `first` to `last` of a field of standard normal noise, (last - first, width, 3), drawn in blocks of rows."""
    generator = lambda block: np.random.Generator(np.random.SFC64([seed, block]))  # a quarter faster than the default
    draw = lambda block: generator(block).standard_normal((BLOCK, width, 3), np.float32)
    blocks = range(first // BLOCK, -(-last // BLOCK))
    return np.concatenate([draw(block) for block in blocks])[first - BLOCK * blocks.start : last - BLOCK * blocks.start]


class Diverged(ValueError):
    """A network, or a solver, gave no finite picture."""


def finite(x: np.ndarray) -> np.ndarray:
    """`x`, or `Diverged`."""
    if not np.isfinite(x).all():
        raise Diverged("the result is not finite: weights are damaged, or a training or a solver diverged")
    return x


def blended(strip: np.ndarray, weights: np.ndarray, starts: tuple[int, ...], length: int) -> np.ndarray:
    """The tiles (N, h, w, 3) of one row, `starts` apart, as (h, length, 3)."""
    line = np.zeros((strip.shape[1], length, 3), np.float32)
    for tile, weight, left in zip(strip, weights, starts):
        line[:, left : left + tile.shape[1]] += weight[:, None].astype(np.float32) * tile
    return line


def from_noise(upscaler: Upscaler, low: Any, noise: Any, key: Any) -> Any:
    """A picture of `low`, started from standard normal `noise`; `key` is of what several steps draw besides."""
    return ctmsr.super_resolve(key, upscaler, low, noise=noise)


class Enlarger:
    """`(seed, low) -> picture`, (h, w, 3) in [-1, 1] to (s h, s w, 3), for any h and w, by an upscaler on tiles.

    The picture is uint8, or uint16 where `deep`.

    One program for all sizes, a group of tiles at a time; one row of tiles is in memory. All tiles start from one field
    of noise, a function of the position alone, so that they agree where they overlap; what a network of several steps
    draws on its way is each tile's own.
    """

    def __init__(self, upscaler: Upscaler, tile: int = 64, overlap: int = 16, group: int = 2) -> None:
        tiles.blend_weights(2 * tile, tile, overlap, overlap // 4)  # raises where they do not fit
        self.scale, self.tile, self.overlap = upscaler.scale, tile, overlap
        self.restore = Groups(from_noise, upscaler, group)

    def count(self, height: int, width: int) -> int:
        """How many tiles a picture takes."""
        return tile_count((height, width), self.tile, self.overlap)

    def rows(self, seed: int, low: np.ndarray, tick: Tick) -> Iterator[np.ndarray]:
        """The finished rows of tiles, from top to bottom, each (s tile, s w, 3)."""
        s, t, width = self.scale, self.tile, low.shape[1]
        columns = tiles.starts(width, t, self.overlap)
        weights = tiles.blend_weights(s * width, s * t, s * self.overlap, s * self.overlap // 4)
        for top in tiles.starts(low.shape[0], t, self.overlap):
            noise = noise_rows(seed, s * top, s * (top + t), s * width)
            here = np.stack([low[top : top + t, left : left + t] for left in columns])
            begin = np.stack([noise[:, s * left : s * (left + t)] for left in columns])
            keys = jnp.stack([seed_key(seed + 65537 * top + left) for left in columns])
            strip = self.restore(here, begin, keys, tick=tick)
            yield blended(strip, weights, tuple(s * left for left in columns), s * width)

    def __call__(self, seed: int, low: np.ndarray, tick: Tick = silent, deep: bool = False) -> np.ndarray:
        height, width, s = *low.shape[:2], self.scale
        low = padded(low, self.tile)
        starts = [s * top for top in tiles.starts(low.shape[0], self.tile, self.overlap)]
        weights = tiles.blend_weights(s * low.shape[0], s * self.tile, s * self.overlap, s * self.overlap // 4)
        picture = np.zeros((s * low.shape[0], s * low.shape[1], 3), np.uint16 if deep else np.uint8)
        rest = np.zeros((s * self.tile, s * low.shape[1], 3), np.float32)
        for i, strip in enumerate(self.rows(seed, low, tick)):
            rest += weights[i][:, None, None].astype(np.float32) * strip
            done = (starts[i + 1] if i + 1 < len(starts) else s * low.shape[0]) - starts[i]
            picture[starts[i] : starts[i] + done] = stored(rest[:done], deep)
            rest = np.concatenate([rest[done:], np.zeros_like(rest[:done])])
        return picture[: s * height, : s * width]


class Solver:
    """`(seed, low, candidate=None) -> picture` by a prior of small square pictures: each tile is an inverse problem.

    The tiles are independent draws, whose blend shows where they disagree. `name` is "dps" or "reguidance", which
    refines the candidate, a picture in [-1, 1]; hyperparameters are those of configs/reconstruct.py, but zeta.
    """

    def __init__(self, name: str, path: str, scale: int, steps: int, sigma_y: float = 0.02, group: int = 8) -> None:
        config = reconstruct.get_config()
        config.dps.steps = config.reguidance.steps = steps
        config.dps.zeta = GUIDANCE / steps
        prior, _ = priors.load(path)
        side = prior.shape[0]
        if prior.shape != (side, side, 3):
            raise ValueError(f"--prior has shape {prior.shape}; give one of square RGB pictures")
        if side % scale or side // scale < 4:
            raise ValueError(f"--scale is {scale}; the prior's {side} pixels must be a multiple of it, of at least 4")
        self.scale, self.tile, self.overlap = scale, side // scale, side // scale // 4
        self.guides = name == "reguidance"

        def restore(prior: Prior, key: Any, low: Any, *candidate: Any) -> Any:
            measurement = Measurement(operators.bicubic(prior.shape, scale), low, GaussianNoise(jnp.float32(sigma_y)))
            solution = solvers.solver(name, config, prior)(key, measurement, *candidate)
            return jnp.where(failed_step(solution.info) < 0, solution.x, jnp.nan)  # else the state it was frozen at

        self.restore = Groups(restore, prior, group)

    def count(self, height: int, width: int) -> int:
        """How many tiles a picture takes."""
        return tile_count((height, width), self.tile, self.overlap)

    def __call__(
        self, seed: int, low: np.ndarray, candidate: Any = None, tick: Tick = silent, deep: bool = False
    ) -> np.ndarray:
        (height, width), s = low.shape[:2], self.scale
        low = padded(low, self.tile)
        stacks = [tiles.cut(jnp.asarray(low), self.tile, self.overlap)]
        if self.guides:
            candidate = jnp.asarray(padded(candidate, s * self.tile))
            stacks.append(tiles.cut(candidate, s * self.tile, s * self.overlap))
        keys = jax.random.split(seed_key(seed), len(stacks[0]))
        found = jnp.clip(self.restore(keys, *stacks, tick=tick), -1, 1)
        shape = (s * low.shape[0], s * low.shape[1], 3)
        return stored(np.asarray(tiles.join(found, shape, s * self.overlap))[: s * height, : s * width], deep)
