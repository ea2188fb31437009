"""A solver of your own, entire, beside the exact posterior of a Gaussian field.

python examples/own_solver.py [FOLDER]
"""

import sys

import jax
import jax.numpy as jnp

import diffinv as di
from diffinv import operators, posterior, samplers, times

SHAPE = (12, 12, 1)


def null_space(prior, measurement, eta=0.85):
    """Replaces the range of x0 by the measurement (Wang et al. 2023, arXiv:2212.00490)."""
    A, process = measurement.operator, prior.process

    def step(key, x, t, s):
        x0 = prior.denoise(x, t)
        x0 = x0 + A.pinv(measurement.residual(x0))
        x = process.transition(x, x0, t, s, eta).sample(key)
        return x, jnp.linalg.norm(measurement.residual(x0))

    return di.markov(prior, step, cost=prior.cost.plus(calls=3))


def field():
    """A smooth Gaussian field under the variance-preserving process: its denoiser is known exactly."""
    k = jnp.arange(12.0)
    spectrum = 1 / (1 + (k[:, None] ** 2 + k[None, :] ** 2) / 4)
    return di.gaussian_field(di.process.VP(), jnp.zeros(SHAPE), spectrum[:, :, None])


def posterior_mean(prior, measurement):
    """`C A^T (A C A^T + sigma^2 I)^-1 y` in dense algebra, with `C` the field's covariance."""
    law, size = prior.denoise, SHAPE[0] * SHAPE[1]
    covariance = lambda v: law.synthesise(law.variance * law.analyse(v.reshape(SHAPE))).ravel()
    C = jax.vmap(covariance)(jnp.eye(size))
    A = jax.vmap(lambda v: measurement.operator(v.reshape(SHAPE)).ravel())(jnp.eye(size)).T
    gain = C @ A.T @ jnp.linalg.inv(A @ C @ A.T + measurement.sigma**2 * jnp.eye(len(A)))
    return (gain @ measurement.y.ravel()).reshape(SHAPE)


def main(folder=""):
    """Prints how far the mean of 128 samples is from the exact posterior's mean, for three methods."""
    key, prior = jax.random.key(0), field()
    truth = prior.denoise.sample(key)
    measurement = di.measure(key, operators.box_inpainting(SHAPE, top=4, left=4, size=4), truth, sigma=0.1)
    exact = posterior_mean(prior, measurement)
    methods = {
        "null_space": lambda m: null_space(prior, m),
        "ddnm_plus": lambda m: posterior.ddnm_plus(prior, m),
        "mmps": lambda m: samplers.heun(posterior.mmps(prior, m)),
    }
    errors, shown = {}, {"truth": truth, "exact mean": exact}
    for name, method in methods.items():
        solve = jax.jit(jax.vmap(di.as_solver(method, times.grid(32, power=2.0)), (0, None)))
        shown[name] = mean = solve(jax.random.split(key, 128), measurement).x.mean(0)
        errors[name] = float(jnp.sqrt(jnp.mean((mean - exact) ** 2)))
        print(f"{name}: the samples' mean is {errors[name]:.3f} from the exact one")
    if folder:
        di.display.contact_sheet([[(name, "", x) for name, x in shown.items()]]).save(f"{folder}/own_solver.png")
    return errors


if __name__ == "__main__":
    main(*sys.argv[1:])
