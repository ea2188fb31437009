"""The registry of posterior methods and solvers: one line in it buys the whole battery.

`METHODS[name](prior, measurement, strength=1.0)` is a `Sampler`. `strength` scales the method's own hyperparameter
(zeta, rho, weight, eta, lr); a method without one reads it as a factor on the noise it assumes.
`SOLVERS[name](prior, times, strength=1.0)` is a `Solver`, wrappers included.
"""

from functools import partial

import jax.numpy as jnp

import diffinv as di
from diffinv import posterior, samplers, times
from diffinv.posterior import chains, moments, proximal, rewards


def _assuming(measurement, strength):
    """The measurement with its noise's deviation scaled by `strength`."""
    return measurement.replace(noise=di.GaussianNoise(strength * measurement.sigma))


def dps(reward, zeta, prior, measurement, strength=1.0):
    return posterior.dps(prior, measurement, zeta * strength, reward)


def dps_score(sampler, reward, rho, prior, measurement, strength=1.0):
    return sampler(posterior.dps_score(prior, measurement, rho * strength, reward))


def pigdm(adaptive, prior, measurement, strength=1.0):
    return samplers.ddim(posterior.pigdm(prior, measurement, strength, adaptive), eta=0.5)


def mmps(prior, measurement, strength=1.0):
    return samplers.heun(posterior.mmps(prior, _assuming(measurement, strength)))


def tmpd(moment, prior, measurement, strength=1.0):
    return samplers.heun(posterior.tmpd(prior, _assuming(measurement, strength), moment))


def ddnm(prior, measurement, strength=1.0):
    return samplers.ddim(posterior.ddnm(prior, measurement), eta=0.85 * strength)


def daps(chain, lr, prior, measurement, strength=1.0, **options):
    return posterior.daps(prior, measurement, 3, chain(20, lr * strength, **options))


def conjugate_daps(force, prior, measurement, strength=1.0):
    return posterior.daps(prior, _assuming(measurement, strength), 3, chains.conjugate(force))


CORE = {
    "dps norm": partial(dps, rewards.norm, 0.1),
    "dps square": partial(dps, rewards.square, 0.05),
    "dps likelihood": partial(dps, rewards.likelihood, 0.01),
    "dps_score heun": partial(dps_score, samplers.heun, rewards.square, 1.0),
    "dps_score euler": partial(dps_score, samplers.euler, rewards.norm, 1.0),
    "pigdm likelihood": partial(pigdm, False),
    "pigdm adaptive": partial(pigdm, True),
    "mmps": mmps,
    "tmpd exact": partial(tmpd, moments.exact),
    "tmpd diagonal": partial(tmpd, moments.diagonal),
    "ddnm": ddnm,
    "daps langevin legacy": partial(daps, chains.langevin, 0.5),
    "daps langevin main": partial(daps, chains.langevin, 0.5, force=2.0),
    "daps conjugate legacy": partial(conjugate_daps, 1.0),
    "daps conjugate main": partial(conjugate_daps, 2.0),
}


def swept(function, argument, value, prior, measurement, strength=1.0, **options):
    """A method whose strength is one of its own arguments, times `value`."""
    return function(prior, measurement, **{argument: value * strength}, **options)


def pnpdm(chain, prior, measurement, strength=1.0):
    return posterior.pnpdm(prior, _assuming(measurement, strength), 4, chain)


def dpnp(stochastic, prior, measurement, strength=1.0):
    return posterior.dpnp(prior, _assuming(measurement, strength), 4, stochastic=stochastic)


def eki(prior, measurement, strength=1.0):
    return posterior.eki(prior, _assuming(measurement, strength), particles=12, ode_steps=2)


def tmpd_entries(prior, measurement, strength=1.0):
    return samplers.ddim(posterior.tmpd(prior, _assuming(measurement, strength), moments.entries), 0.5)


def blind_dps(prior, measurement, strength=1.0):
    """What is unknown of the operator is its gain, about 1; its prior is the picture's own, so that it counts, too."""
    build = lambda kernel: di.operators.scale(measurement.operator, 1 + 0.01 * kernel[0])
    return posterior.blind_dps(prior, measurement, prior, build, 0.1 * strength, 0.1 * strength)


