"""The jitted functions of one training configuration, and its export; `experiments.train` is the loop around them.

What is trained is a *task*, `experiments/task_*.py`: a class that knows the network, the loss and the picture to show.
Here is what all tasks share: optimizer, devices, compilation, evaluation over the held-out pictures, the model card.
"""

from __future__ import annotations

import os
import platform
from importlib import import_module

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from diffinv import checkpoint, data, seed_key, sharding, train
from experiments import runtime

TASKS = {
    "denoising": "task_denoising.Denoising",
    "spectral": "task_spectral.Spectral",
    "consistency": "task_consistency.Consistency",
    "super_resolution": "task_super_resolution.SuperResolution",
}


def task(config) -> type:
    """The class of the task that the configuration names."""
    module, name = TASKS[runtime.choose("config.task", config.task, list(TASKS))].split(".")
    return getattr(import_module(f"experiments.{module}"), name)


def schedule(config) -> optax.Schedule:
    """Warm-up, constant, linear to 0 over the last `cooldown` steps."""
    peak, last = config.learning_rate, max(config.steps - config.cooldown, config.warmup)
    parts = [optax.linear_schedule(0, peak, config.warmup), optax.constant_schedule(peak)]
    parts.append(optax.linear_schedule(peak, 0, config.cooldown))
    return optax.join_schedules(parts, [config.warmup, last])


def optimizer(config) -> optax.GradientTransformation:
    """Adam or rectified Adam, after clipping by the global norm."""
    options = {"b1": config.b1, "b2": config.b2}
    known = {
        "adamw": lambda: optax.adamw(schedule(config), weight_decay=config.weight_decay, **options),
        "radam": lambda: optax.radam(schedule(config), **options),
    }
    chosen = known[runtime.choose("config.optimizer", config.optimizer, list(known))]
    return optax.chain(optax.clip_by_global_norm(config.clip), chosen())


def starting_weights(path: str, drawn):
    """The weights of a checkpoint, or of one that ships inside the package, which must be of the same network as the
    `drawn` ones; None where none is named."""
    if not path:
        return None
    shipped = checkpoint.embedded(path)
    params, _ = checkpoint.restore(shipped if os.path.exists(f"{shipped}.json") else path)
    shapes = lambda tree: jax.tree.map(lambda a: tuple(a.shape), tree)
    if shapes(params) != shapes(drawn):
        raise ValueError(f"config.start is {path}, whose weights are not those of config.net's network")
    return params


def tiled(pixels: np.ndarray, side: int) -> np.ndarray:
    """side x side pictures as one."""
    _, height, width, channels = pixels.shape
    grid = pixels[: side * side].reshape(side, side, height, width, channels).swapaxes(1, 2)
    return grid.reshape(side * height, side * width, channels)


class Run:
    """The functions of one configuration, compiled, with the devices that they run on."""

    def __init__(self, config, source: data.Source):
        self.config, self.count, self.key = config, len(source), seed_key(config.seed)
        self.mesh = sharding.mesh(fsdp=config.fsdp)
        self.rows, self.whole = sharding.rows(self.mesh), sharding.replicated(self.mesh)
        if config.batch % (self.mesh.size * config.accumulate):
            raise ValueError(
                f"config.batch is {config.batch}; it must be a multiple of {self.mesh.size} devices x "
                f"{config.accumulate} (config.accumulate)"
            )
        self.task = task(config)(config, source)
        self.start = starting_weights(config.start, jax.eval_shape(self.task.init, self.key))
        rates = [train.half_life(examples, config.batch) for examples in config.ema_half_lives]
        rates += self.task.rates  # those that the loss needs; the others are to choose from
        options = {"contextual": self.task.contextual, "refresh": self.task.refresh}
        self.trainer = train.trainer(self.task.loss, optimizer(config), rates, config.accumulate, **options)
        self.placed = sharding.fsdp(self.mesh, jax.eval_shape(self._init, self.start))
        self.step = jax.jit(self._step, donate_argnums=0, out_shardings=(self.placed, self.whole))
        self.errors = jax.jit(self.task.errors, out_shardings=self.whole)
        self.sample = jax.jit(jax.vmap(self.task.sample, (0, None, 0)))

    def _init(self, start) -> train.TrainState:
        params = self.task.init(self.key) if start is None else start
        return self.trainer.init(params, self.task.frozen(params))

    def init(self) -> train.TrainState:
        return jax.jit(self._init, out_shardings=self.placed)(self.start)

    def like(self):
        """Shapes and places of the state, for restoring it on these devices."""
        shapes = jax.eval_shape(self._init, self.start)
        return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, self.placed)

    def _step(self, state, batch):
        return self.trainer.step(jax.random.fold_in(self.key, state.step), state, batch)

    def put(self, batch):
        """This host's rows as a part of the global batch."""
        rows = {name: batch[name] for name in ("image", "label")}
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(self.rows, a), rows)

    def samples(self, params, source: data.Source) -> np.ndarray:
        """`sample_grid`^2 pictures in [-1, 1], from the same keys and prompts at every call."""
        side, unit = self.config.sample_grid, self.mesh.size
        count = -(-(side**2) // unit) * unit
        prompts = self.task.prompts(source, count)
        place = jax.jit(lambda p: (jax.random.split(self.key, count), p), out_shardings=self.rows)
        keys, prompts = place(prompts)
        found = self.sample(keys, params, prompts)
        return np.asarray(multihost_utils.process_allgather(found, tiled=True))[: side**2]

    def held_out(self, params, source: data.Source) -> dict[str, float]:
        """The task's errors, over the same pictures and with the same noise at every call."""
        unit, config = self.mesh.size, self.config
        count = min(config.eval_images, len(source))
        size = max(min(config.batch, count // unit * unit), unit)
        part, local, found = jax.process_index(), size // jax.process_count(), []
        for start in range(0, max(count - size, 0) + 1, size):
            rows = (np.arange(local) + start + part * local) % len(source)
            batch = self.put(source.take(rows.tolist()))
            found.append(self.errors(jax.random.fold_in(self.key, 2**31 + start), params, batch))
        found = jax.device_get(found)
        return {name: round(float(np.mean([each[name] for each in found])), 6) for name in found[0]}


def export(run: Run, state, average: int, seconds: float, held_out: dict, source: data.Source, folder: str) -> None:
    """One of the averages as safetensors, and the card."""
    config, step = run.config, int(state.step)
    channels = run.task.shape[-1]
    card = {
        "name": config.name,
        **run.task.card(),
        "shape": list(run.task.shape), "layout": "HWC, RGB" if channels == 3 else "HWC, grey", "range": [-1, 1],
        "data": config.data_name, "data_licence": config.data_licence, "examples": run.count,
        "steps": step, "batch": config.batch, "images_seen": step * config.batch, "steps_skipped": int(state.skipped),
        "optimizer": f"{config.optimizer} {config.learning_rate}, b2 {config.b2}, {config.warmup} steps up, "
        f"{config.cooldown} down",
        "ema": f"half-life {config.ema_half_lives[average]} images, best held-out of {list(config.ema_half_lives)}",
        "seed": config.seed, "seconds": round(seconds),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "held_out_loss": held_out,
    }  # fmt: skip
    card |= {"started_from": config.start} if config.start else {}
    os.makedirs(folder, exist_ok=True)
    card = checkpoint.save(os.path.join(folder, config.name), jax.tree.map(np.asarray, state.ema[average]), card)
    print(f"{card['parameters']} weights after {step} steps exported to {folder}/{config.name}.safetensors", flush=True)
