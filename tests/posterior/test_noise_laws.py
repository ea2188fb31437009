"""The table of who honours which law of the noise: against what each method asks of a law, and as the page says it."""

import functools
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from flax import struct

import diffinv as di
from diffinv import charts, operators, posterior, samplers, times
from diffinv.posterior import chains, rewards
from diffinv.posterior.laws import EXAMPLE, LAWS, USES, page, spelled
from posterior.published import DIM, MATRIX, X, Y, ancestral, assert_close, at, normal, problem, step

PAGE = Path(__file__).parents[2] / "docs" / "noise-laws.md"
KEY, T, NEXT = jax.random.key(3), 0.5, 0.35
GUIDANCE = ("dps_score", "pigdm", "mmps", "tmpd", "ddnm")
SILENT = {"account", "autoguidance", "cfg", "reguidance", "restarts", "travel", "warm_start"}
ROOMS = {name for name in posterior.__all__ if inspect.ismodule(getattr(posterior, name))}
ASKED = []


@struct.dataclass
class Laplace(di.Noise):
    """No deviation of its own; tells when it is asked for its likelihood."""

    scale: float = 0.2

    def sample(self, key, clean):
        return clean + self.scale * jax.random.laplace(key, clean.shape, clean.dtype)

    def log_likelihood(self, y, clean):
        ASKED.append("likelihood")
        return -jnp.sum(jnp.abs(y - clean)) / self.scale


@struct.dataclass
class Wide(Laplace):
    """The same law, with its deviation."""

    @property
    def sigma(self):
        return self.scale * 2**0.5


def solver(law, steps=2):
    """The law's method as a solver of `problem()`'s prior, as small as it gets."""
    prior, _ = problem()
    options = {
        name: 2 for name in ("iterations", "pixel_iterations", "particles", "reverse_steps", "channels", "levels")
    }
    known = posterior.__dict__[law.method].__code__.co_varnames
    options = {name: value for name, value in options.items() if name in known} | law.options
    grid, method = times.grid(steps), getattr(posterior, law.method)
    if law.method == "best_of":
        return posterior.best_of(di.as_solver(lambda m: posterior.repaint(prior, m), grid), 2)
    if law.method in GUIDANCE:
        return di.as_solver(lambda m: samplers.euler(method(prior, m, **options)), grid)
    if law.method == "blind_dps":
        kernels = di.gaussian(prior.process, jnp.ones(1), jnp.eye(1))
        build = lambda k: operators.scale(operators.dense(jnp.asarray(MATRIX)), k[0])
        return di.as_solver(lambda m: method(prior, m, kernels, build, **options), grid)
    if law.method in ("psld", "resample"):
        chart = charts.latent(lambda x: x, lambda z: z, (DIM,))
        return di.as_solver(lambda m: method(prior, m, chart, **options), grid)
    return di.as_solver(lambda m: method(prior, m, **options), grid)


def asks(law, noise):
    """What tracing the method under this noise asks for: "refused", or whether its likelihood."""
    _, m = problem()
    ASKED.clear()
    try:
        jax.eval_shape(solver(law), KEY, m.replace(noise=noise))
    except TypeError as error:
        assert type(noise).__name__ in str(error), error
        return "refused"
    return "likelihood" if ASKED else "nothing"


EXPECTED = {  # without a deviation, and with one
    "likelihood": ("likelihood", "likelihood"),
    "chain": ("refused", "likelihood"),
    "weights": ("refused", "likelihood"),
    "gaussian": ("refused", "nothing"),
    "residual": ("nothing", "nothing"),
    "refused": ("refused", "refused"),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: " ".join((law.method, *map(spelled, law.options.values()))))
def test_a_method_asks_of_a_law_what_the_table_says(law):
    """By tracing alone: who never asks for the likelihood cannot honour it, who never asks for sigma needs none."""
    assert (asks(law, Laplace()), asks(law, Wide())) == EXPECTED[law.uses]
    assert asks(law, di.PoissonNoise(30.0)) == ("refused" if law.uses == "refused" else "nothing")


def test_every_method_is_in_the_table_and_says_so_itself():
    assert {law.method for law in LAWS} == set(posterior.__all__) - SILENT - ROOMS
    assert set(EXPECTED) == set(USES) == {law.uses for law in LAWS}
    unsaid = [law.method for law in LAWS if "Noise: " not in getattr(posterior, law.method).__doc__]
    assert not unsaid, f"the docstrings of {unsaid} do not say what they make of the noise: 'Noise: ...'"


def test_the_page_is_written_from_the_table():
    assert PAGE.read_text() == page(), "write diffinv.posterior.laws.page() to docs/noise-laws.md"


def test_the_law_that_the_page_shows_is_one():
    names = {"di": di, "jax": jax, "jnp": jnp, "struct": struct}
    exec(EXAMPLE, names)
    noise = names["Laplace"](0.2)
    m = di.measure(KEY, operators.identity((4000,)), jnp.zeros(4000), noise=noise)
    assert np.abs(np.asarray(m.y)).mean() == pytest.approx(0.2, rel=0.1)
    assert_close(noise.log_likelihood(jnp.ones(2), jnp.zeros(2)), -10.0)


