"""One seed of the judgement: a split, every arm's training set, what each classifier makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffinv import seed_key
from diffinv.augmentation.recipes import Learns, Plan
from diffinv.prior import Prior
from experiments.augmenting import making, quality
from experiments.augmenting.baselines import ALONE, Arm, baselines
from experiments.augmenting.classifiers import CLASSIFIERS, suited
from experiments.augmenting.labelled import Training
from experiments.augmenting.making import Made
from experiments.augmenting.methods import METHODS, Setting, Variants, moves, moving
from experiments.augmenting.splits import FewShot
from experiments.augmenting.teaching import Teacher, taught
from experiments.augmenting.verdict import SCORES
from experiments.common.commandline import listed
from experiments.evaluation.embedders import Embedder, embedders

BESIDE = " beside "
Scores = dict[str, dict[str, dict[str, float]]]
"""By part ("validation", "test"), classifier and score."""


class Bench(NamedTuple):
    """What all seeds share: programs are compiled once.

    Attributes:
      config: the configuration.
      teacher: where priors come from.
      learn: see `teaching.taught`.
      run: see `making.generator`.
      methods: plans by method and strength.
      given: networks of files, for distances.
      folder: where their features are kept.
    """

    config: Any
    teacher: Teacher
    learn: Callable[..., Prior]
    run: Callable[..., np.ndarray]
    methods: dict[str, Variants]
    given: Sequence[Embedder]
    folder: Path


def judged_against(config) -> dict[str, Arm]:
    """The baselines that the pictures allow."""
    return baselines(config.shift, config.flip, config.turn)


def bench(config, teacher: Teacher, folder: Path) -> Bench:
    """Of a configuration; the run's folder. Raises OSError or ValueError, which name the field, as `embedders` does."""
    change = moves(config)
    setting = Setting(teacher.null, teacher.sigma_data, tuple(config.sigmas), config.guidance, config.sample_steps)
    start = lambda plan: plan if change is None else moving(plan, change)
    methods = {
        name: {strength: start(plan) for strength, plan in METHODS[name](setting).items()}
        for name in listed(config.methods)
    }
    learn, run = taught(config, teacher, change), making.generator(config.sample_batch)
    return Bench(config, teacher, learn, run, methods, embedders(config), folder / "features")


def judges(config, split: FewShot) -> dict[str, Any]:
    """The classifiers by name."""
    return {name: CLASSIFIERS[name] for name in listed(config.judges) or suited(split.train.images)}


def scores(config, split: FewShot, training: Training, seed: int) -> Scores:
    """Of the classifiers after training, on the validation part and on the test."""
    parts = {"validation": split.validation, "test": split.test}
    images = np.concatenate([part.images for part in parts.values()])
    ends = np.cumsum([len(part.labels) for part in parts.values()])
    told: Scores = {name: {} for name in parts}
    for name, classify in judges(config, split).items():
        predicted = np.split(classify(seed, training, images), ends[:-1])
        for (part, data), each in zip(parts.items(), predicted, strict=True):
            told[part][name] = {score: f(data.labels, each, split.rare) for score, f in SCORES.items()}
    return told


def timed(seconds: dict[str, float], name: str, run: Callable[[], Any]) -> Any:
    """What `run` gives; its seconds are added to the account."""
    started = time.perf_counter()
    found = jax.block_until_ready(run())
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started, 3)
    return found


class Drawn(NamedTuple):
    """What one seed makes of one split, before anything is judged; the test part has no share in it.

    Attributes:
      made: by method and strength.
      kept: what the filters left of each.
      seconds: of the prior, of fine-tuning and of generation.
    """

    made: dict[tuple[str, str], Made]
    kept: dict[tuple[str, str], Any]
    seconds: dict[str, float]