MORE = {
    "ddrm": partial(swept, posterior.ddrm, "eta", 0.85),
    "ddnm_plus svd": partial(swept, posterior.ddnm_plus, "eta", 0.85),
    "ddnm_plus scalar": partial(swept, posterior.ddnm_plus, "eta", 0.85, spectral=False),
    "repaint": partial(swept, posterior.repaint, "eta", 0.9),
    "mcg": partial(swept, posterior.mcg, "zeta", 0.05),
    "pgdm paper": partial(swept, posterior.pgdm, "weight", 1.0, eta=0.5),
    "pgdm code": partial(swept, posterior.pgdm, "weight", 1.0, eta=0.5, awd=True),
    "lgd code": partial(swept, posterior.lgd, "scale", 0.1),
    "lgd paper": partial(swept, posterior.lgd, "scale", 0.01, reward=rewards.cloud_likelihood),
    "tmpd entries": tmpd_entries,
    "diffpir closed": partial(swept, posterior.diffpir, "lam", 1.0),
    "diffpir gradient": partial(swept, posterior.diffpir, "zeta", 0.5, prox=proximal.gradient),
    "flowdps": partial(swept, posterior.flowdps, "lr", 0.1),
    "flair": partial(swept, posterior.flair, "weight", 0.5, iterations=5, lr=0.3),
    "sitcom": partial(swept, posterior.sitcom, "lr", 0.1, iterations=3),
    "dcdp": partial(swept, posterior.dcdp, "lr", 0.1, iterations=10, purify_steps=3),
    "reddiff mean": partial(swept, posterior.reddiff, "lr", 0.1),
    "reddiff sum": partial(swept, posterior.reddiff, "lr", 0.1, power=0.0, sums=True),
    "diffstategrad": partial(swept, posterior.diffstategrad, "zeta", 0.1),
    "dmplug": partial(swept, posterior.dmplug, "lr", 0.1, ode_steps=2),
    "mgps": partial(swept, posterior.mgps, "lr", 0.1, iterations=1, early=3, first=2),
    "mgdm": partial(swept, posterior.mgdm, "lr", 0.1, iterations=2, denoise_steps=2),
    "mcgdiff": partial(swept, posterior.mcgdiff, "eta", 0.85, particles=4),
    "fps": partial(swept, posterior.fps, "c", 0.85, particles=4),
    "tds": partial(swept, posterior.tds, "spread", 1.0, particles=4),
    "ddsmc": partial(swept, posterior.ddsmc, "eta", 0.5, particles=4, ode_steps=2),
    "enkg": partial(swept, posterior.enkg, "scale", 1.0, particles=8, updates=2, ode_steps=2),
    "eki": eki,
    "dps_gsg central": partial(swept, posterior.dps_gsg, "zeta", 0.1, draws=8),
    "dps_gsg forward": partial(swept, posterior.dps_gsg, "zeta", 0.1, draws=8, central=False),
    "dpg": partial(swept, posterior.dpg, "scale", 1.0, draws=8),
    "scg": partial(swept, posterior.scg, "begin", 0.8, draws=4),
    "pnpdm conjugate": partial(pnpdm, chains.conjugate()),
    "pnpdm langevin": partial(pnpdm, chains.langevin(10)),
    "dapspp": partial(swept, posterior.dapspp, "lr", 0.3),
    "dpnp ddim": partial(dpnp, False),
    "dpnp ddpm": partial(dpnp, True),
    "psld": partial(swept, posterior.psld, "omega", 0.1),
    "resample": partial(swept, posterior.resample, "scale", 0.1, every=2, iterations=20, pixel_iterations=20, lr=0.05),
    "blind_dps": blind_dps,
    "zero_filled": partial(swept, posterior.zero_filled, "ground", -1.0),
    "total_variation": partial(swept, posterior.total_variation, "lam", 0.05),
    "tikhonov": partial(swept, posterior.tikhonov, "lam", 0.1),
    "wiener": partial(swept, posterior.wiener, "variance", 1.0),
    "pnp_admm closed": partial(swept, posterior.pnp_admm, "level", 0.5),
    "pnp_admm gradient": partial(swept, posterior.pnp_admm, "lam", 1.0, level=0.5, prox=proximal.gradient),
    "red": partial(swept, posterior.red, "lam", 1.0, level=0.5),
    "deep_image_prior": partial(swept, posterior.deep_image_prior, "lr", 0.02, channels=4, levels=1),
    "daps hmc": partial(daps, chains.hmc, 0.3),
    "daps rto": partial(daps, chains.rto, 0.5),
    "daps metropolis": partial(daps, chains.metropolis, 0.5),
}
"""Their battery compiles less: see the end of `test_battery`."""

METHODS = CORE | MORE

ANY_PROCESS = [name for name in CORE if name.split()[0] in ("dps", "dps_score", "mmps", "tmpd")]
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


def restarts(method, prior, grid, strength=1.0):
    middle = grid[len(grid) // 2 :]
    refine = plain(method, prior, middle, strength)
    return posterior.restarts(plain(method, prior, grid, strength), refine, prior, middle[0], 2)


SOLVERS = (
    {
        f"{wrapper.__name__} {name}": partial(wrapper, method)
        for wrapper in (plain, reguidance)
        for name, method in CORE.items()
    }
    | {f"plain {name}": partial(plain, method) for name, method in MORE.items()}
    | {
        "warm_start dps norm": partial(warm_start, METHODS["dps norm"]),
        "warm_start mmps": partial(warm_start, METHODS["mmps"]),
        "best_of daps langevin legacy": partial(best_of, METHODS["daps langevin legacy"]),
        "best_of ddnm": partial(best_of, METHODS["ddnm"]),
        "restarts ddrm": partial(restarts, METHODS["ddrm"]),
    }
)

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