def test_daps_steps_by_tau_where_a_law_has_no_width():
    """And walks by the law all the same: the last chain's end differs from that under Gaussian noise of that tau."""
    prior, m = problem()
    ends = []
    for noise in (Laplace(0.3), di.GaussianNoise(0.5)):
        sampler = posterior.daps(prior, m.replace(noise=noise), 1, chains.langevin(3), tau=0.5)
        ends.append(np.asarray(step(sampler, KEY, T, NEXT)[0]))
    assert np.isfinite(ends).all() and np.abs(ends[0] - ends[1]).max() > 1e-3


def test_lgd_as_published_needs_the_likelihood_alone():
    """The gradient of the log mean of Laplace's likelihoods, by NumPy."""
    prior, m = problem()
    x, _ = step(
        posterior.lgd(prior, m.replace(noise=Laplace(0.5)), 0.05, draws=3, reward=rewards.cloud_likelihood),
        KEY,
        T,
        NEXT,
    )
    draw, guess = jax.random.split(KEY)
    now = at(T)
    residuals = Y - (now.x0 + np.sqrt(1 - now.alpha**2) * normal(guess, 3, DIM)) @ MATRIX.T
    logs = -np.abs(residuals).sum(1) / 0.5
    weights = np.exp(logs - logs.max())
    gradient = -now.J.T @ MATRIX.T @ (weights / weights.sum() @ np.sign(residuals)) / 0.5
    mean, c = ancestral(now, X, NEXT)
    assert_close(x, mean + c * normal(draw, DIM) - 0.05 * gradient)


def test_daps_chains_have_the_law_of_their_noise():
    """Against quadrature in one dimension: Laplace's and Poisson's posteriors, which no Gaussian of their width has."""
    x0, r, y = 0.2, 0.6, 5.0
    grid, keys = np.linspace(-3, 4, 20_001), jax.random.split(KEY, 4000)

    @jax.jit
    def walks(keys, m):
        law = chains.Coupled(m, jnp.asarray([x0]), jnp.asarray(r), jnp.asarray(m.sigma), jnp.asarray(r))
        exact, slow = chains.metropolis(150, 1.0), chains.langevin(150, 0.05)
        return jax.vmap(lambda k: (exact(k, law)[0], slow(k, law)[0]))(keys)

    for noise in (Wide(0.8), di.PoissonNoise(2.0)):
        m = di.Measurement(operators.identity((1,)), jnp.asarray([y]), noise)
        exact, slow = walks(keys, m)
        logs = np.asarray(jax.vmap(m.log_likelihood)(jnp.asarray(grid)[:, None])) - (grid - x0) ** 2 / (2 * r**2)
        p = np.exp(logs - logs.max())
        mean = (p * grid).sum() / p.sum()
        std = np.sqrt((p * (grid - mean) ** 2).sum() / p.sum())
        assert abs(exact.mean() - mean) < 5 * std / 4000**0.5 and float(exact.std()) == pytest.approx(std, rel=0.06)
        assert abs(slow.mean() - mean) < 0.15 * std
        narrow = 1 / (1 / r**2 + 1 / float(m.sigma) ** 2)
        gaussian = narrow * (x0 / r**2 + y / float(m.sigma) ** 2)
        assert abs(gaussian - mean) > 0.25 * std or abs(narrow**0.5 / std - 1) > 0.15


SOME = {
    ("dps", "reward"), ("lgd", "reward"), ("mgps",), ("daps",), ("pnpdm", "chain"), ("tds",), ("mcgdiff",),
    ("ddnm_plus",), ("reddiff",),
}  # fmt: skip
RUN = [law for law in LAWS if (law.method, *law.options) in SOME]


@pytest.mark.slow
@pytest.mark.parametrize("law", RUN, ids=lambda law: " ".join((law.method, *map(spelled, law.options.values()))))
def test_a_run_under_laplace_and_poisson_noise_does_what_the_table_says(law):
    """Finite; the same as under Gaussian noise of that deviation where it is taken as such, another one elsewhere."""
    _, m = problem()
    laws = (Wide(0.4), di.PoissonNoise(12.0))
    bright = m.replace(y=jnp.asarray([0.4, -0.3, 0.2]))
    sigmas = jnp.stack([jnp.asarray(bright.replace(noise=noise).sigma) for noise in laws])

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(sigmas):
        under = lambda noise: solver(law)(KEY, bright.replace(noise=noise)).x
        return [under(noise) for noise in laws], jax.vmap(lambda sigma: under(di.GaussianNoise(sigma)))(sigmas)

    for x, other in zip(*run(sigmas), strict=True):
        assert np.isfinite(x).all()
        same = np.allclose(x, other, rtol=1e-9)
        assert same == (law.uses in ("gaussian", "residual")) or law.uses == "weights"
