"""CT, CD, iCT and ECT against the exact map: Gaussian in closed form, a mixture on the line by its quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import (
    PROCESSES,
    VARIANCES,
    GaussianMap,
    GaussianMean,
    Mixture1D,
    context,
    every_process,
    gaussian_data,
    pair,
    two,
)
from numpy.testing import assert_allclose, assert_array_equal
from oracle import slope
from registries import FREQUENCIES

import diffinv as di
from diffinv import consistency, process, samplers, times
from diffinv.prior import PARAMETRISATIONS, PRECONDITIONED, NetworkDenoiser

LOG = jnp.log(VARIANCES)


def test_the_map_at_time_0_is_the_identity_exactly(key):
    """For every parametrisation but x0; a velocity is infinite at time 0 for VP and VE."""
    x = jax.random.normal(key, (3, 3, 1), float)

    def ends(x):
        for name in [*PRECONDITIONED, *PARAMETRISATIONS]:
            for forward in (process.Flow(), process.VP()):
                made = NetworkDenoiser(
                    None, forward, lambda p, x, c: jnp.sin(3 * x), name, lambda process, t: t, sigma_data=0.3
                )
                if name != "x0" and (name != "velocity" or isinstance(forward, process.Explicit)):
                    yield made(x, 0.0)

    for end in jax.jit(lambda x: list(ends(x)))(x):
        assert_array_equal(end, x)


@pytest.mark.slow
def test_the_exact_maps_are_the_flow_of_the_ode(key):
    """Heun's solution tends to the closed forms at order 2, for the Gaussian and for the mixture."""
    forward, start = PROCESSES["vp"], 0.9
    law = Mixture1D(jnp.asarray([0.3, 0.7]), jnp.asarray([-1.0, 0.6]), jnp.asarray([0.3, 0.5]))
    mixture = di.mixture(forward, law.means[:, None], law.weights, law.deviations**2)
    single = di.Prior(forward, GaussianMean(LOG, forward), (4,))
    x, alpha, sigma = jnp.asarray([0.3, -0.7, 1.1, 0.2]), forward.alpha(start), forward.sigma(start)

    @jax.jit
    def error(grid):
        found = di.sample(key, samplers.heun(single), grid, x).x - GaussianMap(LOG, forward)(x, start)
        other = di.sample(key, samplers.heun(mixture), grid, x[:1]).x - law.map(x[0], alpha, sigma)
        return jnp.stack([jnp.max(jnp.abs(found)), jnp.abs(other[0])])

    counts = np.asarray([100, 400])
    errors = np.asarray([error(times.grid(n, start, power=2.0)) for n in counts])
    assert min(slope(counts, errors[:, i]) for i in (0, 1)) > 1.8 and errors[-1].max() < 1e-4


@every_process
def test_distillation_vanishes_at_the_exact_map(name, key):
    """Heun's step is off by h^3: the loss falls at order 6, its gradient at order 3."""
    forward, batch, steps = PROCESSES[name], gaussian_data(key, 64), np.asarray([0.02, 0.01, 0.005])
    teacher = lambda frozen: GaussianMean(frozen, forward)

    @jax.jit
    def measured(h, log):
        model = lambda log: GaussianMap(log, forward)
        loss = consistency.cd(model, forward, pair(0.6, 0.6 - h), two, teacher, target=None)
        return jax.value_and_grad(loss, 1)(key, log, batch, context(frozen=LOG))

    losses, gradients = zip(*(measured(h, LOG) for h in steps), strict=True)
    assert abs(slope(1 / steps, np.asarray(losses)) - 6) < 0.3
    assert abs(slope(1 / steps, np.asarray([jnp.linalg.norm(g) for g in gradients])) - 3) < 0.3
    assert measured(steps[-1], LOG + 0.1)[0] > 100 * losses[-1]


@pytest.mark.slow
def test_the_mixtures_exact_map_is_the_minimiser_of_distillation(key):
    """On the line: the loss at the map of quantiles is 1e-4 of that at the denoiser, and at a stretched map."""
    forward, law = process.EDM(2.0), Mixture1D(*jnp.asarray([[0.3, 0.7], [-1.0, 0.6], [0.3, 0.5]]))
    exact = lambda x, t: law.map(x[0], forward.alpha(t), forward.sigma(t))[None]
    mean = di.mixture(forward, law.means[:, None], law.weights, law.deviations**2).denoise
    maps = (exact, mean, lambda x, t: (1 + 0.1 * t) * exact(x, t))
    batch = jax.random.normal(key, (64, 1), float)

    @jax.jit
    def losses():
        loss = lambda f: consistency.cd(lambda p: f, forward, pair(0.5, 0.47), two, lambda p: mean, target=None)
        return [loss(f)(key, None, batch, context()) for f in maps]

    right, *wrong = losses()
    assert right < 1e-4 * min(wrong)


