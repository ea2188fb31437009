"""Train a denoising prior; copy this file and change it.

    python -m experiments.train --config=configs/prior32.py --config.data=PATH --workdir=DIR

Killed at any time, the same command goes on from the last checkpoint to the same result. The learning rate is constant
after a warm-up and falls to 0 over the last `cooldown` steps, so that `--config.steps` may be moved on a restart.
`--export=DIR` writes the EMA weights and their card from the latest checkpoint, and trains nothing.
"""

from __future__ import annotations

import json
import os
import platform
import time

from experiments import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tqdm
from absl import flags
from PIL import Image

import diffinv as di
from diffinv import checkpoint, data, process, samplers, sharding, times, train
from diffinv.nn import unet

CONFIG = runtime.config_flag(None, "configs/NAME.py, or configs/NAME.py:smoke")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, metrics and samples")
EXPORT = flags.DEFINE_string("export", None, "write weights and card of the latest checkpoint here, and stop")


def synthetic(count: int, size: int) -> np.ndarray:
    """Colour gradients, for `:smoke`."""
    ramp = np.linspace(0, 1, size)
    ends = np.random.default_rng(0).uniform(0, 255, (2, count, 1, 1, 3))
    return (ends[0] * ramp[:, None, None] + ends[1] * (1 - ramp[None, :, None])).clip(0, 255).astype(np.uint8)


