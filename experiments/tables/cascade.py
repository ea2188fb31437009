"""Staged generation from texts: StackGAN-v2 with and without its parts, one stage, and cascades of diffusion models.

    python -m experiments.tables.cascade [--config=digits] [--data=PATH] [--models=DIR] [--methods=...] [--seeds=3]

Each row is trained by `experiments.train`, with configs/stackgan_v2_NAME.py and the row's changes, `--seeds` times,
each into a folder of --models: a run that was stopped goes on, and one that is there is taken as it is. Then `--count`
pictures are drawn, as many of each text, and compared with the pictures of --data:

- energy: the energy distance to held-out pictures, of the finest pictures' pixels; the floor is that of as many
  training pictures;
- recognised: the share whose nearest training picture, by pixels of 16 x 16 at most, is of their text;
- taught: the share of held-out pictures whose nearest generated one is of theirs (the accuracy of a classifier that
  saw generated pictures alone);
- colours: `adversarial.colour_consistency` between neighbouring scales, which its weight (50) is to lower;
- own text: the share whose text is nearest, of all, by the model's own encoders.

Of pictures of 32 pixels or more a second table says what EfficientNet-Lite0 sees (`cascade_features`): the Fréchet and
the kernel distance, precision, recall, density and coverage against the held-out pictures; the share that a classifier
of training pictures takes for their text, the accuracy on held-out ones of a classifier of generated ones alone, and
the first one's `metrics.scores.class_score`. All depend on --count: the last row has training pictures.

Cells: mean ± Student's 95 % interval over the seeds, each of which draws weights, order and noise anew. "One stage" has
one generator and one judge; its width is chosen so that the generator has about as many weights. So have all stages of
a diffusion cascade together, each of which is trained for as many steps (`cascade_stages`), with noise of --level on
the pictures between them. A relay's stages are told nothing and start from the coarse picture; one-step stages are
those of the diffusion cascade, tuned for as many steps again. StackGAN-v1 is not among the rows.
"""

from __future__ import annotations

import bisect
import functools
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from experiments.common import runtime  # noqa: F401  isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffinv import adversarial, data, generator, schema, seed_key, text, weights
from diffinv.metrics import memorisation
from diffinv.prior import Prior
from diffinv.typing import Array
from experiments.report.tables import student
from experiments.tables import cascade_features as features
from experiments.tables import cascade_stages as stages
from experiments.tables import published, trainings
from experiments.tables.published import Option, counted, named
from experiments.tasks.adversarial import Adversarial
from experiments.tasks.consistency import energy

FIRST, ONE = "StackGAN-v2", "one stage"
ROWS: dict[str, dict[str, Any]] = {
    FIRST: {},
    "with colours": {"colour_weight": 50.0},
    "judges of pairs alone": {"net.alone": False},
    "mismatched pictures not real": {"wrong_is_real": False},
    "no weight on slopes": {"slope_weight": 0.0},
    ONE: {"net.branches": 1},
}
"""What each row of a generator changes in the configuration."""
EVERY = [*ROWS, *stages.ROWS]
HEAD = ("energy", "recognised", "taught", "colours", "own text", "ms a picture")
OPTIONS = {
    "config": Option("digits", None, schema.choice(["digits", "eurosat", "emoji"], "configs/stackgan_v2_NAME.py")),
    "data": Option("", None, schema.path("pictures with texts; '' for the configuration's")),
    "models": Option("runs/cascade", None, schema.path("the folder of what is trained")),
    "methods": Option(EVERY, None, named(EVERY)),
    "steps": Option(1000, 4, counted("of each training", 10**9)),
    "seeds": Option(3, 2, counted("trainings of each row", 1000)),
    "count": Option(500, 40, counted("pictures of each model", 100_000, 20)),
    "features": Option(16, 8, schema.whole("channels of the tree at its smallest picture", 2, 1024)),
    "level": Option(0.1, None, schema.number("noise between a cascade's stages", 0, 1, unit="on [-1, 1]")),
    "judge_features": Option(8, 4, schema.whole("channels of a judge", 1, 1024)),
}


class Real(NamedTuple):
    """Training and held-out pictures (N, H, W, C) in [-1, 1], and the numbers of their texts."""

    trained: np.ndarray
    trained_labels: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray


def configured(options: SimpleNamespace, row: str) -> Any:
    """The configuration of a row, at the table's own widths and number of steps."""
    config = importlib.import_module(f"configs.stackgan_v2_{options.config}").get_config()
    config.data = options.data or config.data
    config.steps, config.cooldown = options.steps, options.steps // 8
    config.net.update(features=options.features, judge_features=options.judge_features)
    for name, value in ROWS[row].items():
        config.update_from_flattened_dict({name: value})
    if row == ONE:
        config.net.features = as_many(config, weighs(configured(options, FIRST)))
    return config


