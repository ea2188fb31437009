"""A network that is at hand as ONNX, and an operator in NumPy that has no gradient: restored, with intervals.

python examples/own_network.py
"""

import sys
from pathlib import Path

import jax
import numpy as np

import diffinv as di
from diffinv import adapters, operators, posterior, samplers, times
from diffinv.metrics.posterior import coverage
from diffinv.weights.convert import onnx

FILE, SHAPE, LEVEL = Path(__file__).with_name("denoiser.onnx"), (8, 8, 1), 0.9


def sensor(x):
    """A saturating sensor of 4 x 4 cells and 256 values: (..., 8, 8, 1) to (..., 16), in NumPy."""
    cells = np.asarray(x).reshape(*x.shape[:-3], 4, 2, 4, 2).mean((-3, -1))
    return (np.round(127 * np.tanh(cells)) / 127).reshape(*x.shape[:-3], 16).astype(x.dtype)


def measured(x):
    """The sensor as JAX calls it; nothing looks inside."""
    return jax.pure_callback(sensor, jax.ShapeDtypeStruct((16,), x.dtype), x, vmap_method="broadcast_all")


def network_prior(path):
    """PyTorch's (1, C, H, W) and a noise level in, E[x_0] out; used under the variance-preserving process."""
    apply, params = onnx.network(path)
    own, process = di.process.EDM(), di.process.VP()
    denoise = di.NetworkDenoiser(params, own, adapters.channels_first(apply), "x0", adapters.noise_level)
    return di.Prior(process, di.denoisers.Rescheduled(denoise, process), SHAPE)


def main(path=FILE, problems=6, draws=19):
    """Prints the share of pixels inside their interval, and its width beside the prior's, over several truths."""
    prior, A = network_prior(path), operators.function(measured, SHAPE)
    truths = jax.jit(jax.vmap(lambda key: di.sample(key, samplers.heun(prior), times.grid(24, power=2.0)).x))
    solve = di.as_solver(lambda m: posterior.eki(prior, m, particles=96, ode_steps=12, codes=False), times.grid(4))
    restore = jax.jit(jax.vmap(solve, (0, None)))
    shares, widths = [], []
    for i, truth in enumerate(truths(jax.random.split(jax.random.key(0), problems))):
        noise, draw = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        measurement = di.measure(noise, A, truth, sigma=0.05)
        samples = np.asarray(restore(jax.random.split(draw, draws), measurement).x)
        shares.append(coverage(samples.reshape(draws, -1), truth.ravel(), LEVEL))
        widths.append(np.sqrt(samples.var(0, ddof=1).mean()))
    print(f"{np.mean(shares):.0%} of the pixels are inside their {LEVEL:.0%} interval; deviation {np.mean(widths):.2f}")
    return float(np.mean(shares)), float(np.mean(widths))


if __name__ == "__main__":
    main(*sys.argv[1:2])