@pytest.mark.slow
def test_trainings_gradient_at_the_exact_map_in_closed_form(key):
    r"""Its expectation is `2 a'_t (a_t (v + s_t^2) - a_s (v + s_t s_s))`, `f = a x`: order 2 in the step.

    Five standard errors: the sum of 2^19 independent coordinates.
    """
    forward, v, n = process.EDM(1.0), 0.4, 2**19
    x0 = jnp.sqrt(v) * jax.random.normal(key, (1, n), float)

    def closed(t, s):
        a, rate = lambda r: np.sqrt(v / (v + r**2)), 0.5 * np.sqrt(v) * t**2 / (v + t**2) ** 1.5  # d a / d log v
        return 2 * rate * (a(t) * (v + t**2) - a(s) * (v + t * s))

    steps = np.asarray([0.02, 0.01, 0.005])
    assert abs(slope(1 / steps, np.abs([closed(0.8, 0.8 - h) for h in steps])) - 2) < 0.05
    model = lambda log: GaussianMap(log, forward)
    loss = consistency.ct(model, forward, pair(0.8, 0.5), two, target=None)
    found = jax.jit(jax.grad(loss, 1))(key, jnp.log(v), x0, context())
    assert_allclose(found, closed(0.8, 0.5), atol=5 * 0.3 / np.sqrt(n))
    assert abs(closed(0.8, 0.5)) > 10 * 0.3 / np.sqrt(n)


@pytest.mark.slow
def test_training_runs_on_blurring(key):
    """One noise level is not needed: the pair is made per coefficient of the DCT."""
    forward = process.Blurring(FREQUENCIES)
    model = lambda gain: lambda x, t: x * (1 - gain * forward.sigma(t))
    loss = consistency.ct(model, forward, consistency.uniform, consistency.doubling(10), target=0)
    batch = jax.random.normal(key, (4, 8, 8, 1), float)
    value, rate = jax.jit(jax.value_and_grad(loss, 1))(key, jnp.asarray(0.5), batch, context(ema=(jnp.asarray(0.5),)))
    assert np.isfinite(value) and value > 0 and np.isfinite(rate)


@pytest.mark.slow
def test_easy_tuning_begins_as_diffusion(key):
    """q = 1 keeps every r at 0: the loss is `|D(x_t, t) - x_0| / t`, whatever the weights do at time 0."""
    forward, params = process.EDM(), jnp.asarray([0.3, -1.1])
    model = lambda p: NetworkDenoiser(p, forward, lambda p, x, c: jnp.sin(p[0] * x + p[1] * c))
    batch, split = jax.random.normal(key, (8, 2, 2, 1), float), lambda key: jax.random.split(key, 8)

    def by_hand(key, x0):
        level, noise, _ = jax.random.split(key, 3)
        r = jnp.exp(-1.1 + 2.0 * jax.random.normal(level, (), float))
        x = x0 + r * jax.random.normal(noise, x0.shape, float)
        return jnp.sqrt(jnp.sum((model(params)(x, r / 80) - x0) ** 2)) / r

    loss = consistency.ect(model, forward, every=10, q=1.0)
    both = jax.jit(lambda key, batch: (loss(key, params, batch, context(57)), jax.vmap(by_hand)(split(key), batch)))
    found, expected = both(key, batch)
    assert_allclose(found, jnp.mean(expected), rtol=1e-12)


@pytest.mark.slow
def test_conditions_and_one_dropout_key_reach_both_networks(key):
    """The label changes the loss; a dropout drawn twice would leave a distance even where the map is constant."""
    forward, seen = process.EDM(), []

    def apply(params, x, c, label, rngs):
        seen.append(rngs["dropout"])
        return params * label * jax.random.bernoulli(rngs["dropout"], 0.5, x.shape).astype(x.dtype)

    model = lambda p: NetworkDenoiser(p, forward, apply)
    loss = jax.jit(consistency.ict(model, forward, consistency.doubling(10), dropout=True))
    batch = {"image": jnp.zeros((6, 2, 2, 1)), "label": jnp.arange(1.0, 7.0)}
    values = [loss(key, p, batch, context()) for p in (jnp.asarray(0.0), jnp.asarray(1.0))]
    assert seen[0] is seen[1] and values[0] != values[1]
