"""Make pictures of words: by one call of a generator, or by the stages of a cascade of diffusion models.

The generator that ships knows digits; train others as you like: the configurations are `configs/stackgan_v2_*.py`.

    python -m experiments.generate 7 3
    python -m experiments.generate "red apple" --model=PATH
    python -m experiments.generate River Forest --model=satellite64
    python -m experiments.generate River Forest --model=COARSE,MIDDLE,FINE

A prior with labels draws by classifier-free guidance of --weight, in --steps of Heun's method, or in one step where it
is a consistency model; several are stages, with noise of --level on the coarse picture that each next one is told of.
Its prompts are its labels.

Without a prompt it takes the texts that the model was trained on, up to 10. DIR gets one PNG for each prompt, all
stages one above the other, a draw a column; pictures/ has each finished one; index.html shows all. The same seed makes
the same pictures. `match` is the share of a prompt's pictures to which no text that the model knows is nearer.
"""

from __future__ import annotations

import html
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from diffinv import generator, schema, seed_key, text, weights
from diffinv.data import listing, to_pixels
from experiments.common import stages
from experiments.report import ledger
from experiments.report.shell import paragraphs, shell

MODEL = runtime.flag("model", "stackgan_digits", schema.path("a generator, a prior, or several: paths, or what ships"))
OUT = runtime.flag("out", "runs/generate", schema.path("the folder of the results"))
COUNT = runtime.flag("count", 10, schema.whole("pictures of each prompt", 1, 256))
SEED = runtime.flag("seed", 0, schema.whole("of the noise", low=0))
TRUNCATION = runtime.flag("truncation", 1.0, schema.number("of the noise; less: fewer kinds, likelier ones", 0, 10))
LEVEL = runtime.flag("level", 0.1, stages.LEVEL)
WEIGHT = runtime.flag("weight", 2.0, stages.WEIGHT)
STEPS = runtime.flag("steps", 18, stages.STEPS)
SHOWN = 10
ENLARGED = 2  # times, of the largest picture in the PNG of all stages


