"""What training costs: ratios from one run.

    python -m benchmarks.training [--quick] [--config=configs/prior32.py] [--batch=N]

step   The training step (gradient, update, averages, the guard against non-finite steps) over a bare jitted
       value-and-gradient plus optimizer update of the same loss, on the same devices, measured alternately: goal at
       most 1.1.
feed   Share of the loop's time spent waiting for the next batch, with the pictures in memory and decoded on the fly:
       goal under 2 %. And what the pipeline alone delivers, in pictures a second.
mfu    On a GPU: the share of the peak arithmetic in bfloat16 (--peak, in TFLOP/s; 989 for an H100) that the training
       step of this network and of ADM's 256 x 256 reach, with the operations as XLA counts them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time

from experiments.common import runtime  # isort: skip  (before jax)

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffinv import data, process, train
from diffinv.data.builders import Resident, Source
from diffinv.nn import unet
from diffinv.prior import NetworkDenoiser
from experiments.tasks.run import Run

ADM256 = dict(channels=256, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 16, 32), head_channels=64)


def configuration(path: str, quick: bool, batch: int | None):
    """The file's `get_config`, with generated pictures of its size."""
    import runpy

    config = runpy.run_path(path)["get_config"]("smoke" if quick else "")
    config.batch = batch or config.batch
    return config


def pictures(config, count: int = 2048) -> Source:
    """Noise of the configuration's size, in memory."""
    shape = (count, config.size, config.size, config.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Source(Resident(images, np.zeros(count, np.int32)), config.size, config.channels)


def bare(run: Run):
    """`(params, opt_state, key, batch) -> (params, opt_state)`: what any training loop must do."""
    config = run.config
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(1e-4, weight_decay=0.01))

    def step(params, opt_state, key, batch):
        value, grads = jax.value_and_grad(run.task.loss, argnums=1)(key, params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return optimizer, jax.jit(step, donate_argnums=(0, 1))


def step_ratio(run: Run, source: Source, rounds: int) -> float:
    """Median over rounds of our step's time over the bare one's."""
    optimizer, plain = bare(run)
    batch = run.put(source.take(range(run.config.batch)))
    state = run.init()
    params = jax.tree.map(jnp.copy, state.params)
    opt_state = jax.jit(optimizer.init)(params)
    ratios = []
    for i in range(rounds + 1):
        start = time.perf_counter()
        params, opt_state, value = plain(params, opt_state, run.key, batch)
        jax.block_until_ready(params)
        middle = time.perf_counter()
        state, metrics = run.step(state, batch)
        jax.block_until_ready(state)
        end = time.perf_counter()
        ratios += [(end - middle) / (middle - start)] if i else []  # the first round compiles
    return statistics.median(ratios)


def waiting(run: Run, source: Source, steps: int) -> float:
    """Share of the time that the loop waits for data, after the pipeline has filled."""
    feed, state, waited = data.batches(source, run.config.batch), run.init(), 0.0
    state, _ = run.step(state, run.put(next(feed)))
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(feed)
        waited += time.perf_counter() - before
        state, metrics = run.step(state, run.put(batch))
        jax.block_until_ready(metrics)
    return waited / (time.perf_counter() - start)


def delivered(source: Source, batch: int, count: int = 40) -> float:
    """Pictures a second of the pipeline alone."""
    feed = data.batches(source, batch)
    next(feed)
    start = time.perf_counter()
    for _ in range(count):
        next(feed)
    return count * batch / (time.perf_counter() - start)


def utilisation(step, args: tuple, peak: float, repeats: int = 10) -> tuple[float, float]:
    """(share of the peak, TFLOP a call) of a compiled function."""
    compiled = step.lower(*args).compile()
    cost = compiled.cost_analysis()
    flops = (cost[0] if isinstance(cost, list) else cost)["flops"]
    jax.block_until_ready(compiled(*args))
    start = time.perf_counter()
    for _ in range(repeats):
        out = compiled(*args)
    jax.block_until_ready(out)
    return flops * repeats / (time.perf_counter() - start) / (peak * 1e12), flops / 1e12


def gradient_of(net: unet.UNet, size: int, batch: int):
    """(value-and-gradient of the denoising loss, its arguments) for an EDM prior of this network."""
    key, forward = jax.random.key(0), process.EDM()
    params = jax.jit(net.init)(key, jnp.zeros((size, size, 3)), jnp.zeros(()))
    model = lambda p: NetworkDenoiser(p, forward, net.apply, parametrisation="edm", sigma_data=0.5)
    loss = train.denoising_loss(model, forward)
    pixels = jax.random.normal(key, (batch, size, size, 3))
    return jax.jit(jax.value_and_grad(loss, argnums=1)), (key, params, pixels)


def gpu_rows(config, peak: float) -> None:
    """MFU of both networks, in bfloat16."""
    fields = {**config.net.to_dict(), "dtype": jnp.bfloat16, "plain_conv": True}
    nets = {
        f"{config.name}, batch 512": (unet.UNet(**fields), config.size, 512),
        "ADM 256, batch 8": (unet.UNet(**ADM256, dtype=jnp.bfloat16, plain_conv=True, remat=True), 256, 8),
    }
    for name, (net, size, batch) in nets.items():
        share, tera = utilisation(*gradient_of(net, size, batch), peak)
        print(f"mfu    {name:28s} {100 * share:6.1f} % of {peak:g} TFLOP/s ({tera:.2f} TFLOP a step)")


def main() -> int:
    """Prints the rows; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/prior32.py")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--quick", action="store_true", help="the configuration's :smoke form, fewer rounds")
    parser.add_argument("--peak", type=float, default=989.0, help="of the GPU in bfloat16, TFLOP/s")
    args = parser.parse_args()
    runtime.start()
    config = configuration(args.config, args.quick, args.batch)
    source = pictures(config)
    run, rounds = Run(config, source), 5 if args.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        decoded = data.source("gradients", config.size, "train", folder, config.channels)
        rows = [
            ("step", "over bare gradient and update", step_ratio(run, source, rounds), 1.1),
            ("feed", "waiting, in memory", waiting(run, source, 2 * rounds), 0.02),
            ("feed", "waiting, decoded on the fly", waiting(run, decoded, 2 * rounds), 0.02),
        ]
        for kind, what, value, goal in rows:
            print(f"{kind:6s} {what:34s} {value:8.4f}  goal {goal:g}  {'met' if value <= goal else 'MISSED'}")
        for what, chosen in (("in memory", source), ("decoded on the fly", decoded)):
            print(f"feed   pipeline alone, {what:18s} {delivered(chosen, config.batch):8.0f} pictures/s")
    if jax.default_backend() == "gpu":
        gpu_rows(config, args.peak)
    else:
        print("mfu    needs a GPU; none here")
    return int(any(value > goal for _, _, value, goal in rows))


if __name__ == "__main__":
    sys.exit(main())
