"""Train a prior, a consistency model, an upscaler: what `config.task` says; copy this file and change it.

    python -m experiments.train --config=configs/prior32.py --config.data=PATH --workdir=DIR

Killed at any time, the same command goes on from the last checkpoint to the same result; SIGTERM saves one first. The
learning rate is constant after a warm-up and falls to 0 over the last `cooldown` steps, so that `--config.steps` may be
moved on a restart. `--export=DIR` writes EMA weights and their card from the latest checkpoint, and trains nothing.
On several hosts start it once on each: see docs/running-at-scale.md.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import sys
import time
from pathlib import Path

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import numpy as np
import tqdm
from absl import flags

from diffinv import data, schema
from diffinv.weights import snapshots
from experiments.common import keeping, profiling, reading
from experiments.common.commandline import listed
from experiments.report import writers
from experiments.report.series import Series
from experiments.tasks import fields
from experiments.tasks.run import Run, export, halved, require_free, require_same, task, tiled

flags.adopt_module_key_flags(reading)
flags.adopt_module_key_flags(profiling)
CONFIG = runtime.config_flag(None, "configs/NAME.py, or configs/NAME.py:smoke", fields.fields, fields.check)
WORKDIR = runtime.flag("workdir", None, schema.path("folder for checkpoints, metrics and samples"))
EXPORT = runtime.flag("export", None, schema.path("write weights and card of the latest checkpoint here, and stop"))
WRITERS = runtime.flag(
    "writers",
    "",
    schema.either(
        schema.exactly("", "'' for tensorboard where it is installed"),
        schema.choices(list(writers.WRITERS)),
        meaning="where metrics go beside metrics.jsonl",
    ),
)
HALF = runtime.flag("half", False, schema.switch("store what is exported as float16; the card says what that costs"))


def data_folder() -> str:
    """Where prepared pictures are kept: inside DIFFINV_CACHE, else beside the compiled programs."""
    given = os.environ.get("DIFFINV_CACHE")
    return os.path.join(given, "data") if given else str(runtime.cache_folder().parent / "data")


def sources(config) -> tuple[data.Source, data.Source]:
    """(training, held-out) pictures; prepared by the first process, while the others wait."""
    folder = config.data_folder or data_folder()
    quiet()
    watch = functools.partial(tqdm.tqdm, desc="preparing", unit="picture", mininterval=1, disable=not runtime.first())
    make = lambda split: task(config).source(config, split, folder, watch)
    if runtime.first():
        print(f"reading the pictures; what is prepared once is kept in {folder}", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS says that it downloads
            make("train")
    runtime.together("data")
    found = make("train"), make("validation")
    if found[0].skipped and runtime.first():
        print(f"{len(found[0].skipped)} images were left out: {found[0].skipped[:10]}", flush=True)
    return tuple(map(data.resident, found)) if config.resident else found


def series(step: int) -> Series:
    """Where metrics go, from this step on."""
    if WRITERS.value or importlib.util.find_spec("tensorboard"):
        return Series(WORKDIR.value, step, listed(WRITERS.value or "tensorboard"))
    print("metrics.jsonl only; for TensorBoard files: pip install tensorboard", flush=True)
    return Series(WORKDIR.value, step)


def quiet() -> None:
    """No progress bars of TFDS, which fill the terminal."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:  # the data say what is missing, where they need it
        return
    tfds.disable_progress_bar()


