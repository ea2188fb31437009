"""Seamless cloning, shadow removal and the transfer of grey values by osmosis, on real pictures.

    python -m experiments.osmosis IMAGE --guide=PICTURE --mask=MASK     clone the guide into the image, inside the mask
    python -m experiments.osmosis IMAGE --mask=MASK                     remove the shadow whose border the mask covers
    python -m experiments.osmosis IMAGE --guide=PICTURE                 carry the image's grey values to the guide

All pictures have the same size and are read by the rules of docs/pictures.md. A mask is white inside; transparent
pixels of it count as black. The result is OUT/result.png, and OUT/strip.png shows all pictures side by side. With
`--tau` the evolution stops at that time, in pixels squared; without it, it runs to the steady state.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from diffinv import schema
from diffinv.data import fitting
from diffinv.scalespace import osmosis
from experiments.common import pictures, reading

MOST = 4_000_000  # pixels, which take 4 GB
RESULTS = ("result.png", "strip.png")
flags.adopt_module_key_flags(reading)
GUIDE = runtime.flag("guide", "", schema.path("the picture whose drift is taken, inside the mask where there is one"))
MASK = runtime.flag("mask", "", schema.path("with a guide: where to clone; without: the border of the shadow"))
OFFSET = runtime.flag(
    "offset", 1.0, schema.number("added to the grey values, which osmosis wants positive", 0, 1e6, unit="0 to 255")
)
TAU = runtime.flag(
    "tau", 0.0, schema.number("time to stop at; 0: the steady state", low=0, high=1e15, unit="pixels squared")
)
STEPS = runtime.flag("steps", 2, schema.whole("implicit steps", low=1, high=10_000))
OUT = runtime.flag("out", "runs/osmosis", schema.path("the folder of the result"))


def read(path: str, size: tuple[int, int] | None = None, what: str = "image", ground: int = 1) -> np.ndarray:
    """Grey values 0..255, (H, W, 3), float64, in all the file's bits, transparent ones white, or black on `ground` 0.

    Raises ValueError for another size.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no file {path!r}; give a picture as {what}")
    values = fitting.opaque(pictures.plain(path, MOST), 3, ground)
    values = values.astype(np.float64) * (1 if values.dtype == np.uint8 else 255)
    if size and values.shape[:2] != size:
        here, there = (" x ".join(map(str, sides)) for sides in (values.shape[:2], size))
        raise ValueError(f"{what} {path} is {here}, the image {there}; resize one of them")
    return values


def drift_of(image: jax.Array, guide: jax.Array | None, mask: jax.Array | None) -> osmosis.Rates:
    """The generator of the job: cloning, shadow removal, or a guide alone."""
    if mask is None:
        return osmosis.osmosis(guide)
    if guide is None:
        return osmosis.generator(osmosis.barred(osmosis.canonical(image), mask), image)
    fused = osmosis.fused(mask, osmosis.canonical(guide), osmosis.canonical(image))
    return osmosis.generator(fused, jnp.where(mask, guide, image))


@jax.jit
def evolve(image, guide, mask, taus):
    """The evolved image, and the residual of its last step."""
    rates = drift_of(image, guide, mask)

    def step(images, tau):
        return (images[1], osmosis.implicit(rates, images[1], tau, 1e-6, 300)), None

    before, u = jax.lax.scan(step, (image, image), taus)[0]
    return u, osmosis.residual(rates, u, before, taus[-1])


def to_pixels(u: np.ndarray, offset: float) -> np.ndarray:
    """Grey values to uint8."""
    return pictures.rounded(u - offset)


def save(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def require_kept(paths: list[str]) -> None:
    """ValueError where a result would overwrite one of the pictures that are given."""
    targets = {os.path.realpath(Path(OUT.value) / name) for name in RESULTS}
    for path in filter(None, paths):
        if os.path.realpath(path) in targets:
            raise ValueError(f"--out is {OUT.value!r}, where {path} would be overwritten; give another")


def main(path: str) -> None:
    jax.config.update("jax_enable_x64", True)
    if not GUIDE.value and not MASK.value:
        raise ValueError("neither --guide nor --mask is given; give a guide, a shadow's border, or both for cloning")
    runtime.writable(OUT.value)
    require_kept([path, GUIDE.value, MASK.value])
    grey = read(path)
    size = grey.shape[:2]
    image = osmosis.positive(jnp.asarray(grey + OFFSET.value))
    guide = jnp.asarray(read(GUIDE.value, size, "guide") + OFFSET.value) if GUIDE.value else None
    mask = jnp.asarray(read(MASK.value, size, "mask", 0).mean(-1, keepdims=True) > 127) if MASK.value else None
    if mask is not None and not bool(mask.any()):
        raise ValueError(f"mask {MASK.value} is black everywhere; paint white where it holds")
    total = TAU.value or STEPS.value * 100.0 * sum(n**2 for n in size)
    offset = f"grey values 0..255 offset by {OFFSET.value:g}"
    print(f"{size[0]} x {size[1]}, {offset}, {STEPS.value} steps to tau = {total:.4g}")
    start = time.perf_counter()
    u, rest = jax.block_until_ready(evolve(image, guide, mask, jnp.full(STEPS.value, total / STEPS.value)))
    seconds = time.perf_counter() - start
    if not float(rest) < 1e-4:
        raise ValueError(f"the solver's residual is {float(rest):.2g}; take a larger --offset or more --steps")
    folder, result = Path(OUT.value), to_pixels(np.asarray(u), OFFSET.value)
    save(folder / "result.png", result)
    shown = [grey, *([np.asarray(guide) - OFFSET.value] if guide is not None else [])]
    shown += [np.repeat(np.asarray(mask) * 255.0, 3, 2)] if mask is not None else []
    save(folder / "strip.png", np.concatenate([to_pixels(x, 0) for x in shown] + [result], 1))
    moved = float(jnp.max(jnp.abs(jnp.mean(u, (0, 1)) - jnp.mean(image, (0, 1)))))
    print(
        f"{seconds:.1f} s with compiling, residual {float(rest):.1g}, average grey value moved by {moved:.1g}, "
        f"least {float(u.min()):.3g}"
    )
    print(f"result: {folder / 'result.png'}")


def one(pictures: list[str]) -> None:
    """The one positional argument."""
    if len(pictures) != 1:
        usage = "usage: python -m experiments.osmosis IMAGE --guide=PICTURE --mask=MASK"
        raise ValueError(f"{len(pictures)} pictures are given; {usage}")
    main(pictures[0])


if __name__ == "__main__":
    runtime.run(one, positional=True)
