"""The registry of posterior methods and solvers: one line in it buys the whole battery.

`METHODS[name](prior, measurement, strength=1.0)` is a `Sampler`. `strength` scales the method's own hyperparameter
(zeta, rho, weight, eta, lr); a method without one reads it as a factor on the noise it assumes.
`SOLVERS[name](prior, times, strength=1.0)` is a `Solver`, wrappers included.
"""

from functools import partial

import jax.numpy as jnp

import diffinv as di
from diffinv import posterior, samplers, times


def _assuming(measurement, strength):
    """The measurement with its noise's deviation scaled by `strength`."""
    return measurement.replace(noise=di.GaussianNoise(strength * measurement.sigma))


def dps(convention, zeta, prior, measurement, strength=1.0):
    return posterior.dps(prior, measurement, zeta * strength, convention)


def dps_score(sampler, convention, rho, prior, measurement, strength=1.0):
    return sampler(posterior.dps_score(prior, measurement, rho * strength, convention))


def pigdm(form, prior, measurement, strength=1.0):
    return samplers.ddim(posterior.pigdm(prior, measurement, strength, form), eta=0.5)


def mmps(prior, measurement, strength=1.0):
    return samplers.heun(posterior.mmps(prior, _assuming(measurement, strength)))


def tmpd(form, prior, measurement, strength=1.0):
    return samplers.heun(posterior.tmpd(prior, _assuming(measurement, strength), form))


def ddnm(prior, measurement, strength=1.0):
    return samplers.ddim(posterior.ddnm(prior, measurement), eta=0.85 * strength)


def daps(chain, force, prior, measurement, strength=1.0):
    if chain == "conjugate":
        return posterior.daps(prior, _assuming(measurement, strength), 3, force=force, chain=chain)
    return posterior.daps(prior, measurement, 3, 20, 0.5 * strength, force=force, chain=chain)


METHODS = {
    "dps norm": partial(dps, "norm", 0.1),
    "dps square": partial(dps, "square", 0.05),
    "dps likelihood": partial(dps, "likelihood", 0.01),
    "dps_score heun": partial(dps_score, samplers.heun, "square", 1.0),
    "dps_score euler": partial(dps_score, samplers.euler, "norm", 1.0),
    "pigdm likelihood": partial(pigdm, "likelihood"),
    "pigdm adaptive": partial(pigdm, "adaptive"),
    "mmps": mmps,
    "tmpd exact": partial(tmpd, "exact"),
    "tmpd diagonal": partial(tmpd, "diagonal"),
    "ddnm": ddnm,
    "daps langevin legacy": partial(daps, "langevin", "legacy"),
    "daps langevin main": partial(daps, "langevin", "main"),
    "daps conjugate legacy": partial(daps, "conjugate", "legacy"),
    "daps conjugate main": partial(daps, "conjugate", "main"),
}

ANY_PROCESS = [name for name in METHODS if name.split()[0] in ("dps", "dps_score", "mmps", "tmpd")]
"""The methods that claim no isotropy: they also run where alpha is an array, as for blurring."""


def plain(method, prior, grid, strength=1.0):
    return di.as_solver(lambda m: method(prior, m, strength), grid)


def refinement(prior, grid, rho=1.0):
    """The deterministic DPS-ODE of ReGuidance."""
    return di.as_solver(lambda m: samplers.heun(posterior.dps_score(prior, m, rho)), grid)


def reguidance(method, prior, grid, strength=1.0):
    return posterior.reguidance(plain(method, prior, grid), refinement(prior, grid, strength), prior, grid)


def warm_start(method, prior, grid, strength=1.0):
    middle = grid[len(grid) // 2 :]
    return posterior.warm_start(plain(method, prior, grid), plain(method, prior, middle, strength), prior, middle[0])


def best_of(method, prior, grid, strength=1.0):
    return posterior.best_of(plain(method, prior, grid, strength), 3)


SOLVERS = {
    f"{wrapper.__name__} {name}": partial(wrapper, method)
    for wrapper in (plain, reguidance)
    for name, method in METHODS.items()
} | {
    "warm_start dps norm": partial(warm_start, METHODS["dps norm"]),
    "warm_start mmps": partial(warm_start, METHODS["mmps"]),
    "best_of daps langevin legacy": partial(best_of, METHODS["daps langevin legacy"]),
    "best_of ddnm": partial(best_of, METHODS["ddnm"]),
}

GRIDS = {
    "VP": (lambda: di.process.VP(), lambda n: times.grid(n, power=2.0)),
    "EDM": (lambda: di.process.EDM(), times.karras),
    "Flow": (lambda: di.process.Flow(), times.grid),
    "DDPM": (lambda: di.process.ddpm(100), times.grid),
    "Cosine": (lambda: di.process.Cosine(), times.grid),
}
"""Isotropic processes, each with a grid that suits it. `Flow` has alpha(1) = 0 exactly."""


def blurring(shape):
    return di.process.Blurring(di.process.dct_frequencies(*shape[:2]), sigma_blur=2.0)


def cast(tree, dtype):
    """Every floating-point array of a pytree in `dtype`; Python floats stay weak."""
    import jax

    def leaf(a):
        return a.astype(dtype) if isinstance(a, jnp.ndarray) and jnp.issubdtype(a.dtype, jnp.floating) else a

    return jax.tree.map(leaf, tree)
