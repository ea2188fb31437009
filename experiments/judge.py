"""Judge a prior by its unconditional samples, and note it in the model card.

    python -m experiments.judge --data=PATH [--prior=PATH] [--count=1000] [--crop=N] [--grid=FILE.png] [--card]

Draws `count` samples and compares them with as many held-out pictures, drawn by --seed, at the prior's own size, grey
or RGB, by their EfficientNet-Lite0 features. The held-out pictures are those for validation where --data has a split,
and of the prior's own label where its card fixes one. It prints

- EffNetLite0-FID, the Fréchet distance of the features, which is not the published FID, and EffNetLite0-KID, their
  unbiased kernel distance with its interval, each beside its floor: the same between two halves of the held-out
  pictures;
- where --data has a split, the share of samples that lie nearer to a training picture than 5 % of the held-out pictures
  do, by features and by pixels of 16 x 16: 0.05 is what pictures of the same law score, and much more is memorisation.
  --pairs shows the nearest pairs, samples above and training pictures below.

A prior of local view was trained on squares of pictures; --crop=N compares it with such squares, of the split that its
training had, a square every N pixels.

A diffusion model is sampled by EDM's Heun in 18 steps, a consistency model in one and in two; --sampler and --steps
choose otherwise. A generator (see `experiments.generate`) is judged alike, by as many draws of each of its texts, which
are the labels of --classes, without guidance; so are stages of a cascade, --prior=COARSE,MIDDLE,FINE, with noise of
--level on what a finer one is told of. A prior with labels is sampled without one; with --classes as many samples are
drawn besides, as many of each label, by classifier-free guidance of the given --weight, and a linear classifier on the
same features, fitted to training pictures, says which label it takes them for: the share that agrees, beside its
accuracy on held-out pictures. With --card the numbers are written into the prior's card, of stages the finest one's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

import diffinv as di
from diffinv import data, generator, posterior, samplers, schema, sharding, times, weights
from diffinv.metrics import features, memorisation
from experiments.common import pictures, reading, stages
from experiments.common.judging import SHRUNK, Classes, Memory, Seen, quality, remembered, repeated, taught, told

flags.adopt_module_key_flags(reading)
DATA = runtime.flag("data", None, schema.path("held-out pictures: a folder, a glob, a pack"), required=True)
PRIOR = runtime.flag("prior", "", schema.path("of a prior or a generator, or one that ships; or stages: A,B,C"))
COUNT = runtime.flag("count", 1000, schema.whole("samples, and held-out pictures, which are drawn", 4, 10_000_000))
SAMPLER = runtime.flag("sampler", "", schema.choice(["", "heun", "consistency"], "default: as the prior's card says"))
STEPS = runtime.flag("steps", [], schema.several(schema.whole("of the sampler", 1, 100_000), least=0))
CROP = runtime.flag(
    "crop", 0, schema.whole("pixels from one square of a picture to the next; 0: whole pictures", 0, 8192)
)
BATCH = runtime.flag("batch", 50, schema.whole("pictures at once on each device", low=1))
GRID = runtime.flag("grid", "", schema.path("a PNG of the first 64 samples; {steps} becomes the number of steps"))
PAIRS = runtime.flag("pairs", "", schema.path("a PNG of the 8 samples nearest to training; {steps} as in --grid"))
TRAINING = runtime.flag("training", 20_000, schema.whole("training pictures to compare with, at most; 0: none", low=0))
CLASSES = runtime.flag("classes", False, schema.switch("draw each label, too, and ask a classifier which it is"))
WEIGHT = runtime.flag("weight", 2.0, stages.WEIGHT)
LEVEL = runtime.flag("level", 0.1, stages.LEVEL)
CARD = flags.DEFINE_bool("card", False, "write the numbers into the card")
SEED = runtime.flag("seed", 0, schema.whole("of the samples, and of the draw of held-out pictures", low=0))
PAIRED = 8
MIDDLE = 0.821  # the noise level between two steps where the card names none: iCT's and ECT's


class Labelled(NamedTuple):
    """Pictures, uint8 (N, H, W, C), and their labels by the prior's card, (N,); zeros where nobody asked for them."""

    pixels: np.ndarray
    labels: np.ndarray


