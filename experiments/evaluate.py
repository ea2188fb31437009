"""Judge a prior by its unconditional samples, and note it in the model card.

    python -m experiments.evaluate --data=PATH [--prior=PATH] [--count=1000] [--grid=FILE.png] [--card]

Draws `count` samples and prints the Fréchet distance of their EfficientNet-Lite0 features to those of as many held-out
pictures, drawn by --seed: EffNetLite0-FID, which is not the published FID, beside its floor, the same distance between
two halves of the held-out pictures. Both are compared at the prior's own size, grey or RGB; the held-out pictures are
those for validation where --data has a split, and of the prior's own label where its card fixes one. A diffusion model
is sampled by EDM's Heun in 18 steps, a consistency model in one and in two; --sampler and --steps choose otherwise.
With --card the numbers are written into the prior's card.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

import diffinv as di
from diffinv import data, samplers, schema, sharding, times, weights
from diffinv.metrics import distribution, features
from experiments.common import pictures, reading

flags.adopt_module_key_flags(reading)
DATA = runtime.flag("data", None, schema.path("held-out pictures: a folder, a glob, a pack"), required=True)
PRIOR = runtime.flag("prior", "", schema.path("path of a checkpoint; default: the embedded prior"))
COUNT = runtime.flag("count", 1000, schema.whole("samples, and held-out pictures, which are drawn", 4, 10_000_000))
SAMPLER = runtime.flag("sampler", "", schema.choice(["", "heun", "consistency"], "default: as the prior's card says"))
STEPS = runtime.flag("steps", [], schema.several(schema.whole("of the sampler", 1, 100_000), least=0))
BATCH = runtime.flag("batch", 50, schema.whole("pictures at once on each device", low=1))
GRID = runtime.flag("grid", "", schema.path("a PNG of the first 64 samples; {steps} becomes the number of steps"))
CARD = flags.DEFINE_bool("card", False, "write the numbers into the card")
SEED = runtime.flag("seed", 0, schema.whole("of the samples, and of the draw of held-out pictures", low=0))
MIDDLE = 0.821  # the noise level between two steps where the card names none: iCT's and ECT's


def mapped(function, rows, *fixed, note: str) -> np.ndarray:
    """`function(*fixed, batch)` over batches of rows, split over the devices; the last batch is filled up."""
    devices = jax.device_count()
    size, split = min(BATCH.value, -(-len(rows) // devices)) * devices, sharding.split(sharding.mesh())
    done = []
    for i in tqdm(range(0, len(rows), size), desc=note, unit="batch"):
        chosen = np.arange(i, i + size) % len(rows)
        done.append(jax.device_get(function(*fixed, jax.device_put(rows[chosen], split))))
    return np.concatenate(done)[: len(rows)]


def label_of(card: dict, classes: tuple[str, ...]) -> int | None:
    """Which label of the data the prior is for; None where it is for all. Raises ValueError where the data lack it."""
    label = card.get("given", {}).get("label")
    if label is None or label == card.get("label_null"):
        return None
    known = card.get("labels") or [str(each) for each in range(label + 1)]
    name = known[label] if label < len(known) else str(label)
    if name not in classes:
        raise ValueError(f"--prior is of the label {name!r}, which --data does not have; give pictures with labels")
    return classes.index(name)


def held_out(shape: tuple[int, ...], card: dict) -> np.ndarray:
    """COUNT pictures at the prior's size, (N, H, W, C) in [-1, 1]: for validation where the source has a split.

    They are drawn: the first ones of a source that is ordered by class would be of few classes.
    """
    rows, columns, channels = pictures.shape_of(shape)
    rules = reading.reading()
    listing = data.catalogue(DATA.value, rules)
    label = label_of(card, listing.classes)
    split = 1 if any(record.split == 1 for record in listing.records()) else None
    options = {"split": split, "limit": COUNT.value, "channels": channels, "reading": rules, "label": label}
    options["seed"] = SEED.value
    found = data.read(DATA.value, (rows, columns), **options)
    kind = "held-out pictures" if split else "pictures, all of --data, for it has no split"
    print(
        f"compared at {rows} x {columns}, {'grey' if channels == 1 else 'RGB'}: {len(found.names)} {kind}", flush=True
    )
    if found.skipped:
        print(f"{len(found.skipped)} were left out: {', '.join(found.skipped[: pictures.SHOWN])}", flush=True)
    if len(found.names) < COUNT.value:
        raise ValueError(f"--data holds {len(found.names)} pictures, fewer than --count={COUNT.value}; lower --count")
    return np.asarray(data.to_unit(found.pixels))


def grid(samples: np.ndarray, path: str, side: int = 8, scale: int = 2) -> None:
    """The first side x side samples, or fewer where there are fewer, enlarged."""
    side = min(side, int(len(samples) ** 0.5))
    tiles = data.to_pixels(samples[: side**2]).reshape(side, side, *samples.shape[1:]).swapaxes(1, 2)
    sheet = np.asarray(tiles).reshape(side * samples.shape[1], side * samples.shape[2], samples.shape[3])
    image = Image.fromarray(sheet if samples.shape[3] == 3 else sheet[..., 0])
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
    samples = mapped(program, keys, prior, note=f"samples, {len(grid) - 1} steps")
    if broken := int(np.sum(~np.isfinite(samples).all((1, 2, 3)))):
        raise ValueError(f"{broken} of {len(samples)} samples are not finite: the prior or its --sampler diverged")
    return np.clip(samples, -1, 1)


def seen(judge: features.EfficientNetFeatures, x: jax.Array) -> jax.Array:
    """The judge's features of a picture, a grey one as three equal channels."""
    return judge.pooled(jnp.repeat(x, 3 // x.shape[-1], -1))


def quality(fake: np.ndarray, real: np.ndarray, steps: int, what: str) -> dict[str, Any]:
    """The card's note of the features of samples and of held-out pictures."""
    halves = [real[::2], real[1::2]]
    many = f"{steps} {what} step{'s' * (steps > 1)}"
    return {
        "name": f"{distribution.NAME}, {len(fake)} samples of {many} against {len(real)} held out, drawn",
        "value": round(distribution.feature_fid(fake, real), 3),
        "half": round(distribution.feature_fid(fake[::2], halves[0]), 3),
        "floor": round(distribution.feature_fid(*halves), 3),
    }


def require_places(path: str, runs: int) -> None:
    """OSError or ValueError, before anything is drawn, where the grid or the card cannot be written."""
    if GRID.value:
        if Path(GRID.value).suffix.lower() != ".png":
            raise ValueError(f"--grid is {GRID.value!r}; give the name of a .png")
        if runs > 1 and "{steps}" not in GRID.value:
            raise ValueError(f"--grid is {GRID.value!r}, one file for {runs} grids; put {{steps}} into its name")
        runtime.writable(Path(GRID.value).parent, "--grid")
    if CARD.value:
        runtime.writable(Path(path).parent, "--prior")


def main() -> None:
    path = PRIOR.value or weights.embedded()
    card = weights.read_card(path, "prior")
    trained = card.get("consistency", {})
    what = SAMPLER.value or ("consistency" if trained else "heun")
    middle = trained.get("middle", MIDDLE) if what == "consistency" else None
    many = STEPS.value or ([18] if middle is None else [1, 2])
    prior = weights.load_prior(path, None if trained.get("second_time") else di.process.EDM())
    require_places(path, len(many))
    judge, look = features.efficientnet_features(), jax.jit(jax.vmap(seen, (None, 0)))
    schedules = {steps: schedule(prior.process, steps, middle) for steps in many}
    real, found = mapped(look, held_out(prior.shape, card), judge, note="held-out features"), []
    for steps, levels in schedules.items():
        samples = draw(prior, levels, samplers.heun if middle is None else samplers.renoise)
        if GRID.value:
            grid(samples, GRID.value.replace("{steps}", str(steps)))
        fake = mapped(look, samples, judge, note="sample features")
        found.append(quality(fake, real, steps, "Heun" if middle is None else what))
        print("{name}: {value}; of halves {half}; floor, two halves of the held-out {floor}".format(**found[-1]))
    if CARD.value:
        weights.amend(path, {"sample_quality": found if len(found) > 1 else found[0]})
        print(f"noted in {json.dumps(path)}'s card")


if __name__ == "__main__":
    runtime.run(main)
