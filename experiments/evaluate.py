"""Judge a prior by its unconditional samples, and note it in the model card.

    python -m experiments.evaluate --data=PATH [--prior=PATH] [--count=1000] [--grid=FILE.png] [--card]

Draws `count` samples and prints the Fréchet distance of their EfficientNet-Lite0 features to those of as many held-out
pictures: EffNetLite0-FID, which is not the published FID, beside its floor, the same distance between two halves of the
held-out pictures. A diffusion model is sampled by EDM's Heun in 18 steps, a consistency model in one and in two;
--sampler and --steps choose otherwise. With --card the numbers are written into the prior's card.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from experiments import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
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
SAMPLER = flags.DEFINE_enum("sampler", "", ["", "heun", "consistency"], "default: as the prior's card says")
STEPS = flags.DEFINE_list("steps", [], "of the sampler; default: 18 of heun, 1 and 2 of consistency")
BATCH = flags.DEFINE_integer("batch", 50, "pictures at once on each device", lower_bound=1)
GRID = flags.DEFINE_string("grid", "", "a PNG of the first 64 samples; {steps} in the name is the number of steps")
CARD = flags.DEFINE_bool("card", False, "write the numbers into the card")
SEED = flags.DEFINE_integer("seed", 0, "of the samples")
MIDDLE = 0.821  # the noise level between two steps where the card names none: iCT's and ECT's


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
    """The first side x side samples, or fewer where there are fewer, enlarged."""
    side = min(side, int(len(samples) ** 0.5))
    tiles = data.to_pixels(samples[: side**2]).reshape(side, side, *samples.shape[1:]).swapaxes(1, 2)
    image = Image.fromarray(np.asarray(tiles).reshape(side * samples.shape[1], side * samples.shape[2], 3))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def schedule(process: di.process.Process, steps: int, middle: float | None) -> jax.Array:
    """The times of Heun's method, or, where a `middle` noise level is given, of one or two consistency steps."""
    if middle is None:
        return times.karras(steps)
    if steps not in (1, 2):
        raise ValueError(f"--steps is {steps}; a consistency model is sampled in 1 or 2")
    return jnp.asarray([1.0, *[times.from_sigma(process, jnp.float32(middle))] * (steps - 1), 0.0])


def draw(prior: di.Prior, grid: jax.Array, method: Callable[[di.Prior], di.Sampler]) -> np.ndarray:
    """COUNT samples, in [-1, 1]."""
    program = jax.jit(jax.vmap(lambda p, k: di.sample(k, method(p), grid).x, (None, 0)))
    base = di.seed_key(SEED.value)
    keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(np.arange(COUNT.value))
    return np.clip(mapped(program, keys, prior, note=f"samples, {len(grid) - 1} steps"), -1, 1)


def quality(fake: np.ndarray, real: np.ndarray, steps: int, what: str) -> dict[str, Any]:
    """The card's note of the features of samples and of held-out pictures."""
    halves = [real[::2], real[1::2]]
    many = f"{steps} {what} step{'s' * (steps > 1)}"
    return {
        "name": f"{distribution.NAME}, {len(fake)} samples of {many} against {len(real)} held out",
        "value": round(distribution.feature_fid(fake, real), 3),
        "half": round(distribution.feature_fid(fake[::2], halves[0]), 3),
        "floor": round(distribution.feature_fid(*halves), 3),
    }


def main() -> None:
    path = PRIOR.value or checkpoint.embedded()
    card = checkpoint.read_card(path, "prior")
    trained = card.get("consistency", {})
    what = SAMPLER.value or ("consistency" if trained else "heun")
    middle = trained.get("middle", MIDDLE) if what == "consistency" else None
    prior = checkpoint.load_prior(path, None if trained.get("second_time") else di.process.EDM())
    judge, look = features.efficientnet_features(), jax.jit(jax.vmap(lambda f, x: f.pooled(x), (None, 0)))
    many = [int(each) for each in STEPS.value] or ([18] if middle is None else [1, 2])
    schedules = {steps: schedule(prior.process, steps, middle) for steps in many}
    real, found = mapped(look, held_out(), judge, note="held-out features"), []
    for steps, levels in schedules.items():
        samples = draw(prior, levels, samplers.heun if middle is None else samplers.renoise)
        if GRID.value:
            grid(samples, GRID.value.format(steps=steps))
        fake = mapped(look, samples, judge, note="sample features")
        found.append(quality(fake, real, steps, "Heun" if middle is None else what))
        print("{name}: {value}; of halves {half}; floor, two halves of the held-out {floor}".format(**found[-1]))
    if CARD.value:
        checkpoint.amend(path, {"sample_quality": found if len(found) > 1 else found[0]})
        print(f"noted in {json.dumps(path)}'s card")


if __name__ == "__main__":
    runtime.run(main)
