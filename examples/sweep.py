"""Many values of a hyperparameter in one compiled program, and their cost.

python examples/sweep.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.loop import total_cost

SHAPE = (12, 12, 1)
ZETAS = jnp.asarray([0.03, 0.1, 0.3, 1.0])


def main(folder=""):
    """Prints the error of DPS for each step size, and what one solution cost."""
    key = jax.random.key(0)
    prior = di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), jnp.full((12, 12, 1), 0.25))
    truth = prior.denoise.sample(key)
    measurement = di.measure(key, operators.average_pool(SHAPE, 2), truth, sigma=0.05)
    build = lambda zeta: di.as_solver(lambda m: posterior.dps(prior, m, zeta), times.grid(100))
    solutions = jax.jit(di.sweep(build, zeta=ZETAS))(key, measurement)
    errors = jnp.sqrt(jnp.mean((solutions.x - truth) ** 2, (1, 2, 3)))
    for zeta, error in zip(ZETAS, errors, strict=True):
        print(f"zeta {float(zeta):.2f}: error {float(error):.3f}")
    cost = total_cost(jax.tree.map(lambda leaf: leaf[0], solutions.info))
    print(f"each: {cost.nfe} evaluations, {cost.vjps} pullbacks, {cost.calls} calls of the operator")
    if folder:
        named = [(f"zeta {zeta:.2f}", f"error {error:.3f}", x) for zeta, error, x in zip(ZETAS, errors, solutions.x)]
        di.display.contact_sheet([[("truth", "", truth), *named]]).save(f"{folder}/sweep.png")
    return errors, cost


if __name__ == "__main__":
    main(*sys.argv[1:])
