"""What a training run of a consistency model consists of: the method's loss, its two-step samples; see `run.Run`.

Methods of one time (ct, cd, ict, ect, scm) train the prior's own network under `EDM`, and may start from its weights;
those of two times (ctm, shortcut, meanflow, imm) have one input channel more and run under `Flow`. cd needs the start:
it is the teacher.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import consistency, data, process, times
from diffinv.linalg import norm
from diffinv.schema import Schema, choice, number, several, whole
from experiments.common import runtime
from experiments.tasks.denoising import MEAN, SPREAD, Denoising

TWO_TIMES = ("ctm", "shortcut", "meanflow", "imm")
HUBER = consistency.pseudo_huber()
LOSSES = {
    "ct": lambda task, **o: consistency.ct(*task.about, task.points, task.growing(), HUBER, task.last_average(), **o),
    "cd": lambda task, n, **o: consistency.cd(*task.about, task.points, task.constant(n), task.teacher, HUBER, **o),
    "ict": lambda task, s0, s1, **o: consistency.ict(*task.about, task.doubling(s0, s1), **o),
    "ect": lambda task, **o: consistency.ect(*task.about, **o),
    "scm": lambda task, **o: consistency.scm(*task.about, sigma_data=task.config.sigma_data, **o),
    "ctm": lambda task, n, **o: consistency.ctm(*task.about, times.log_snr(task.process, n), **o),
    "shortcut": lambda task, **o: consistency.shortcut(*task.about, **o),
    "meanflow": lambda task, **o: consistency.meanflow(*task.about, **o),
    "imm": lambda task, **o: consistency.imm(*task.about, sigma_data=task.config.sigma_data, **o),
}
STEPS = 10**9
OPTIONS: Schema = {
    "ct": {},
    "cd": {"n": whole("points", 2, 100_000)},
    "ict": {
        "s0": whole("first points", 1, 100_000),
        "s1": whole("last points", 1, 1_000_000),
        "log_sigma_mean": MEAN,
        "log_sigma_std": SPREAD,
    },
    "ect": {
        "every": whole("steps a stage", 1, STEPS),
        "q": number("shrinks the gap from stage to stage", above=1, high=1e6),
        "c": number("of the pseudo-Huber distance", low=0, high=1e3),
        "k": number("of the mapping", low=0, high=1e3),
        "b": number("of the mapping", low=0, high=1e3),
    },
    "scm": {
        "log_sigma_mean": MEAN,
        "log_sigma_std": SPREAD,
        "warmup": whole("steps until the tangent counts in full", 1, STEPS),
        "constant": number("of the tangent's normalisation", above=0, high=1e3),
    },
    "ctm": {"n": whole("points", 2, 100_000), "denoising": number("weight of the denoising loss", low=0, high=1e6)},
    "shortcut": {
        "sections": whole("smallest steps, a power of 2", 1, 2**20),
        "bootstrap": number("share of the batch", low=0, high=1),
        "clip": number("of the targets", above=0, high=1e6),
    },
    "meanflow": {
        "mean": number("of the logit of time", -20, 20),
        "std": number("of the logit of time", above=0, high=20),
        "distinct": number("share of pairs of two times", low=0, high=1),
        "power": number("of the adaptive weight", low=0, high=8),
        "constant": number("of the adaptive weight", above=0, high=1e3),
    },
    "imm": {
        "group": whole("pictures of a kernel", 1, 2**20),
        "a": number("exponent of the weight", low=0, high=8),
        "b": number("shift of the weight", -50, 50),
        "halvings": whole("of the log-SNR's range", 1, 64),
    },
}
FIELDS: Schema = {
    "method": choice(tuple(LOSSES), "the loss"),
    "middle": number("noise of the second step", above=0, high=1e4),
    "consistency_levels": several(number("at which two near levels are compared", above=0, high=1e4), 1, 16),
    "options": OPTIONS,
}


def energy(x: jax.Array, y: jax.Array) -> jax.Array:
    """The unbiased energy distance `2 E|x - y| - E|x - x'| - E|y - y'|` of two sets, per root of a coordinate."""

    def mean(a, b, same):
        square = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1)[None] - 2 * jnp.dot(a, b.T, precision="highest")
        distance = jnp.sqrt(jnp.maximum(square, 0.0)) * (1 - same * jnp.eye(len(a), len(b)))
        return jnp.sum(distance) / (len(a) * (len(b) - same))

    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return (2 * mean(x, y, 0) - mean(x, x, 1) - mean(y, y, 1)) / x.shape[1] ** 0.5


class Consistency(Denoising):
    """A consistency model of pictures, with or without labels."""

    contextual = True

    @staticmethod
    def fields(config) -> Schema:
        """Beside those of a denoising prior: the loss, and the settings of all losses."""
        return {**Denoising.fields(config), **FIELDS}

    @staticmethod
    def check(config) -> None:
        """Curricula grow."""
        ict = config.options.ict
        if ict.s0 > ict.s1:
            raise ValueError(f"config.options.ict.s1 is {ict.s1}; give at least s0, which is {ict.s0}")
        Denoising.check(config)

    def __init__(self, config, source: data.Source):
        super().__init__(config, source)
        method = runtime.choose("config.method", config.method, list(LOSSES))
        if method == "cd" and not config.start:
            raise ValueError('config.start is "", but cd has no teacher without it; name a checkpoint, such as prior32')
        if method in TWO_TIMES and config.start:
            raise ValueError(
                f"config.start is {config.start}, but {method}'s network has a second time; leave it empty"
            )
        if method == "imm" and config.batch % (config.accumulate * config.options.imm.group):
            raise ValueError(f"config.batch is {config.batch}; imm needs a multiple of its group in every slice")
        self.two_times = method in TWO_TIMES
        self.process = process.Flow() if self.two_times else self.process
        self.about, self.points = (self.model, self.process), consistency.karras_points(self.process)
        options = {**config.options[method].to_dict(), "dropout": config.net.dropout > 0}
        self.consistency_loss = LOSSES[method](self, **options)
        self.rates = [consistency.ema_rate(self.growing())] if method == "ct" else []
        self.middle = times.from_sigma(self.process, jnp.float32(config.middle))

    def last_average(self) -> int:
        """Index of CT's own average, which comes after those to choose from."""
        return len(self.config.ema_half_lives)

    def constant(self, n: int):
        """CD's curriculum, n points throughout."""
        return lambda step: jnp.int32(n)

    def growing(self):
        """CT's curriculum over the whole run."""
        return consistency.progressive(self.config.steps)

    def doubling(self, s0: int, s1: int):
        """iCT's curriculum: its eight stages over the whole run, whose last has s1 steps."""
        return consistency.doubling(s0, s1, max(1, self.config.steps // (int(np.log2(s1 // s0)) + 1)))

    def init(self, key):
        seen = (*self.shape[:2], self.shape[2] + self.two_times)
        return self.net.init(key, jnp.zeros(seen), jnp.zeros(()), **self.nothing())

    def teacher(self, params):
        return di.NetworkDenoiser(params, self.process, self.net.apply, **self.parametrisation)

    def model(self, params):
        if not self.two_times:
            return self.teacher(params)
        told = consistency.second_channel(self.net.apply)
        return consistency.FlowMap(di.NetworkDenoiser(params, self.process, told, **self.parametrisation))

    def frozen(self, params):
        return jax.tree.map(jnp.copy, params) if self.config.method == "cd" else None

    def loss(self, key, params, batch, context):
        return self.consistency_loss(key, params, self.examples(key, batch), context)

    def prior(self, params):
        return di.Prior(self.process, self.model(params), self.shape)

    def steps(self, key, prior):
        """One picture by one step, and the same after a second one from the middle level: Song et al.'s algorithm 1."""
        first, second = jax.random.split(key)
        once = prior.denoise(prior.start(first, jnp.float32(1.0)), jnp.float32(1.0))
        return once, prior.denoise(self.process.perturb(once, self.middle).sample(second), self.middle)

    def errors(self, key, params, batch):
        """Energy distances of one- and two-step samples to the pictures, and how far two near levels disagree."""
        images = data.to_unit(batch["image"])
        keys, told = jax.random.split(key, len(images)), self.told(jax.random.fold_in(key, 2), images, batch["label"])
        once, twice = jax.vmap(lambda k, told: self.steps(k, self.prior(params).given(**told)))(keys, told)

        def disagreement(key, x0, told, level):
            denoise = self.model(params).given(**told)
            at = times.from_sigma(self.process, jnp.stack([level, 0.9 * level]))
            z = jax.random.normal(key, x0.shape)
            here, there = (denoise(self.process.perturb(x0, t).at(z), t) for t in at)
            return norm(here - there) / x0.size**0.5

        apart = lambda level: jnp.mean(jax.vmap(disagreement, (0, 0, 0, None))(keys, images, told, jnp.float32(level)))
        found = {"energy, 1 step": energy(once, images), "energy, 2 steps": energy(twice, images)}
        return found | {f"near {level:g}": apart(level) for level in self.config.consistency_levels}

    def prompts(self, source: data.Source, count: int):
        """Those of a denoising prior, and the number of steps: one in the left half of a row, two in the right."""
        right = np.arange(count) % self.config.sample_grid >= self.config.sample_grid / 2
        return {**super().prompts(source, count), "twice": right}

    def sample(self, key, params, prompt):
        once, twice = self.steps(key, self.asked(self.prior(params), prompt))
        return jnp.where(prompt["twice"], twice, once)

    def card(self) -> dict:
        fields = {field.name: getattr(self.process, field.name) for field in dataclasses.fields(self.process)}
        options = self.config.options[self.config.method].to_dict()
        method = {"name": self.config.method, "second_time": self.two_times, "middle": self.config.middle, **options}
        card = {**super().card(), "process": {"name": type(self.process).__name__, **fields}, "consistency": method}
        return card | {
            "schedule": f"{self.config.method}; one step on [1, 0], two by way of noise {self.config.middle:g}"
        }
