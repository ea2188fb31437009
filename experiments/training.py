"""The jitted functions of one training configuration, and its export; `experiments.train` is the loop around them."""

from __future__ import annotations

import os
import platform

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import diffinv as di
from diffinv import checkpoint, data, process, samplers, sharding, times, train
from diffinv.nn import unet


def network(config) -> unet.UNet:
    """The U-Net in `lax`'s own convolutions, whose weight gradient XLA wants in its own form."""
    fields = {**config.net.to_dict(), "dtype": jnp.dtype(config.net.dtype), "plain_conv": True}
    return unet.UNet(**fields, out_channels=config.channels, classes=config.classes + 1 if config.classes else None)


def schedule(config) -> optax.Schedule:
    """Warm-up, constant, linear to 0 over the last `cooldown` steps."""
    peak, last = config.learning_rate, max(config.steps - config.cooldown, config.warmup)
    parts = [optax.linear_schedule(0, peak, config.warmup), optax.constant_schedule(peak)]
    parts.append(optax.linear_schedule(peak, 0, config.cooldown))
    return optax.join_schedules(parts, [config.warmup, last])


def tiled(pixels: np.ndarray, side: int) -> np.ndarray:
    """side x side pictures as one."""
    _, height, width, channels = pixels.shape
    grid = pixels[: side * side].reshape(side, side, height, width, channels).swapaxes(1, 2)
    return grid.reshape(side * height, side * width, channels)


