"""Training for so many seconds rather than so many steps, by the functions that `experiments.train` runs.

The pictures lie on the device, and each batch is drawn there: neither TFDS nor grain is needed, and nothing waits for a
disk. The learning rate stays up until the cool-down is due; its length in steps is then what the measured rate leaves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffinv import data, weights
from diffinv.data.builders import Source
from experiments.tasks.run import Run, export, halved, tiled

ENDLESS = 10**9
COOLING, JUDGING = 0.3, 0.08
"""Shares of the time: of the cool-down with its compilation, and of choosing and writing what was trained."""


def feed(run: Run, source: Source) -> Callable[[int], dict[str, jax.Array]]:
    """Batch n as a function of n and of the run's seed: each epoch a new order of all pictures, all on the device."""
    rows = source.take(range(len(source)))
    images, labels = jax.device_put((rows["image"], rows["label"]), run.whole)
    count, size = len(source), run.config.batch
    epoch = max(count // size, 1)

    def draw(images: jax.Array, labels: jax.Array, n: jax.Array) -> dict[str, jax.Array]:
        order = jax.random.permutation(jax.random.fold_in(run.key, n // epoch), count)
        index = order[(n % epoch * size + jnp.arange(size, dtype=jnp.int32)) % count]
        return {"image": images[index], "label": labels[index]}

    drawn = jax.jit(draw, out_shardings=run.rows)
    return lambda n: drawn(images, labels, np.int32(n))


def changed(config: Any, **changes: Any) -> Any:
    """A copy of a configuration with other values."""
    copy = config.copy_and_resolve_references()
    copy.update(changes)
    return copy


class Timed(NamedTuple):
    """What some seconds of training gave.

    Attributes:
      run, state: of the cool-down, at its end.
      rate: pictures a second, without compilation where there was time for more than the step that compiles.
      seconds: of everything.
      losses: the last training losses.
    """

    run: Run
    state: Any
    rate: float
    seconds: float
    losses: list[float]


def advance(run: Run, state: Any, batch: Callable[[int], Any], goes_on: Callable[[int], bool]) -> tuple:
    """(state, seconds of the first step, seconds and number of the others, last losses), while `goes_on(steps done)`.

    One step ahead of what it waits for, so that the device is never idle.
    """
    begun, losses, done = time.monotonic(), [], int(state.step)
    state, before = run.step(state, batch(done))
    jax.block_until_ready(before)
    first, since, count = time.monotonic() - begun, time.monotonic(), 0
    while goes_on(count + 1):
        state, metrics = run.step(state, batch(done + count + 1))
        losses = [*losses[-99:], float(before.loss)]  # waits for the step before
        before, count = metrics, count + 1
    jax.block_until_ready(state)
    return state, first, time.monotonic() - since, count, [*losses, float(before.loss)]


def train_for(config: Any, source: Source, seconds: float, begun: float | None = None) -> Timed:
    """Trains `config` for `seconds` since `begun` (monotonic, by default now), all compilation included.

    `config.warmup` steps up, then constant; the last part of the time is the cool-down to 0. `config.steps` and
    `config.cooldown` are set here. The state passes from one schedule to the other, as in a restart with other steps.
    """
    begun = time.monotonic() if begun is None else begun
    left = lambda: seconds - (time.monotonic() - begun)
    run = Run(changed(config, steps=ENDLESS, cooldown=1), source)
    batch = feed(run, source)
    going = lambda _: left() > (COOLING + JUDGING) * seconds
    state, first, spent, count, losses = advance(run, run.init(), batch, going)
    pace = count / spent if count else 1 / first
    here = int(state.step)
    steps = max(1, int(pace * (left() - JUDGING * seconds - min(first, COOLING * seconds / 2))))
    run = Run(changed(config, steps=max(here, config.warmup) + steps, cooldown=steps), source)
    going = lambda done: done < steps and left() > JUDGING * seconds / 2
    state, _, more, others, cooled = advance(run, state, batch, going)
    known = (count + others, spent + more) if count + others else (1, first)
    rate = config.batch * known[0] / max(known[1], 1e-6)
    return Timed(run, state, rate, time.monotonic() - begun, losses + cooled)


def judged(judge: Run, timed: Timed, held_out: Source) -> tuple[int, dict[str, float]]:
    """The average with the smallest mean held-out loss, and its losses, by the network of `judge`."""
    averages = timed.state.ema[: len(timed.run.config.ema_half_lives)]
    losses = [judge.held_out(average, held_out) for average in averages]
    means = list(map(mean, losses))
    chosen = int(np.argmin(np.where(np.isfinite(means), means, np.inf)))
    return chosen, losses[chosen]


def mean(losses: dict[str, float]) -> float:
    """Of the held-out losses over the noise levels."""
    return float(np.mean(list(losses.values())))


def write(judge: Run, timed: Timed, source: Source, held_out: Source, folder: str) -> dict[str, Any]:
    """The better average in half precision, with its card, which describes the network of `judge`; returns the card."""
    chosen, losses = judged(judge, timed, held_out)
    told = halved(judge, timed.state.ema[chosen], losses, held_out)
    told |= {"architecture": judge.card()["architecture"], "trained_in": timed.run.config.net.dtype}
    export(timed.run, timed.state, chosen, timed.seconds, losses, source, folder, **told)
    return weights.read_card(os.path.join(folder, timed.run.config.name))


def show(judge: Run, timed: Timed, held_out: Source, path: Path) -> None:
    """A square of samples of the first average, as a picture file."""
    from PIL import Image

    pixels = tiled(data.to_pixels(judge.samples(timed.state.ema[0], held_out)), judge.config.sample_grid)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