def draw(bench: Bench, split: FewShot, seed: int) -> Drawn:
    """All diffusion methods on the training part of a split."""
    config, key, count = bench.config, seed_key(seed), making.many(bench.config, split)
    seconds: dict[str, float] = {}
    prior = timed(seconds, "prior", lambda: bench.teacher.prior(jax.random.fold_in(key, 0), split))
    told, priors, found, kept = bench.teacher.labels(split), dict[Learns, Prior](), {}, {}
    for method, variants in bench.methods.items():
        for strength, plan in variants.items():
            if plan.learns not in priors:
                learn = lambda learns=plan.learns: bench.learn(jax.random.fold_in(key, 1), prior, learns, split)
                priors[plan.learns] = timed(seconds, f"fine-tuning, {plan.learns.__name__}", learn)
            number = jax.random.fold_in(key, 2 + len(found))
            make = lambda plan=plan, number=number: making.make(
                number, bench.run, priors[plan.learns], plan, split, told, count
            )
            found[method, strength] = timed(seconds, f"making, {method}", make)
            kept[method, strength] = making.kept(config, split, found[method, strength], f"{method} {strength}".strip())
    return Drawn(found, kept, seconds)


def variant(strength: str, other: str) -> str:
    """The name of a strength whose pictures stand beside those of a baseline."""
    return strength if other == ALONE else f"{strength}{BESIDE}{other}".strip()


def alone(named: str) -> str:
    """The strength in a variant's name."""
    return named.partition(BESIDE.strip())[0].strip()


def utilised(
    bench: Bench, split: FewShot, drawn: Drawn, named: tuple[str, str], plan: Plan, seed: int
) -> Iterator[tuple[str, Training]]:
    """The training sets of a method's pictures: alone, or half of them and half of a baseline's, `config.beside`."""
    arms, half = judged_against(bench.config), making.many(bench.config, split) // 2
    for other in listed(bench.config.beside):
        rng = np.random.default_rng([seed, list(arms).index(other)])
        companion = None if other == ALONE else arms[other](rng, split, half)
        yield other, making.used(plan, split, drawn.made[named], drawn.kept[named].mask, companion)


def record(bench: Bench, split: FewShot, seed: int, watch: Callable[[str], None]) -> dict[str, Any]:
    """What one seed tells, as JSON holds it."""
    config, arms = bench.config, {}
    for number, (name, arm) in enumerate(judged_against(config).items()):
        watch(name)
        training = arm(np.random.default_rng([seed, number]), split, making.many(config, split))
        arms[name] = {"": scores(config, split, training, seed)}
    watch("prior and pictures")
    drawn = draw(bench, split, seed)
    for method, variants in bench.methods.items():
        watch(method)
        arms[method] = {
            variant(strength, other): scores(config, split, training, seed)
            for strength, plan in variants.items()
            for other, training in utilised(bench, split, drawn, (method, strength), plan, seed)
        }
    named = lambda pair: " ".join(filter(None, pair))
    return {
        "seed": seed,
        "rare": list(split.rare),
        "pictures": {"train": len(split.train.labels), "test": len(split.test.labels)},
        "made": making.many(config, split) * len(split.rare),
        "arms": arms,
        "taken": {named(pair): kept.taken for pair, kept in drawn.kept.items()},
        "quality": {
            named(pair): quality.of(split, made, bench.given, bench.folder) for pair, made in drawn.made.items()
        },
        "seconds": drawn.seconds,
    }


def chosen(record: dict[str, Any], arm: str, judge: str) -> str:
    """The strength that is best on the validation part, by balanced accuracy; the first of equal ones."""
    variants = record["arms"][arm]
    return max(variants, key=lambda strength: variants[strength]["validation"][judge]["balanced accuracy"])


def score(record: dict[str, Any], arm: str, judge: str, what: str, strength: str | None = None) -> float:
    """On the test, at the chosen strength or at another."""
    strength = chosen(record, arm, judge) if strength is None else strength
    return record["arms"][arm][strength]["test"][judge][what]
