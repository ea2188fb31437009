"""The jitted functions of one training configuration, and its export; `experiments.train` is the loop around them.

What is trained is a *task*, as `protocol.Task` has it: it knows the network, the loss and the picture to show. Here is
what all tasks share: optimizer, devices, compilation, evaluation over the held-out pictures, the model card.
"""

from __future__ import annotations

import json
import os
import platform
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib
from jax.experimental import multihost_utils

import diffinv as di
from diffinv import data, schema, seed_key, sharding, train
from diffinv.weights import cards
from experiments.common import keeping, priors, provenance, runtime
from experiments.tasks import networks
from experiments.tasks.table import task

MOVABLE = {
    "name", "steps", "cooldown", "data", "data_name", "data_licence", "data_folder", "download", "resident", "threads",
    "fsdp", "patience", "log_every", "eval_every", "eval_images", "sample_grid", "checkpoint_minutes",
    "checkpoint_every", "permanent_every", "keep",
}  # fmt: skip
"""Fields that a restart may change: what is trained stays the same."""
LATER = {"architecture": networks.DEFAULT, "crop": 0, "only": "", "coarse": 0, "coarse_level": 1.0}
"""Fields that came later, with what runs had before: at these values a run is still that one."""


def schedule(config) -> optax.Schedule:
    """Warm-up, constant, linear to 0 over the last `cooldown` steps."""
    peak, last = config.learning_rate, max(config.steps - config.cooldown, config.warmup)
    parts = [optax.linear_schedule(0, peak, config.warmup), optax.constant_schedule(peak)]
    parts.append(optax.linear_schedule(peak, 0, config.cooldown))
    return optax.join_schedules(parts, [config.warmup, last])


TURNED = 0.7
"""Root mean square of a turned kernel's step, in learning rates; Liu et al. have 0.2, the only other that was tried:
it was behind Adam after 300 steps of the stage in configs/cascade_eurosat.py, this one ahead."""


def matrices(params: Any) -> Any:
    """Muon's kernels as matrices, from all that they sum over to what they give; None for what is left to Adam."""
    name = lambda path: getattr(path[-1], "key", "")
    whole = lambda kernel: optax.contrib.MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1)
    turned = lambda path, leaf: whole(leaf) if name(path) == "kernel" and leaf.ndim > 1 else None
    return jax.tree_util.tree_map_with_path(turned, params)


def muon(config, b1: float, b2: float) -> optax.GradientTransformation:
    """Kernels by the rotation nearest to their momentum (Jordan et al. 2024), the rest by Adam with Nesterov's.

    A kernel of n inputs and m outputs moves by TURNED * learning rate * sqrt(max(n, m)) * U V', where U S V' is its
    momentum (Liu et al. 2025, arXiv:2502.16982, equation 4), found by five steps of Newton and Schulz.
    """
    decay = config.weight_decay
    return optax.contrib.muon(
        schedule(config),
        weight_decay=decay,
        adam_b1=b1,
        adam_b2=b2,
        adam_weight_decay=decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=TURNED,
    )


def optimizer(config) -> optax.GradientTransformation:
    """Adam, rectified Adam or Muon, after clipping by the global norm."""
    options = {"b1": config.b1, "b2": config.b2}
    known = {
        "adamw": lambda: optax.adamw(schedule(config), weight_decay=config.weight_decay, **options),
        "radam": lambda: optax.radam(schedule(config), **options),
        "muon": lambda: muon(config, **options),
    }
    chosen = known[runtime.choose("config.optimizer", config.optimizer, list(known))]
    return optax.chain(optax.clip_by_global_norm(config.clip), chosen())


def identity(config, source: data.Source) -> dict[str, Any]:
    """What makes a run this run: the configuration but for what a restart may move, and digests of pictures and start.

    JSON values, by their full names.
    """
    whole = json.loads(json.dumps(config.to_dict()))
    if whole.get("autoencoder"):
        whole["autoencoder"] = di.weights.read_card(priors.place(config.autoencoder))["sha256"][:16]
    whole["start"] = di.weights.read_card(priors.place(config.start))["sha256"][:16] if config.start else ""
    telling = {name: value for name, value in keeping.flat(whole).items() if name not in MOVABLE}
    told = {f"config.{name}": value for name, value in telling.items() if (name, value) not in LATER.items()}
    return {**told, "the pictures": provenance.digest(source)}


