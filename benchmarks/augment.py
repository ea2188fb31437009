"""Diffusion augmentation of digits: what a seed costs, and how much of it is the network, in one run.

    python -m benchmarks.augment [--rounds 5]

A seed is that of configs/augment_few_shot.py: a prior of seven classes trained, three embeddings learnt, 255 pictures
made by SDEdit. Printed are its seconds, with and without compilation (goal: under 60 on two cores); the time of
generation over that of as many evaluations of the network alone, which take turns with it (goal: at most 1.11, 90 % of
the time being the network's); and ten seeds of fine-tuning and generation in one vmapped program over ten calls of one.
Times are of the processor, which other work does not lengthen as it does the clock; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np

from configs import augment_few_shot
from diffinv import augmentation, seed_key
from diffinv.augmentation import Example, Recipe
from experiments.augmenting import bench, pool, teaching
from experiments.augmenting.splits import of_classes

SEEDS, GOAL_SECONDS, GOAL_RATIO = 10, 60, 1.11


def clock(program: Callable[..., Any], *given: Any) -> float:
    """Processor seconds."""
    start = time.process_time()
    jax.block_until_ready(program(*given))
    return time.process_time() - start


def seed_of(shared: bench.Bench, split: Any, seed: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    wall, start = time.perf_counter(), time.process_time()
    bench.draw(shared, split, seed)
    return time.perf_counter() - wall, time.process_time() - start


def generation(prior: Any, recipe: Recipe, keys: Any, labels: Any, images: Any) -> Any:
    one = lambda key, label, image: augmentation.generate(key, prior, recipe, Example(label, image)).x
    return jax.vmap(one)(keys, labels, images)


def evaluations(prior: Any, steps: int, x: Any, labels: Any) -> Any:
    """As many evaluations as Heun's method makes, each of the state that the last one gave, and nothing between."""
    t = jnp.asarray(0.01)

    def one(x: Any, label: Any) -> Any:
        told = prior.given(label=label)
        return jax.lax.scan(lambda x, _: (told.denoise(x, t), None), x, None, 2 * steps)[0]

    return jax.vmap(one)(x, labels)


def ten(learnt: Any, recipe: Recipe, steps: int) -> Callable[..., Any]:
    """Fine-tuning and generation of one seed, to be vmapped over its keys and pictures."""

    def one(key: Any, prior: Any, images: Any, labels: Any) -> Any:
        found = augmentation.finetune(key, prior, learnt, images, labels, steps)
        taught = augmentation.with_learnt(prior, learnt, found.values)
        count = len(images)
        return generation(taught, recipe, jax.random.split(key, count), labels, images)

    return one


def seeds(config, shared: bench.Bench, splits: list[Any]) -> None:
    """Two seeds, of which the first compiles."""
    for seed, what in enumerate(("first", "next")):
        wall, processor = seed_of(shared, splits[seed], seed)
        times = f"{wall:.1f} s by the clock, {processor:.1f} s of the processor"
        print(f"{what} seed, 255 pictures: {times}; goal {GOAL_SECONDS} s by the clock")


def share(config, shared: bench.Bench, split: Any, prior: Any, recipe: Recipe, rounds: int) -> None:
    """Generation against its network."""
    few = of_classes(split.train, split.rare)
    place = np.resize(np.arange(len(few.labels)), 255)
    labels, images = jnp.asarray(shared.teacher.labels(split)[few.labels[place]]), jnp.asarray(few.images[place])
    given = (prior, jax.random.split(seed_key(1), 255), labels, images)
    whole = jax.jit(lambda prior, *given: generation(prior, recipe, *given)).lower(*given).compile()
    network = lambda prior, images, labels: evaluations(prior, recipe.steps, images, labels)
    alone = jax.jit(network).lower(prior, images, labels).compile()
    ratios = [clock(whole, *given) / clock(alone, prior, images, labels) for _ in range(rounds)]
    print(f"generation / network alone: {statistics.median(ratios):.3f}; goal {GOAL_RATIO}")


def together(config, shared: bench.Bench, splits: list[Any], prior: Any, recipe: Recipe, rounds: int) -> None:
    """Ten seeds in one program against ten calls."""
    parts = [of_classes(split.train, split.rare) for split in splits]
    told = [jnp.asarray(shared.teacher.labels(split)[part.labels]) for split, part in zip(splits, parts)]
    images = jnp.stack([jnp.asarray(part.images) for part in parts])
    keys, labels = jax.random.split(seed_key(2), SEEDS), jnp.stack(told)
    one = ten(augmentation.embeddings((7, 8, 9)), recipe, config.embed.steps)
    single = jax.jit(one).lower(keys[0], prior, images[0], labels[0]).compile()
    many = jax.jit(jax.vmap(one, (0, None, 0, 0))).lower(keys, prior, images, labels).compile()
    each = lambda: [single(keys[i], prior, images[i], labels[i]) for i in range(SEEDS)]
    ratios = [clock(many, keys, prior, images, labels) / clock(each) for _ in range(rounds)]
    print(f"ten seeds in one program / ten calls: {statistics.median(ratios):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    runtime.start()
    config = augment_few_shot.get_config()
    config.methods, config.sigmas = "SDEdit", (1.0,)
    found = pool.pool(config)
    shared = bench.bench(config, teaching.teacher(config, found.classes))
    splits = [pool.split(config, found, seed, config.rare) for seed in range(SEEDS)]
    prior, recipe = shared.teacher.prior(seed_key(0), splits[0]), Recipe(sigma=1.0, steps=config.sample_steps)
    share(config, shared, splits[0], prior, recipe, rounds)
    together(config, shared, splits, prior, recipe, rounds)
    seeds(config, shared, splits)


if __name__ == "__main__":
    main()
