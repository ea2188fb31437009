"""Do a sampler's regions hold the truth as often as they claim? Highest-density regions over many measurements.

python examples/calibration.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import diffinv as di
from diffinv import operators, posterior, samplers, times
from diffinv.metrics import calibration

SHAPE, PROBLEMS, DRAWS, LEVELS = (6, 6, 1), 200, 40, np.linspace(0, 1, 41)


def main(folder="", problems=PROBLEMS):
    """Prints, for each method, how often its 90 % regions hold the truth; returns the curves over all levels."""
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), jnp.full(SHAPE, 0.25))
    A = operators.average_pool(SHAPE, 2)
    methods = {
        "MMPS": lambda m: samplers.heun(posterior.mmps(prior, m)),
        "DPS": lambda m: posterior.dps(prior, m, 0.3),
        "DDNM": lambda m: samplers.ddim(posterior.ddnm(prior, m), 0.85),
    }

    def one(method, key):
        """Log posterior densities, up to a constant, of the draws and of the truth of one problem."""
        truth_key, noise_key, draw_key = jax.random.split(key, 3)
        truth = prior.denoise.sample(truth_key)
        m = di.measure(noise_key, A, truth, sigma=0.2)
        solve = di.as_solver(method, times.grid(50, power=2.0))
        drawn = jax.vmap(lambda k: solve(k, m).x)(jax.random.split(draw_key, DRAWS))
        density = lambda x: m.log_likelihood(x) - jnp.sum(x**2) / 0.5
        return jax.vmap(density)(drawn), density(truth)

    curves, keys = {}, jax.random.split(jax.random.key(0), problems)
    for name, method in methods.items():
        densities, own = jax.jit(jax.vmap(lambda key, method=method: one(method, key)))(keys)
        ranks = calibration.hpd_ranks(np.asarray(densities), np.asarray(own))
        curves[name] = calibration.coverage_curve(ranks, DRAWS, LEVELS)
        print(f"{name}: regions of 90 % hold {curves[name][36]:.0%} of the truths")
    low, high = calibration.coverage_band(problems, LEVELS[36:37])
    print(f"a calibrated sampler's hold {low[0]:.0%} to {high[0]:.0%}, 19 times of 20")
    if folder:
        row = [(name, f"90 %: {curve[36]:.0%}", curve) for name, curve in curves.items()]
        di.display.contact_sheet([row]).save(f"{folder}/calibration.png")
    return curves


if __name__ == "__main__":
    main(*sys.argv[1:])