def require_same(was: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """ValueError where a checkpoint is of another run, with what has changed; an earlier version told nothing."""
    value = lambda told, name: told.get(name, LATER.get(name.removeprefix("config.")))
    changed = [name for name in {**now, **was} if was and value(was, name) != value(now, name)]
    if changed:
        shown = lambda told, name: schema.shown(value(told, name))
        phrases = [f"{name}: {shown(was, name)} then, {shown(now, name)} now" for name in changed]
        more = f" and {len(phrases) - 4} more" if len(phrases) > 4 else ""
        raise ValueError(
            f"{where} was trained with something else ({'; '.join(phrases[:4])}{more}); give the same again, or "
            "another --workdir, where --config.start may name its export"
        )


def require_free(path: str, run: str) -> None:
    """ValueError where the files of an export are there and of another run, by their card."""
    if not any(os.path.exists(f"{path}{suffix}") for suffix in (".json", ".safetensors")):
        return
    try:
        card = di.weights.read_card(path)
    except (ValueError, OSError):
        card = {}
    if card.get("run") != run:
        what = f"{card['name']}, {card.get('steps', 'unknown')} steps" if "name" in card else "no export of ours"
        raise ValueError(
            f"{path}.safetensors is of another run ({what}) and is not overwritten; give another --config.name, "
            "--export or --workdir, or remove it and its card"
        )


def starting_weights(path: str, drawn):
    """The weights of a checkpoint, or of one that ships inside the package, which must be of the same network as the
    `drawn` ones; None where none is named."""
    if not path:
        return None
    params = di.weights.widened(di.weights.restore(priors.place(path))[0])
    shapes = lambda tree: jax.tree.map(lambda a: tuple(a.shape), tree)
    if shapes(params) != shapes(drawn):
        raise ValueError(f"config.start is {path}, whose weights are not those of config.net's network")
    return params


def seen_in_all(start: str, seen: int) -> dict[str, int]:
    """The card's `images_seen_in_all`: `seen` in this run, and before it in those that made the weights of `start`.

    Empty where the card of `start` does not say: it was trained elsewhere, or went on from weights before it.
    """
    if not start:
        return {"images_seen_in_all": seen}
    card = di.weights.read_card(priors.place(start))
    before = card.get("images_seen_in_all", None if "started_from" in card else card.get("images_seen"))
    return {"images_seen_in_all": before + seen} if type(before) is int else {}


def tiled(pixels: np.ndarray, side: int) -> np.ndarray:
    """side x side pictures as one."""
    _, height, width, channels = pixels.shape
    grid = pixels[: side * side].reshape(side, side, height, width, channels).swapaxes(1, 2)
    return grid.reshape(side * height, side * width, channels)


class Run:
    """The functions of one configuration, compiled, with the devices that they run on."""

    def __init__(self, config, source: data.Source):
        self.config, self.count, self.key = config, len(source), seed_key(config.seed)
        self.identity = identity(config, source)
        self.digest = keeping.digest(self.identity)
        self.mesh = sharding.mesh(fsdp=config.fsdp)
        self.rows, self.whole = sharding.rows(self.mesh), sharding.replicated(self.mesh)
        if config.batch % (self.mesh.size * config.accumulate):
            raise ValueError(
                f"config.batch is {config.batch}; it must be a multiple of {self.mesh.size} devices x "
                f"{config.accumulate} (config.accumulate)"
            )
        self.task = task(config)(config, source)
        cards.require_card(self.card(), "the card of this run")
        self.start = starting_weights(config.start, jax.eval_shape(self.task.init, self.key))
        rates = [train.half_life(examples, config.batch) for examples in config.ema_half_lives]
        rates += self.task.rates  # those that the loss needs; the others are to choose from
        options = {"contextual": self.task.contextual, "refresh": self.task.refresh}
        self.trainer = train.trainer(self.task.loss, optimizer(config), rates, config.accumulate, **options)
        self.placed = sharding.fsdp(self.mesh, jax.eval_shape(self._init, self.start))
        self.step = jax.jit(self._step, donate_argnums=0, out_shardings=(self.placed, self.whole))
        self.errors = jax.jit(self.task.errors, out_shardings=self.whole)
        self.sample = jax.jit(jax.vmap(self.task.sample, (0, None, 0)))
        self.finished = jax.jit(self.task.finished, out_shardings=self.whole)

    def card(self) -> dict[str, Any]:
        """What rebuilds the network from its weights; the rest of the card is written when it is exported."""
        return {"name": self.config.name, **self.task.card(), "shape": list(self.task.shape)}

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
        found = self.sample(keys, self.finished(self.key, params), prompts)
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


def halved(run: Run, weights, losses: dict[str, float], held_out: data.Source) -> dict[str, Any]:
    """`params`, the weights in half precision, and `stored`, what that costs, for `export`."""
    stored = lambda tree: di.weights.halved(jax.tree.map(np.asarray, tree))
    rounded = di.weights.widened(stored(weights))
    after, params = run.held_out(rounded, held_out), stored(run.finished(run.key, rounded))
    before, after = (float(np.mean(list(each.values()))) for each in (losses, after))
    return {"params": params, "stored": f"float16; mean held-out loss {after:.6f}, in float32 {before:.6f}"}


def pictured(card: dict[str, Any]) -> dict[str, Any]:
    """Layout and range, as the card tells them of pictures; of codes the layout alone."""
    if "latent" in card:
        return {"layout": "HWC"}
    return {"layout": {1: "HWC, grey", 3: "HWC, RGB"}.get(card["shape"][-1], "HWC"), "range": [-1, 1]}


def export(
    run: Run, state, average: int, seconds: float, losses: dict, source: data.Source, folder: str, params=None, **told
) -> None:
    """One of the averages, or `params` made of it, as safetensors, and the card, with what else is `told` of it."""
    config, step, path = run.config, int(state.step), os.path.join(folder, run.config.name)
    seen = step * config.batch
    wrong = [name for name, loss in losses.items() if not np.isfinite(loss)]
    if wrong:
        raise ValueError(f"the held-out loss {wrong[0]!r} is not finite after {step} steps; nothing is exported")
    require_free(path, run.digest)
    card = {
        **run.card(), **pictured(run.card()),
        **provenance.about(config, source), "examples": run.count, "run": run.digest,
        "steps": step, "batch": config.batch, "images_seen": seen, "steps_skipped": int(state.skipped),
        **seen_in_all(config.start, seen),
        "optimizer": f"{config.optimizer} {config.learning_rate}, b2 {config.b2}, {config.warmup} steps up, "
        f"{config.cooldown} down",
        "ema": f"half-life {config.ema_half_lives[average]} images, best held-out of {list(config.ema_half_lives)}",
        "seed": config.seed, "seconds": round(seconds),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}",
        "held_out_loss": losses, **told,
    }  # fmt: skip
    card |= {"started_from": config.start} if config.start else {}
    weights = state.ema[average] if params is None else params
    card = di.weights.save(path, jax.tree.map(np.asarray, weights), card)
    print(f"{card['parameters']} weights after {step} steps exported to {path}.safetensors", flush=True)