def weighs(config: Any) -> int:
    """Weights of the configuration's generator; its vocabulary has no part in them."""
    chosen = {**config.net.to_dict(), "size": config.size, "channels": config.channels, "words": 1}
    game = weights.cards.build_game(chosen)
    given = (jnp.zeros(game.noise), jnp.zeros(game.reader.width))
    shapes = jax.eval_shape(lambda: game.tree.init(jax.random.key(0), *given))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def as_many(config: Any, count: int) -> int:
    """The width at which a generator has about `count` weights; they grow with it."""

    @functools.cache
    def known(width: int) -> int:
        config.net.features = width
        return weighs(config)

    above = bisect.bisect_left(range(4 * config.net.features), count, 2, key=known)
    return min((max(above - 1, 2), above), key=lambda width: abs(known(width) - count))


def arguments(config: Any, options: SimpleNamespace, row: str) -> list[str]:
    """The row's flags of `experiments.train`."""
    changed = {**ROWS[row], "steps": config.steps, "cooldown": config.cooldown, "eval_every": max(config.steps // 2, 1)}
    changed |= {"net.features": config.net.features, "net.judge_features": config.net.judge_features}
    changed |= {"data": options.data} if options.data else {}
    return [f"--config=configs/stackgan_v2_{options.config}.py", *(f"--config.{k}={v}" for k, v in changed.items())]


def trained(options: SimpleNamespace, row: str, seed: int) -> generator.TextToImage:
    """The row's generator of a seed, trained where it is not there yet. Raises ValueError where the training failed."""
    config = configured(options, row)
    folder = Path(options.models) / f"{row.lower().replace(' ', '-')}-{seed}"
    given = [*arguments(config, options, row), f"--config.seed={seed}"]
    same = functools.partial(is_of, config)
    return weights.load_generator(trainings.export(f"{row!r}, seed {seed}", folder, config.name, given, same))


def is_of(config: Any, card: dict[str, Any]) -> bool:
    """Whether an export is of as many steps by these networks."""
    net = card.get("generator", {})
    return card.get("steps") == config.steps and {**net, **config.net.to_dict()} == net


def real(config: Any, count: int) -> Real:
    """The pictures of --data, at most `count` held-out ones."""
    parts = []
    for split in ("train", "validation"):
        source = data.resident(Adversarial.source(config, split, str(runtime.cache_folder().parent / "data")))
        parts.append(source.take(range(len(source))))
    units = [np.asarray(data.to_unit(part["image"])) for part in parts]
    labels = [part["label"] for part in parts]
    chosen = np.random.default_rng(0).permutation(len(units[1]))[:count]
    return Real(units[0], labels[0], units[1][chosen], labels[1][chosen])


def flat(pictures: np.ndarray) -> np.ndarray:
    """The pixels of pictures (N, H, W, C) as rows, at most 16 x 16."""
    step = max(pictures.shape[1] // 16, 1)
    side = pictures.shape[1] // step
    return pictures.reshape(len(pictures), side, step, side, step, -1).mean((2, 4)).reshape(len(pictures), -1)


def agreeing(pictures: np.ndarray, labels: np.ndarray, among: np.ndarray, known: np.ndarray) -> float:
    """The share of pictures whose nearest one of `among`, by pixels, has their label."""
    return float(np.mean(known[memorisation.nearest_rows(flat(pictures), flat(among)).place] == labels))


def apart(x: np.ndarray, y: np.ndarray) -> float:
    """The energy distance of two sets of pictures."""
    return float(energy(jnp.asarray(x), jnp.asarray(y)))


class Model(NamedTuple):
    """A trained row: its weights and classes; `draw(given, key, label)`, pictures from coarse to fine, where `given` is
    what it computes with; `own(pictures, labels)`, the share of the largest ones to which their own text is nearest."""

    weights: int
    classes: int
    given: Any
    draw: Callable[[Any, Array, Array], tuple[Array, ...]]
    own: Callable[[Array, Array], float]


def pictures(given: tuple[generator.TextToImage, Array], key: Array, label: Array) -> tuple[Array, ...]:
    """Those of a generator and the tokens of its texts, of one text."""
    model, tokens = given
    return model(key, tokens[label]).pictures


def of_texts(model: generator.TextToImage, count: int) -> Model:
    """A generator of texts, of `count` weights."""
    tokens = jnp.asarray(np.stack([model.tokens(caption) for caption in model.captions]))

    def own(pictures: Array, labels: Array) -> float:
        texts = generator.embedded_texts(model.game, model.params, tokens)
        return float(text.text_match(generator.viewed(model.game, model.params, pictures), texts, labels))

    return Model(count, len(tokens), (model, tokens), pictures, own)


def of_stages(row: str, priors: tuple[Prior, ...], level: float, classes: int) -> Model:
    """A row of `cascade_stages`, which has no encoders."""
    count = sum(leaf.size for prior in priors for leaf in jax.tree.leaves(prior.denoise.params))
    own = lambda pictures, labels: float("nan")
    return Model(count, classes, (priors, jnp.float32(level)), stages.cascaded(row), own)


def model_of(options: SimpleNamespace, row: str, seed: int, classes: int) -> Model:
    """The row's model of a seed, trained where it is not there yet."""
    if row in ROWS:
        return of_texts(trained(options, row, seed), weighs(configured(options, row)))
    tree = configured(options, FIRST)
    chosen = stages.as_many(row, tree, weighs(tree), classes)
    return of_stages(row, stages.trained(options.models, row, seed, chosen), options.level, classes)


@functools.cache
def compiled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `draw` for many keys and labels: once for all models that share it."""
    return jax.jit(jax.vmap(draw, (None, 0, 0)))


def drawn(model: Model, labels: np.ndarray, seed: int) -> tuple[tuple[Array, ...], float]:
    """Pictures of the labels from coarse to fine, each (N, H, W, C), and the milliseconds that one takes."""
    draw = compiled(model.draw)
    asked = (model.given, jax.random.split(seed_key(seed), len(labels)), jnp.asarray(labels))
    jax.block_until_ready(draw(*asked))
    started = time.perf_counter()
    made = jax.block_until_ready(draw(*asked))
    return made, 1000 * (time.perf_counter() - started) / len(labels)


def scores(model: Model, known: Real, count: int, seed: int, seen: features.Known | None = None) -> list[float]:
    """The cells of one model, in the order of `HEAD`, and where it is known what is `seen`, of `features.HEAD`."""
    labels = np.arange(count) % model.classes
    made, cost = drawn(model, labels, seed)
    finest = np.asarray(made[-1])
    pairs = [jax.vmap(adversarial.colour_consistency)(fine, coarse) for fine, coarse in zip(made[1:], made)]
    return [
        apart(finest, known.held_out),
        agreeing(finest, labels, known.trained, known.trained_labels),
        agreeing(known.held_out, known.labels, finest, labels),
        float(np.mean(pairs)) if pairs else float("nan"),
        model.own(made[-1], jnp.asarray(labels)),
        cost,
        *(features.scores(features.FEATURES(finest), labels, seen) if seen else []),
    ]


def cell(values: list[float], digits: int) -> str:
    """Mean ± Student's interval over seeds; "-" for what a row does not have."""
    if np.isnan(values).all():
        return "-"
    mean, half = student(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def rows_of(options: SimpleNamespace) -> list[str]:
    """The chosen rows. Raises ValueError for stages of classes where the texts are captions."""
    rows = published.rows("--methods", options.methods, EVERY)
    taught = [row for row in rows if row in stages.ROWS]
    if taught and options.config == "emoji":
        raise ValueError(f"--methods has {taught[0]!r}, which takes classes, and emoji have captions; leave it out")
    return rows


def main(options: SimpleNamespace) -> published.Table:
    rows, config = rows_of(options), configured(options, FIRST)
    known, lines, every = real(config, options.count), [("", "weights", *HEAD)], []
    seen, below = features.known(*known) if features.suited(known.held_out) else None, [("", *features.HEAD)]
    classes, digits = int(known.trained_labels.max()) + 1, (4, 3, 3, 4, 3, 2, *(features.DIGITS if seen else ()))
    with tqdm(total=len(rows) * options.seeds, unit="model") as bar:
        for row in rows:
            found, model = [], None
            for seed in range(options.seeds):
                bar.set_description(f"{row}, seed {seed}")
                model = model_of(options, row, seed, classes)
                found.append(scores(model, known, options.count, seed, seen))
                bar.update()
            cells = [cell(list(each), places) for each, places in zip(zip(*found), digits, strict=True)]
            lines.append((row, f"{model.weights:,}", *cells[: len(HEAD)]))
            below.append((row, *cells[len(HEAD) :]))
            every.append([score[0] for score in found])
    floor = apart(known.trained[: options.count], known.held_out)
    right = agreeing(known.held_out, known.labels, known.trained, known.trained_labels)
    lines.append(("training pictures", "", f"{floor:.4f}", f"{right:.3f}", f"{right:.3f}", "", "", ""))
    what = f"{options.config}, {config.steps} steps of {config.batch}, {options.seeds} seeds, {options.count} pictures "
    what += f"of each model; {len(known.held_out)} held-out pictures"
    return published.table("\n\n".join([what, published.columns(lines), *further(seen, below, options.count)]), every)


def further(seen: features.Known | None, lines: list[tuple[str, ...]], count: int) -> list[str]:
    """The table of what is seen, with its floor; nothing where nothing is."""
    if seen is None:
        return []
    found = zip(features.floor(seen, count), features.DIGITS, strict=True)
    cells = [f"{value:.{places}f}" for value, places in found]
    return ["by EfficientNet-Lite0's features", published.columns([*lines, ("training pictures", *cells)])]


if __name__ == "__main__":
    published.run(main, OPTIONS)