def images(config) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) pixels; without a validation split every 16th image is held out."""
    if config.data == "synthetic":
        return synthetic(64, config.size), synthetic(80, config.size)[64:]
    if config.data.endswith(".jpegpack.npz"):
        found, held_out = (data.read(config.data, config.size, split) for split in (0, 1))
        skipped, pixels, rest = found.skipped + held_out.skipped, found.pixels, held_out.pixels
    else:
        found = data.read(config.data, config.size)
        hold = np.arange(len(found.names)) % 16 == 15
        skipped, pixels, rest = found.skipped, found.pixels[~hold], found.pixels[hold]
    if skipped:
        print(f"{len(skipped)} corrupt images were left out: {skipped[:10]}", flush=True)
    return pixels, rest


def network(config, plain: bool) -> unet.UNet:
    """The U-Net; `plain` for the training step, whose weight gradient XLA wants in its own form."""
    return unet.UNet(**{**config.net.to_dict(), "dtype": jnp.dtype(config.net.dtype), "plain_conv": plain})


def schedule(config) -> optax.Schedule:
    """Warm-up, constant, linear to 0 over the last `cooldown` steps."""
    peak, last = config.learning_rate, max(config.steps - config.cooldown, config.warmup)
    parts = [optax.linear_schedule(0, peak, config.warmup), optax.constant_schedule(peak)]
    parts.append(optax.linear_schedule(peak, 0, config.cooldown))
    return optax.join_schedules(parts, [config.warmup, last])


class Run:
    """The jitted functions of one configuration."""

    def __init__(self, config):
        mesh = sharding.mesh()
        self.config, self.split, self.whole = config, sharding.split(mesh), sharding.replicated(mesh)
        self.process = process.EDM()
        self.shape = (config.size, config.size, 3)
        self.net = network(config, plain=True)
        self.parametrisation = {"parametrisation": "edm", "sigma_data": config.sigma_data}
        self.key = jax.random.key(config.seed)
        loss = train.denoising_loss(
            self.model, self.process, config.log_sigma_mean, config.log_sigma_std, config.sigma_data
        )
        adam = optax.adamw(schedule(config), b2=config.b2, weight_decay=config.weight_decay)
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip), adam)
        self.trainer = train.trainer(lambda k, p, x: loss(k, p, data.to_unit(x)), optimizer, config.ema)
        self.step = jax.jit(self._step, donate_argnums=0)
        levels = jnp.asarray(config.eval_levels, jnp.float32)
        self.levels_loss = jax.jit(train.noise_levels_loss(self.model, self.process, levels, config.sigma_data))
        self.sample = jax.jit(self._sample)

    def model(self, params):
        return di.NetworkDenoiser(params, self.process, self.net.apply, **self.parametrisation)

    def init(self) -> train.TrainState:
        params = self.net.init(self.key, jnp.zeros(self.shape), jnp.zeros(()))
        return self.trainer.init(params)

    def _step(self, state, pixels):
        return self.trainer.step(jax.random.fold_in(self.key, state.step), state, pixels)

    def _sample(self, params, noise):
        prior = di.Prior(self.process, self.model(params), self.shape)
        grid = times.karras(self.config.sample_steps)
        return jax.vmap(lambda x: di.sample(self.key, samplers.heun(prior), grid, self.process.sigma_max * x).x)(noise)

    def put(self, array):
        """A host batch, split along `data`."""
        return jax.device_put(array, self.split)

    def held_out(self, params, pixels) -> list[float]:
        """Mean weighted error per noise level; the same noise at every call."""
        size, count = self.config.batch, min(self.config.eval_images, len(pixels))
        chunks = [pixels[i : i + size] for i in range(0, count - size + 1, size)] or [pixels[: jax.device_count()]]
        keys = [jax.random.fold_in(self.key, 2**31 + i) for i in range(len(chunks))]
        losses = [self.levels_loss(k, params, self.put(data.to_unit(c))) for k, c in zip(keys, chunks)]
        return [float(value) for value in np.mean(jax.device_get(losses), axis=0)]


def save_grid(path: str, samples, side: int) -> None:
    """A PNG of side x side samples."""
    pixels = data.to_pixels(samples)
    _, height, width, channels = pixels.shape
    grid = pixels[: side * side].reshape(side, side, height, width, channels).swapaxes(1, 2)
    Image.fromarray(grid.reshape(side * height, side * width, channels)).save(path)


def export(run: Run, state, seconds: float, held_out: list[float], folder: str) -> None:
    """EMA weights as safetensors, and the card."""
    config, step = run.config, int(state.step)
    fields = {"name": "unet", **config.net.to_dict()}
    card = {
        "name": config.name,
        "architecture": fields,
        "parametrisation": run.parametrisation,
        "process": {"name": "EDM", "sigma_max": run.process.sigma_max},
        "schedule": f"ln sigma ~ N({config.log_sigma_mean}, {config.log_sigma_std}^2), EDM weighting",
        "shape": list(run.shape), "layout": "HWC, RGB", "range": [-1, 1],
        "data": config.data_name, "data_licence": config.data_licence,
        "steps": step, "batch": config.batch, "images_seen": step * config.batch, "steps_skipped": int(state.skipped),
        "optimizer": f"AdamW {config.learning_rate}, b2 {config.b2}, {config.warmup} steps up, {config.cooldown} down",
        "ema": config.ema, "seed": config.seed, "seconds": round(seconds),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "held_out_loss": {f"{level:g}": round(loss, 6) for level, loss in zip(config.eval_levels, held_out)},
    }  # fmt: skip
    card = checkpoint.save(os.path.join(folder, config.name), state.ema, card)
    print(f"{card['parameters']} weights after {step} steps exported to {folder}/{config.name}.safetensors", flush=True)


def main() -> None:
    config = CONFIG.value
    os.makedirs(WORKDIR.value, exist_ok=True)
    run = Run(config)
    pixels, rest = images(config)
    state, seconds = jax.jit(run.init, out_shardings=run.whole)(), 0.0
    folder = os.path.abspath(os.path.join(WORKDIR.value, "checkpoints"))
    options = ocp.CheckpointManagerOptions(max_to_keep=config.keep, enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(folder, options=options)
    if manager.latest_step() is not None:
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=run.whole), state)
        kept = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore()),
        )
        state, seconds = kept.state, kept.extra["seconds"]
    if EXPORT.value:
        export(run, state, seconds, run.held_out(state.ema, rest), EXPORT.value)
        return
    loop(run, state, seconds, pixels, rest, manager)


def loop(run: Run, state, seconds: float, pixels, rest, manager) -> None:
    """Train from the state's step to `config.steps`, then export."""
    config, first = run.config, int(state.step)
    noise = run.put(jax.random.normal(run.key, (config.sample_grid**2, *run.shape)))
    log = open(os.path.join(WORKDIR.value, "metrics.jsonl"), "a", buffering=1)
    start = saved = mark = time.time()
    elapsed = lambda: seconds + time.time() - start

    def keep(step):
        extra = ocp.args.JsonSave({"seconds": elapsed()})
        manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), extra=extra))

    def evaluate(step):
        held_out = run.held_out(state.ema, rest)
        log.write(json.dumps({"step": step, "held_out": held_out, "seconds": elapsed()}) + "\n")
        save_grid(
            os.path.join(WORKDIR.value, f"samples_{step:06d}.png"), run.sample(state.ema, noise), config.sample_grid
        )
        return held_out

    bar = tqdm.tqdm(range(first, config.steps), initial=first, total=config.steps, mininterval=5, unit="step")
    for step in bar:
        state, metrics = run.step(state, run.put(data.batch(pixels, config.seed, step, config.batch, config.flip)))
        done = step + 1
        if done % config.log_every == 0:
            loss, norm, skipped = (float(m) for m in metrics)
            rate, mark = config.batch * config.log_every / (time.time() - mark), time.time()
            bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s, skipped {skipped:.0f}", refresh=False)
            line = {"step": done, "loss": loss, "grad_norm": norm, "skipped": int(skipped), "images_per_s": rate}
            log.write(json.dumps({**line, "seconds": elapsed()}) + "\n")
        if done % config.eval_every == 0 and done < config.steps:
            evaluate(done)
        if time.time() - saved > 60 * config.checkpoint_minutes or done == config.steps:
            keep(done)
            saved = time.time()
    export(run, state, elapsed(), evaluate(int(state.step)), WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    runtime.run(main)
