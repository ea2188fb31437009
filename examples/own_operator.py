"""An operator of your own: what it measures is one function; its adjoint, solve and pinv are found.

python examples/own_operator.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import operators, posterior, samplers, times

SHAPE = (12, 12, 1)


def column_means(x):
    """The mean of each column: (H, W, C) to (W, C)."""
    return jnp.mean(x, axis=0)


def main(folder=""):
    """Restores a field from its columns' means, and prints the residual beside the noise."""
    key = jax.random.key(0)
    A = operators.linear(key, column_means, SHAPE)  # refuses a function that is not linear
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), jnp.full((12, 12, 1), 0.25))
    truth = prior.denoise.sample(key)
    measurement = di.measure(key, A, truth, sigma=0.05)
    solve = di.as_solver(lambda m: samplers.heun(posterior.mmps(prior, m)), times.grid(32, power=2.0))
    solution = jax.jit(solve)(key, measurement)
    residual = float(jnp.sqrt(jnp.mean(measurement.residual(solution.x) ** 2)))
    print(f"residual {residual:.3f}, noise 0.050")
    if folder:
        di.show(solution, measurement, truth).save(f"{folder}/own_operator.png")
    return residual


if __name__ == "__main__":
    main(*sys.argv[1:])