class Loop:
    """What goes on beside the steps: checkpoints, metrics, samples, and the watch over them."""

    def __init__(self, run: Run, manager, state, about: dict, held_out: data.Source):
        self.run, self.manager, self.state, self.held_out = run, manager, state, held_out
        self.config, self.seconds, self.started = run.config, about.get("seconds", 0.0), time.time()
        self.saved, self.mark = time.time(), (time.time(), int(state.step))
        self.losses, self.evaluated = about.get("held_out", {}), about.get("evaluated", 0)
        self.series = series(int(state.step)) if runtime.first() and not EXPORT.value else None

    def elapsed(self) -> float:
        return self.seconds + time.time() - self.started

    def keep(self, step: int, feed) -> None:
        """Saves the state, the data iterator's and the last metrics, without waiting for the disk."""
        about = {"seconds": self.elapsed(), "data": feed.get_state()}
        about |= {"held_out": self.losses, "evaluated": self.evaluated, "of": self.run.identity}
        snapshots.save_snapshot(self.manager, step, self.state, about)
        self.saved = time.time()

    def log(self, step: int, metrics, bar) -> None:
        loss, norm, skipped, row = (float(value) for value in metrics)
        since, last = self.mark
        rate, self.mark = self.config.batch * (step - last) / (time.time() - since), (time.time(), step)
        bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s, skipped {skipped:.0f}", refresh=False)
        line = {"loss": loss, "grad_norm": norm, "skipped": int(skipped), "images_per_s": rate}
        if self.series:
            self.series.write(step, {**line, "seconds": self.elapsed()})

    def watch(self, step: int, metrics) -> None:
        """Stops after too many steps in a row that were not finite."""
        row = int(metrics.row)
        if row < self.config.patience:
            return
        size, order = self.config.batch, data.order(self.run.count, self.config.seed)
        ids = [int(order[i]) for i in range((step - 1) * size, step * size)]
        self.manager.wait_until_finished()
        good = os.path.join(str(self.manager.directory), str(self.manager.latest_step()))
        raise ValueError(
            f"loss or gradient were not finite {row} times in a row, up to step {step}, whose batch holds the pictures "
            f"{ids[:16]}{'...' if len(ids) > 16 else ''}; the last good checkpoint is {good}"
        )

    def evaluate(self, step: int) -> None:
        """Held-out errors, and the sample grid, of the first average."""
        weights = self.state.ema[0]
        self.losses, self.evaluated = self.run.held_out(weights, self.held_out), step
        if (alarm := self.run.task.alarm(self.losses)) and runtime.first():
            print(f"step {step}: {alarm}", file=sys.stderr, flush=True)
        samples = self.run.samples(weights, self.held_out)
        if self.series:
            self.series.write(step, {"held_out": self.losses})
            self.series.picture(step, "samples", tiled(data.to_pixels(samples), self.config.sample_grid))

    def best(self) -> tuple[int, dict[str, float]]:
        """The average with the smallest mean held-out loss, and its losses."""
        averages = self.state.ema[: len(self.config.ema_half_lives)]
        known = [self.losses] if self.evaluated == int(self.state.step) else []
        losses = known + [self.run.held_out(weights, self.held_out) for weights in averages[len(known) :]]
        means = np.asarray([np.mean(list(each.values())) for each in losses])
        chosen = int(np.argmin(np.where(np.isfinite(means), means, np.inf)))
        return chosen, losses[chosen]

    def train(self, feed, preempted: runtime.Preemption) -> bool:
        """From the state's step to `config.steps`; False where it was preempted."""
        config, start, before = self.config, int(self.state.step), None
        if start and start % config.eval_every == 0 and self.evaluated != start:
            self.evaluate(start)  # SIGTERM came between the step and its evaluation
        if start < config.steps and runtime.first():
            print(f"compiling the step of {config.batch} pictures, once; then the bar moves", flush=True)
        options = {"mininterval": 5, "unit": "step", "disable": not runtime.first()}
        with tqdm.tqdm(range(start, config.steps), initial=start, total=config.steps, **options) as bar:
            for step in bar:
                profiling.before_round(2, before)
                self.state, metrics = self.run.step(self.state, self.run.put(next(feed)))
                done = step + 1
                if before is not None:
                    self.watch(done - 1, before)  # one step behind, so that the device need not wait
                before = metrics
                if done % config.log_every == 0:
                    self.log(done, metrics, bar)
                if preempted(done):
                    self.keep(done, feed)
                    return False
                if done % config.eval_every == 0 and done < config.steps:
                    self.evaluate(done)
                due = time.time() - self.saved > 60 * config.checkpoint_minutes
                if (due and jax.process_count() == 1) or done % config.checkpoint_every == 0 or done == config.steps:
                    self.keep(done, feed)
        if before is not None:
            self.watch(config.steps, before)
        return True


def restored(manager, run: Run):
    """The state and what was saved about it, of the newest whole checkpoint of this run, or a new state."""
    found = snapshots.latest(manager, run.like())
    if found is None:
        return run.init(), {}
    where = os.path.join(str(manager.directory), str(int(found.state.step)))
    require_same(found.about.get("of", {}), run.identity, where)
    for step, why in found.damaged.items():
        if runtime.first():
            aside = "" if EXPORT.value else f"; it is kept as {snapshots.set_aside(manager, step)}"
            print(f"{why}{aside}; {where} is taken", file=sys.stderr, flush=True)
    if found.damaged:
        runtime.together("aside")
        manager.reload()
    return found.state, found.about


@contextlib.contextmanager
def workdir():
    """The folder of checkpoints; held against a second training. Raises ValueError where there is nothing to export."""
    folder = os.path.join(WORKDIR.value, "checkpoints")
    if EXPORT.value:
        if not any(name.isdigit() for name in (os.listdir(folder) if os.path.isdir(folder) else [])):
            raise ValueError(f"--workdir is {WORKDIR.value!r}, which holds no checkpoint to export; name that of a run")
        yield folder
        return
    runtime.writable(WORKDIR.value, "--workdir")
    with keeping.alone(Path(WORKDIR.value)) if runtime.first() else contextlib.nullcontext():
        yield folder


def require_flags() -> None:
    """ValueError for what the command cannot do without; not absl's own check, which would refuse --help."""
    for flag, wanted in ((CONFIG, "a file such as configs/prior32.py"), (WORKDIR, "a folder for what is trained")):
        if not flag.value:
            raise ValueError(f"--{flag.name} is missing; give {wanted}")


def main() -> None:
    require_flags()
    config = CONFIG.value
    runtime.agree("configuration", config.to_json_best_effort(sort_keys=True))
    with workdir() as folder:
        training, held_out = sources(config)
        run = Run(config, training)
        target = EXPORT.value or WORKDIR.value
        with snapshots.snapshots(folder, config.keep, config.permanent_every, read_only=bool(EXPORT.value)) as manager:
            state, about = restored(manager, run)
            require_free(os.path.join(target, config.name), run.digest)
            loop = Loop(run, manager, state, about, held_out)
            if not EXPORT.value:
                part = (jax.process_index(), jax.process_count())
                feed = data.batches(training, config.batch, config.seed, part, config.threads)
                if "data" in about:
                    feed.set_state(about["data"])
                if not loop.train(feed, runtime.Preemption()):
                    manager.wait_until_finished()
                    step = int(loop.state.step)
                    print(f"stopped by SIGTERM; step {step} is saved, the same command goes on", flush=True)
                    sys.exit(143)
                loop.evaluate(config.steps)
            chosen, losses = loop.best()
            weights = loop.state.ema[chosen]
            whole = {"params": run.finished(run.key, weights)}
            told = halved(run, weights, losses, held_out) if HALF.value else whole
            if runtime.first():
                export(run, loop.state, chosen, loop.elapsed(), losses, training, target, **told)
            runtime.together("end")


if __name__ == "__main__":
    runtime.run(main)