def tall(pictures: list[np.ndarray]) -> np.ndarray:
    """Stages (N, h_i, h_i, C) as uint8 one above the other, all as large by repeated pixels, a draw a column."""
    side = ENLARGED * pictures[-1].shape[1]
    rows = [stage.repeat(side // stage.shape[1], 1).repeat(side // stage.shape[1], 2) for stage in pictures]
    return np.concatenate([np.concatenate(list(row), 1) for row in rows])


def write(path: Path, pixels: np.ndarray) -> Path:
    """uint8 (H, W, 1 or 3) as PNG."""
    return ledger.put(path, ledger.png(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)))


def rivals(model: generator.TextToImage, tokens: np.ndarray) -> np.ndarray:
    """The prompts' tokens (P, length), and after them those of all captions that the model knows beside them."""
    read = lambda caption: text.tokens(caption, model.words, model.game.length, strict=False)
    known = [read(caption) for caption in model.captions if text.words(caption)]
    others = [row for row in known if not (tokens == row).all(1).any()]
    return np.stack([*tokens, *others])


def matches(model: generator.TextToImage, pictures: jax.Array, tokens: jax.Array) -> jax.Array:
    """For each prompt the share of its pictures (P, N, H, W, C) to which none of `rivals` is nearer, (P,)."""
    texts = generator.embedded_texts(model.game, model.params, tokens)

    def share(each: jax.Array, prompt: jax.Array) -> jax.Array:
        return text.text_match(generator.viewed(model.game, model.params, each), texts, jnp.full(len(each), prompt))

    return jax.vmap(share)(pictures, jnp.arange(len(pictures)))


def page(folder: Path, entries: list[tuple[str, Path, float | None]], card: dict) -> Path:
    """index.html: every prompt with its stages."""
    block = lambda prompt, path, match: (
        f"<section><h2>{html.escape(prompt)}{'' if match is None else f' <small>match {match:.0%}</small>'}</h2>"
        f'<img src="{html.escape(path.name)}" alt="stages, one above the other"></section>'
    )
    command = f"python -m experiments.generate {listing.printable_name(shlex.join(sys.argv[1:]))}"
    about = [f"{card['name']}: {card.get('data', 'unknown data')}; {card.get('data_licence', 'unknown licence')}"]
    found = shell("Pictures of words", command, [*paragraphs(about), *(block(*entry) for entry in entries)])
    return ledger.put(folder / "index.html", found.encode("utf-8", "replace"))


class Made(NamedTuple):
    """Pictures (P, N, h_i, h_i, C) of every stage, the prompts, their matches, and the milliseconds of one picture."""

    prompts: list[str]
    pictures: list[np.ndarray]
    matches: list[float | None]
    cost: float


def by_generator(path: str, arguments: list[str]) -> Made:
    """All prompts in one program. Raises ValueError for prompts where the generator reads none."""
    model = weights.load_generator(path)
    if arguments and not model.words:
        raise ValueError(f"{MODEL.value} reads no text; leave the prompts out")
    prompts = arguments or [caption for caption in model.captions if text.words(caption)][:SHOWN]
    tokens = np.stack([model.tokens(prompt) for prompt in prompts]) if model.words else None
    prompts = prompts if model.words else ["pictures"]
    keys = jax.random.split(seed_key(SEED.value), (len(prompts), COUNT.value))
    texts = None if tokens is None else jnp.asarray(tokens)
    one = lambda model, key, each: model(key, each, TRUNCATION.value).pictures
    draw = jax.jit(jax.vmap(jax.vmap(one, (None, 0, None)), (None, 0, None if texts is None else 0)))
    made = jax.block_until_ready(draw(model, keys, texts))
    started = time.perf_counter()
    jax.block_until_ready(draw(model, keys, texts))
    each = 1000 * (time.perf_counter() - started) / keys.size
    told = [None] * len(prompts)
    if tokens is not None:
        told = list(map(float, jax.jit(matches)(model, made[-1], jnp.asarray(rivals(model, tokens)))))
    return Made(prompts, [np.asarray(stage) for stage in made], told, each)


def numbers(prompts: list[str], labels: list[str]) -> list[int]:
    """Of the labels that the prompts are, whatever their case. Raises ValueError for one that is none."""
    known = {label.casefold(): i for i, label in enumerate(labels)}
    for prompt in prompts:
        if prompt.casefold() not in known:
            raise ValueError(f"the prompt {prompt!r} is no label of {MODEL.value}: {schema.nearest(prompt, labels)}")
    return [known[prompt.casefold()] for prompt in prompts]


def by_stages(paths: list[str], arguments: list[str]) -> Made:
    """A prompt at a time. Raises ValueError for prompts without labels, and for --truncation."""
    if TRUNCATION.value != 1:
        raise ValueError("--truncation is given, but --model is of priors, which have none; leave it out")
    found = stages.loaded(paths, "--model")
    if arguments and not found.labels:
        raise ValueError(f"{MODEL.value} knows no labels; leave the prompts out")
    prompts = arguments or found.labels[:SHOWN] or ["pictures"]
    chosen = numbers(prompts, found.labels) if found.labels else [None]
    keys = jax.random.split(seed_key(SEED.value), (len(prompts), COUNT.value))
    told = [None if label is None else jnp.int32(label) for label in chosen]
    given = found.priors, jnp.float32(LEVEL.value), jnp.float32(WEIGHT.value)
    draw = jax.jit(jax.vmap(stages.drawing(found.cards, STEPS.value), (None, None, None, 0, None)))
    program, made, spent = draw.lower(*given, keys[0], told[0]).compile(), [], []
    for each, label in tqdm(list(zip(keys, told)), unit="prompt"):
        started = time.perf_counter()
        made.append(jax.device_get(program(*given, each, label)))
        spent.append(1000 * (time.perf_counter() - started) / COUNT.value)
    pictures = [np.clip(np.stack(stage), -1, 1) for stage in zip(*made)]
    return Made(prompts, pictures, [None] * len(prompts), min(spent))


def main(arguments: list[str]) -> None:
    paths = stages.split(MODEL.value)
    card = weights.read_card(paths[-1])
    folder = Path(runtime.writable(OUT.value))
    alone = len(paths) == 1 and weights.cards.kind_of(card) == "generator"
    made = by_generator(paths[0], arguments) if alone else by_stages(paths, arguments)
    entries = []
    for prompt, stem, match, *found in zip(made.prompts, listing.stems(made.prompts), made.matches, *made.pictures):
        pixels = [to_pixels(stage) for stage in found]
        entries.append((prompt, write(folder / f"{stem}.png", tall(pixels)), match))
        for number, final in enumerate(pixels[-1]):
            write(folder / "pictures" / f"{stem}-{number}.png", final)
        print(f"{entries[-1][1]}  {prompt}" + ("" if match is None else f"  match {match:.0%}"))
    print(f"{made.cost:.2f} ms a picture; page: {page(folder, entries, card)}")


if __name__ == "__main__":
    runtime.run(main, positional=True)