def mapped(function, rows, *fixed, note: str) -> Any:
    """`function(*fixed, batch)` over batches of rows, split over the devices; the last batch is filled up."""
    devices = jax.device_count()
    size, split = min(BATCH.value, -(-len(rows) // devices)) * devices, sharding.split(sharding.mesh())
    done = []
    for i in tqdm(range(0, len(rows), size), desc=note, unit="batch"):
        chosen = np.arange(i, i + size) % len(rows)
        done.append(jax.device_get(function(*fixed, jax.device_put(rows[chosen], split))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *done)


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


def has_split() -> bool:
    """Whether it is known which pictures are for validation: as --data says, or as the training cut its squares."""
    return CROP.value > 0 or any(
        record.split == 1 for record in data.catalogue(DATA.value, reading.reading()).records()
    )


def chosen(shape: tuple[int, ...], card: dict, split: int | None, count: int) -> data.Images:
    """Up to `count` pictures of a split at the prior's size, of its label, uint8 (N, H, W, C).

    They are drawn: the first ones of a source that is ordered by class would be of few classes.
    """
    rows, columns, channels = pictures.shape_of(shape)
    rules = reading.reading()
    if CROP.value:
        return squares(shape, "validation" if split else "train", count)
    label = label_of(card, data.catalogue(DATA.value, rules).classes)
    options = {"split": split, "limit": count, "channels": channels, "reading": rules, "label": label}
    return data.read(DATA.value, (rows, columns), **options, seed=SEED.value)


def squares(shape: tuple[int, ...], split: str, count: int) -> data.Images:
    """Up to `count` squares of the pictures of a split, drawn, uint8 (N, H, W, C)."""
    if shape[0] != shape[1]:
        raise ValueError(f"--crop is {CROP.value}, and the prior is of {shape[0]} x {shape[1]}; leave it out")
    source = data.patches(
        DATA.value, shape[0], CROP.value, split, pictures.shape_of(shape)[2], reading=reading.reading()
    )
    places = np.random.default_rng(SEED.value).permutation(len(source))[:count]
    return data.Images(source.take(places.tolist())["image"], list(map(str, places)), list(source.skipped))


def held_out(shape: tuple[int, ...], card: dict) -> np.ndarray:
    """COUNT pictures at the prior's size, (N, H, W, C) in [-1, 1]: for validation where the source has a split."""
    split = 1 if has_split() else None
    found = chosen(shape, card, split, COUNT.value)
    kind = "held-out pictures" if split else "pictures, all of --data, for it has no split"
    _, rows, columns, channels = found.pixels.shape
    print(
        f"compared at {rows} x {columns}, {'grey' if channels == 1 else 'RGB'}: {len(found.names)} {kind}", flush=True
    )
    if found.skipped:
        print(f"{len(found.skipped)} were left out: {', '.join(found.skipped[: pictures.SHOWN])}", flush=True)
    if len(found.names) < COUNT.value:
        raise ValueError(f"--data holds {len(found.names)} pictures, fewer than --count={COUNT.value}; lower --count")
    return np.asarray(data.to_unit(found.pixels))


def by_label(shape: tuple[int, ...], card: dict, split: int, count: int) -> Labelled:
    """About `count` pictures of a split, as many of each of the prior's labels where there are as many."""
    each = -(-count // len(card["labels"]))
    every = range(len(card["labels"]))
    found = [chosen(shape, {**card, "given": {"label": label}}, split, each).pixels for label in every]
    return Labelled(np.concatenate(found), np.repeat(every, list(map(len, found))))


def training(shape: tuple[int, ...], card: dict) -> Labelled | None:
    """Up to TRAINING training pictures; None, with one line, where --data has no split."""
    if not TRAINING.value:
        return None
    if not has_split():
        print("memorisation is not judged, for --data has no split: which pictures were trained on is not known")
        return None
    if CLASSES.value:
        return by_label(shape, card, 0, TRAINING.value)
    found = chosen(shape, card, 0, TRAINING.value).pixels
    return Labelled(found, np.zeros(len(found), int))


def require_labels(card: dict) -> None:
    """ValueError, before anything is drawn, where --classes has nothing to tell apart, or to learn it from."""
    if not CLASSES.value:
        return
    if CROP.value:
        raise ValueError(
            "--classes is given with --crop, but a square need not show what its picture does; leave one out"
        )
    if len(card.get("labels", [])) < 2 or not ("label_null" in card or card.get("words")):
        raise ValueError("--classes is given, but the prior's card has no labels and none for nothing; leave it out")
    if not TRAINING.value or not has_split():
        raise ValueError("--classes needs training pictures: give --data with a split, and --training of 2 at least")


def tiled(samples: np.ndarray, path: str, rows: int, columns: int, scale: int = 2) -> None:
    """The first rows x columns samples, enlarged."""
    tiles = data.to_pixels(samples[: rows * columns]).reshape(rows, columns, *samples.shape[1:]).swapaxes(1, 2)
    sheet = np.asarray(tiles).reshape(rows * samples.shape[1], columns * samples.shape[2], samples.shape[3])
    image = Image.fromarray(sheet if samples.shape[3] == 3 else sheet[..., 0])
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def grid(samples: np.ndarray, path: str, side: int = 8) -> None:
    """The first side x side samples, or fewer where there are fewer, enlarged."""
    side = min(side, int(len(samples) ** 0.5))
    tiled(samples, path, side, side)


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
    return sound(mapped(program, keys, prior, note=f"samples, {len(grid) - 1} steps"))


def draw_texts(model: generator.TextToImage, labels: np.ndarray) -> np.ndarray:
    """A generator's picture of each of its texts by their numbers, (N,), in [-1, 1]; without texts, as many."""

    def one(model, row):
        return model(jax.random.fold_in(di.seed_key(SEED.value), row[0]), row[1:] if model.words else None).pictures[-1]

    texts = np.stack([model.tokens(caption) for caption in model.captions]) if model.words else np.zeros((1, 1))
    rows = np.concatenate([np.arange(len(labels))[:, None], texts[labels % len(texts)]], 1).astype(np.int32)
    return sound(mapped(jax.jit(jax.vmap(one, (None, 0))), rows, model, note="samples of each text"))


def draw_labels(
    prior: di.Prior, nothing: int, labels: np.ndarray, grid: jax.Array, method: Callable[[di.Prior], di.Sampler]
) -> np.ndarray:
    """A sample of each of `labels`, (N,), by classifier-free guidance with the label `nothing`, in [-1, 1]."""

    def one(prior, row):
        key, label = jax.random.fold_in(di.seed_key(SEED.value), row[0]), row[1]
        guided = posterior.cfg(prior.given(label=label), prior.given(label=jnp.int32(nothing)), WEIGHT.value)
        return di.sample(key, method(guided), grid).x

    rows = np.stack([np.arange(len(labels)), labels], 1).astype(np.int32)
    return sound(mapped(jax.jit(jax.vmap(one, (None, 0))), rows, prior, note="samples of each label"))


def sound(samples: np.ndarray) -> np.ndarray:
    """Samples clipped to [-1, 1]. Raises ValueError where some are not finite."""
    if broken := int(np.sum(~np.isfinite(samples).all((1, 2, 3)))):
        raise ValueError(f"{broken} of {len(samples)} samples are not finite: the prior or its --sampler diverged")
    return np.clip(samples, -1, 1)


def seen(judge: features.EfficientNetFeatures, x: jax.Array) -> Seen:
    """What a picture, bytes or in [-1, 1], is compared by; a grey one has the features of three equal channels."""
    x = data.to_unit(x) if x.dtype == jnp.uint8 else x
    small = jax.image.resize(x, (*(min(side, SHRUNK) for side in x.shape[:2]), x.shape[2]), "linear")
    return Seen(judge.pooled(jnp.repeat(x, 3 // x.shape[-1], -1)), small.ravel())


def agreement(
    judge: Classes, fake: np.ndarray, labels: np.ndarray, names: list[str], guided: bool = True
) -> dict[str, Any]:
    """The card's note of how many samples, by their features, are taken for the labels that they were drawn for."""
    right = judge.classifier.predict(fake) == labels
    share = lambda chosen: round(float(right[chosen].mean()), 4)
    return {
        **({"guidance": WEIGHT.value} if guided else {}),
        "agreement": share(labels >= 0),
        "held_out_accuracy": round(judge.held_out, 4),
        "by_label": {name: share(labels == i) for i, name in enumerate(names) if (labels == i).any()},
    }


def pairs(samples: np.ndarray, memory: Memory, near: memorisation.Nearest, path: str) -> None:
    """The samples nearest to training in a row, and the training pictures below."""
    first = np.argsort(near.distance, kind="stable")[:PAIRED]
    trained = np.asarray(data.to_unit(memory.pixels[near.place[first]]))
    tiled(np.concatenate([samples[first], trained]), path, 2, len(first))


def require_places(path: str, runs: int) -> None:
    """OSError or ValueError, before anything is drawn, where the pictures or the card cannot be written."""
    for name, given in (("--grid", GRID.value), ("--pairs", PAIRS.value)):
        if not given:
            continue
        if Path(given).suffix.lower() != ".png":
            raise ValueError(f"{name} is {given!r}; give the name of a .png")
        if runs > 1 and "{steps}" not in given:
            raise ValueError(f"{name} is {given!r}, one file for {runs} of them; put {{steps}} into its name")
        runtime.writable(Path(given).parent, name)
    if CARD.value:
        runtime.writable(Path(path).parent, "--prior")


class Judged(NamedTuple):
    """What is judged: its pictures' shape, and how it is sampled, by the number of steps.

    Attributes:
      what: the name of a step.
      sample: `steps -> (COUNT, H, W, C)`.
      of_labels: `(steps, labels) -> (N, H, W, C)`.
      steps: to be tried.
    """

    shape: tuple[int, ...]
    what: str
    sample: Callable[[int], np.ndarray]
    of_labels: Callable[[int, np.ndarray], np.ndarray]
    steps: list[int]


def of_prior(path: str, card: dict[str, Any]) -> Judged:
    """A diffusion or consistency model under its sampler."""
    trained = card.get("consistency", {})
    what = SAMPLER.value or ("consistency" if trained else "heun")
    middle = trained.get("middle", MIDDLE) if what == "consistency" else None
    many = STEPS.value or ([18] if middle is None else [1, 2])
    process = None if trained.get("second_time") else di.process.EDM()
    latent = weights.load_latent(path, process) if "latent" in card else None
    prior = weights.load_prior(path, process) if latent is None else latent.prior
    shown = decoded(latent) if latent else lambda codes: codes
    method = samplers.heun if middle is None else samplers.renoise
    schedules = {steps: schedule(prior.process, steps, middle) for steps in many}
    of_labels = lambda steps, labels: draw_labels(prior, card["label_null"], labels, schedules[steps], method)
    name = "Heun" if middle is None else what
    sample = lambda steps: shown(draw(prior, schedules[steps], method))
    labelled = lambda steps, labels: shown(of_labels(steps, labels))
    return Judged((latent or prior).shape, name, sample, labelled, many)


def decoded(latent: di.LatentPrior) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures (N, H, W, C) of codes."""
    decode = jax.jit(lambda codec, z: jax.lax.map(codec.decode, z, batch_size=16))
    return lambda codes: np.asarray(decode(latent.codec, codes))


def of_generator(path: str, card: dict[str, Any]) -> Judged:
    """A generator, of as many draws of each of its texts. Raises ValueError for flags of samplers."""
    if SAMPLER.value or STEPS.value:
        raise ValueError("--sampler or --steps is given, but --prior is of a generator, which has none; leave them out")
    model = weights.load_generator(path)
    of_labels = lambda steps, labels: draw_texts(model, labels)
    every = np.arange(COUNT.value) % max(len(model.captions), 1)
    return Judged(tuple(card["shape"]), "generator", lambda steps: draw_texts(model, every), of_labels, [1])


def of_cascade(paths: list[str]) -> Judged:
    """Stages from coarse to fine. Raises ValueError for those that do not fit one another."""
    if SAMPLER.value:
        raise ValueError("--sampler is given, but --prior is of stages, each of which has its own; leave it out")
    found = stages.loaded(paths, "--prior")
    guidance = jnp.float32(LEVEL.value), jnp.float32(WEIGHT.value)

    def drawn(steps: int, labels: np.ndarray | None) -> np.ndarray:
        draw = stages.drawing(found.cards, steps)

        def one(priors, row):
            key, label = jax.random.fold_in(di.seed_key(SEED.value), row[0]), None if labels is None else row[1]
            return draw(priors, *guidance, key, label)[-1]

        rows = np.stack(np.broadcast_arrays(np.arange(COUNT.value), 0 if labels is None else labels), 1, dtype=np.int32)
        return sound(mapped(jax.jit(jax.vmap(one, (None, 0))), rows, found.priors, note="samples of stages"))

    return Judged(found.priors[-1].shape, "Heun by stages", lambda n: drawn(n, None), drawn, STEPS.value or [18])


def main() -> None:
    *coarse, path = stages.split(PRIOR.value)
    kind = "prior" if coarse else weights.cards.kind_of(weights.read_card(path))
    card = weights.read_card(path, "generator" if kind == "generator" else "prior")
    judged = of_cascade([*coarse, path]) if coarse else {"generator": of_generator}.get(kind, of_prior)(path, card)
    require_places(path, len(judged.steps))
    require_labels(card)
    judge, program = features.efficientnet_features(), jax.jit(jax.vmap(seen, (None, 0)))
    look = lambda pixels, what: mapped(program, pixels, judge, note=f"{what} features")
    real, found = look(held_out(judged.shape, card), "held-out"), []
    trained, memory, classes = training(judged.shape, card), None, None
    if trained is not None:
        memory = remembered(trained.pixels, look(trained.pixels, "training"), real)
    if CLASSES.value:
        test = by_label(judged.shape, card, 1, COUNT.value)
        classes = taught(memory.seen, trained.labels, look(test.pixels, "labelled"), test.labels)
    for steps in judged.steps:
        samples = judged.sample(steps)
        if GRID.value:
            grid(samples, GRID.value.replace("{steps}", str(steps)))
        fake = look(samples, "sample")
        found.append(quality(fake.features, real.features, steps, judged.what))
        if memory:
            found[-1]["memorisation"], near = repeated(memory, fake)
            if PAIRS.value:
                pairs(samples, memory, near, PAIRS.value.replace("{steps}", str(steps)))
        if classes:
            labels = np.arange(COUNT.value) % len(card["labels"])
            labelled = judged.of_labels(steps, labels)
            looks, guided = look(labelled, "sample").features, kind != "generator"
            found[-1]["classes"] = agreement(classes, looks, labels, card["labels"], guided)
        print(told(found[-1]))
    if CARD.value:
        weights.amend(path, {"sample_quality": found if len(found) > 1 else found[0]})
        print(f"noted in {json.dumps(path)}'s card")


if __name__ == "__main__":
    runtime.run(main)