class Run:
    """The functions of one configuration, compiled, with the devices that they run on."""

    def __init__(self, config, source: data.Source):
        if config.classes and config.classes < len(source.classes):
            raise ValueError(f"config.classes is {config.classes}, but the data have {len(source.classes)} labels")
        self.config, self.count, self.key = config, len(source), jax.random.key(config.seed)
        self.mesh = sharding.mesh(fsdp=config.fsdp)
        self.rows, self.whole = sharding.rows(self.mesh), sharding.replicated(self.mesh)
        if config.batch % (self.mesh.size * config.accumulate):
            raise ValueError(
                f"config.batch is {config.batch}; it must be a multiple of {self.mesh.size} devices x "
                f"{config.accumulate} (config.accumulate)"
            )
        self.process, self.shape = process.EDM(), (config.size, config.size, config.channels)
        self.net = network(config)
        self.parametrisation = {"parametrisation": "edm", "sigma_data": config.sigma_data}
        self.trainer = self._trainer()
        self.placed = sharding.fsdp(self.mesh, jax.eval_shape(self._init))
        self.step = jax.jit(self._step, donate_argnums=0, out_shardings=(self.placed, self.whole))
        levels = jnp.asarray(config.eval_levels, jnp.float32)
        levels_loss = train.noise_levels_loss(self.model, self.process, levels, config.sigma_data)
        self.levels_loss = jax.jit(levels_loss, out_shardings=self.whole)
        self.sample = jax.jit(self._sample)

    def _trainer(self) -> train.Trainer:
        config = self.config
        loss = train.denoising_loss(
            self.model, self.process, config.log_sigma_mean, config.log_sigma_std, config.sigma_data
        )
        adam = optax.adamw(schedule(config), b2=config.b2, weight_decay=config.weight_decay)
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip), adam)
        rates = [train.half_life(examples, config.batch) for examples in config.ema_half_lives]
        return train.trainer(lambda k, p, b: loss(k, p, self._examples(k, b)), optimizer, rates, config.accumulate)

    def model(self, params):
        return di.NetworkDenoiser(params, self.process, self.net.apply, **self.parametrisation)

    def _init(self) -> train.TrainState:
        label = {"label": jnp.zeros((), jnp.int32)} if self.config.classes else {}
        return self.trainer.init(self.net.init(self.key, jnp.zeros(self.shape), jnp.zeros(()), **label))

    def init(self) -> train.TrainState:
        return jax.jit(self._init, out_shardings=self.placed)()

    def like(self):
        """Shapes and places of the state, for restoring it on these devices."""
        shapes = jax.eval_shape(self._init)
        return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, self.placed)

    def _examples(self, key, batch):
        """Augmented pictures in [-1, 1], with labels that are dropped at times."""
        config = self.config

        def one(key, image, label):
            distort, drop = jax.random.split(jax.random.fold_in(key, 1))
            image = data.augment(distort, data.to_unit(image), config.flip, config.shift, config.turn)
            if not config.classes:
                return image
            return {"image": image, "label": train.drop_label(drop, label, config.classes, config.label_dropout)}

        keys = jax.random.split(key, len(batch["image"]))
        return jax.vmap(one)(keys, batch["image"], batch["label"])

    def _step(self, state, batch):
        return self.trainer.step(jax.random.fold_in(self.key, state.step), state, batch)

    def _sample(self, params, noise, label):
        grid, prior = times.karras(self.config.sample_steps), di.Prior(self.process, self.model(params), self.shape)

        def one(x, label):
            given = prior.given(label=label) if self.config.classes else prior
            return di.sample(self.key, samplers.heun(given), grid, self.process.sigma_max * x).x

        return jax.vmap(one)(noise, label)

    def put(self, batch):
        """This host's rows as a part of the global batch."""
        rows = {name: batch[name] for name in ("image", "label")}
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(self.rows, a), rows)

    def samples(self, params) -> np.ndarray:
        """`sample_grid`^2 pictures in [-1, 1] from fixed noise, one row a class where there are classes."""
        side, unit = self.config.sample_grid, self.mesh.size
        count = -(-(side**2) // unit) * unit
        label = jnp.arange(count, dtype=jnp.int32) // side % max(self.config.classes, 1)
        place = jax.jit(lambda: (jax.random.normal(self.key, (count, *self.shape)), label), out_shardings=self.rows)
        found = self.sample(params, *place())
        return np.asarray(multihost_utils.process_allgather(found, tiled=True))[: side**2]

    def held_out(self, params, source: data.Source) -> dict[str, float]:
        """Mean weighted error per noise level; the same pictures and the same noise at every call."""
        unit, config = self.mesh.size, self.config
        count = min(config.eval_images, len(source))
        size = max(min(config.batch, count // unit * unit), unit)
        part, local, losses = jax.process_index(), size // jax.process_count(), []
        for start in range(0, max(count - size, 0) + 1, size):
            rows = (np.arange(local) + start + part * local) % len(source)
            batch = self.put(source.take(rows.tolist()))
            example = {"image": data.to_unit(batch["image"])}
            example |= {"label": batch["label"]} if config.classes else {}
            losses.append(self.levels_loss(jax.random.fold_in(self.key, 2**31 + start), params, example))
        mean = np.mean(jax.device_get(losses), axis=0)
        return {f"{level:g}": round(float(loss), 6) for level, loss in zip(config.eval_levels, mean, strict=True)}


def export(run: Run, state, average: int, seconds: float, held_out: dict, source: data.Source, folder: str) -> None:
    """One of the averages as safetensors, and the card."""
    config, step = run.config, int(state.step)
    fields = {"name": "unet", **config.net.to_dict(), "out_channels": config.channels}
    fields |= {"classes": config.classes + 1} if config.classes else {}
    card = {
        "name": config.name,
        "architecture": fields,
        "parametrisation": run.parametrisation,
        "process": {"name": "EDM", "sigma_max": run.process.sigma_max},
        "schedule": f"ln sigma ~ N({config.log_sigma_mean}, {config.log_sigma_std}^2), EDM weighting",
        "shape": list(run.shape), "layout": "HWC, RGB" if config.channels == 3 else "HWC, grey", "range": [-1, 1],
        "data": config.data_name, "data_licence": config.data_licence, "examples": run.count,
        "steps": step, "batch": config.batch, "images_seen": step * config.batch, "steps_skipped": int(state.skipped),
        "optimizer": f"AdamW {config.learning_rate}, b2 {config.b2}, {config.warmup} steps up, {config.cooldown} down",
        "ema": f"half-life {config.ema_half_lives[average]} images, best held-out of {list(config.ema_half_lives)}",
        "seed": config.seed, "seconds": round(seconds),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "held_out_loss": held_out,
    }  # fmt: skip
    if config.classes:
        card |= {"given": {"label": config.classes}, "labels": list(source.classes), "label_null": config.classes}
        card["label_dropout"] = config.label_dropout
    os.makedirs(folder, exist_ok=True)
    card = checkpoint.save(os.path.join(folder, config.name), jax.tree.map(np.asarray, state.ema[average]), card)
    print(f"{card['parameters']} weights after {step} steps exported to {folder}/{config.name}.safetensors", flush=True)
