"""Judge a prior by its unconditional samples, and note it in the model card.

    python -m experiments.evaluate --data=PATH [--prior=PATH] [--count=1000] [--grid=FILE.png] [--card]

Draws `count` samples (EDM's Heun, `steps` steps) and prints the Fréchet distance of their EfficientNet-Lite0
features to those of as many held-out pictures: EffNetLite0-FID, which is not the published FID, beside its floor, the
same distance between two halves of the held-out pictures. With --card both are written into the prior's card.
"""

from __future__ import annotations

import json

from experiments import runtime  # isort: skip  (before jax)

import jax
import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

import diffinv as di
from diffinv import checkpoint, data, samplers, sharding, times
from diffinv.metrics import distribution, features

DATA = flags.DEFINE_string("data", None, "held-out pictures: a pack (its validation split) or a folder", required=True)
PRIOR = flags.DEFINE_string("prior", "", "path of a checkpoint; default: the embedded prior")
COUNT = flags.DEFINE_integer("count", 1000, "samples, and held-out pictures", lower_bound=4)
STEPS = flags.DEFINE_integer("steps", 18, "of Heun's method", lower_bound=2)
BATCH = flags.DEFINE_integer("batch", 50, "pictures at once on each device", lower_bound=1)
GRID = flags.DEFINE_string("grid", "", "write the first 64 samples here, as a PNG")
CARD = flags.DEFINE_bool("card", False, "write the numbers into the card")
SEED = flags.DEFINE_integer("seed", 0, "of the samples")


def mapped(function, rows, *fixed, note: str) -> np.ndarray:
    """`function(*fixed, batch)` over batches of rows, split over the devices; the last batch is filled up."""
    size, split = BATCH.value * jax.device_count(), sharding.split(sharding.mesh())
    done = []
    for i in tqdm(range(0, len(rows), size), desc=note, unit="batch"):
        chosen = np.arange(i, i + size) % len(rows)
        done.append(jax.device_get(function(*fixed, jax.device_put(rows[chosen], split))))
    return np.concatenate(done)[: len(rows)]


def held_out() -> np.ndarray:
    """At most COUNT pictures in [-1, 1]."""
    split = 1 if DATA.value.endswith(".jpegpack.npz") else None
    pixels = data.read(DATA.value, 32, split).pixels if split else data.read(DATA.value, 32).pixels
    if len(pixels) < COUNT.value:
        raise ValueError(f"--data holds {len(pixels)} pictures, fewer than --count={COUNT.value}; lower --count")
    return np.asarray(data.to_unit(pixels[: COUNT.value]))


def grid(samples: np.ndarray, path: str, side: int = 8, scale: int = 2) -> None:
    """The first side x side samples, enlarged."""
    tiles = data.to_pixels(samples[: side**2]).reshape(side, side, *samples.shape[1:]).swapaxes(1, 2)
    image = Image.fromarray(np.asarray(tiles).reshape(side * samples.shape[1], side * samples.shape[2], 3))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def main() -> None:
    path = PRIOR.value or checkpoint.embedded()
    prior = checkpoint.load_prior(path, di.process.EDM())
    schedule = times.karras(STEPS.value)
    draw = jax.jit(jax.vmap(lambda p, k: di.sample(k, samplers.heun(p), schedule).x, (None, 0)))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(SEED.value), i))(np.arange(COUNT.value))
    samples = np.clip(mapped(draw, keys, prior, note="samples"), -1, 1)
    if GRID.value:
        grid(samples, GRID.value)
    judge, look = features.efficientnet_features(), jax.jit(jax.vmap(lambda f, x: f.pooled(x), (None, 0)))
    real = mapped(look, held_out(), judge, note="held-out features")
    fake = mapped(look, samples, judge, note="sample features")
    halves = [real[::2], real[1::2]]
    result = {
        "name": f"{distribution.NAME}, {COUNT.value} samples of {STEPS.value} Heun steps against {len(real)} held out",
        "value": round(distribution.feature_fid(fake, real), 3),
        "half": round(distribution.feature_fid(fake[::2], halves[0]), 3),
        "floor": round(distribution.feature_fid(*halves), 3),
    }
    print(f"{result['name']}: {result['value']}")
    print(f"of halves ({len(halves[0])} each): {result['half']}; floor, two halves of the held-out: {result['floor']}")
    if CARD.value:
        checkpoint.amend(path, {"sample_quality": result})
        print(f"noted in {json.dumps(path)}'s card")


if __name__ == "__main__":
    runtime.run(main)
