"""sCM, MeanFlow and shortcut models: their limits, their special cases, and the exact maps at which they vanish."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import PROCESSES, VARIANCES, GaussianMap, GaussianMean, context, every_process, gaussian_data
from flax import struct
from numpy.testing import assert_allclose
from oracle import slope

from diffinv import consistency, process
from diffinv.consistency import continuous
from diffinv.prior import NetworkDenoiser

LOG, WEIGHTS, LEVEL = jnp.log(VARIANCES), jnp.asarray([0.7, -1.1, 0.4]), 0.35


def apply(params, x, condition, second=0.0):
    """A network of three weights that bends with its state and both its times."""
    return jnp.sin(params[0] * x + params[1] * condition + 0.3 * second) + params[2] * x


def network(forward, **options):
    return lambda params: NetworkDenoiser(params, forward, apply, **options)


@struct.dataclass
class TwoTimes:
    """`apply` told its second time."""

    network: NetworkDenoiser

    def to(self, s):
        return self.network.given(second=s)


@every_process
def test_the_continuous_gradient_is_the_limit_of_the_discrete_one(name, key):
    """At one level: `grad sCM = grad ECT / (sin a cos a)` as ECT's step goes to 0, at order 1."""
    forward, batch = PROCESSES[name], gaussian_data(key, 16)
    level = {"log_sigma_mean": jnp.log(LEVEL), "log_sigma_std": 0.0}
    discrete = consistency.ect(network(forward), forward, 1, metric=consistency.square, **level)
    limit = consistency.scm(network(forward), forward, warmup=0, constant=None, **level)

    @jax.jit
    def gradients(stages):
        near = jax.lax.map(lambda stage: jax.grad(discrete, 1)(key, WEIGHTS, batch, context(stage)), stages)
        return near, jax.grad(limit, 1)(key, WEIGHTS, batch, context())

    a = np.arctan(LEVEL / 0.5)
    near, far = map(np.asarray, gradients(jnp.arange(5, 9)))
    errors = np.linalg.norm(near - far[None] * np.sin(a) * np.cos(a), axis=1)
    assert abs(slope(2.0 ** np.arange(4), errors) - 1) < 0.05
    assert errors[-1] < 0.02 * np.linalg.norm(near[-1])


@pytest.mark.slow
def test_the_tangents_length_and_its_warm_up(key):
    """One example, D coordinates: the loss is |g|^2 / D, then (|g| / (|g| + c))^2 / D; at step 0 flow matching's."""
    forward, x0 = PROCESSES["flow"], gaussian_data(key, 1)
    options = {"log_sigma_mean": jnp.log(LEVEL), "log_sigma_std": 0.0, "warmup": 100}

    def values():
        loss = lambda c: consistency.scm(network(forward), forward, constant=c, **options)
        for c, step in ((None, 40), (0.1, 40), (None, 0)):
            yield loss(c)(key, WEIGHTS, x0, context(step))
        _, noise, _ = jax.random.split(jax.random.split(key, 1)[0], 3)
        z, t, a = jax.random.normal(noise, (4,), float), LEVEL / (1 + LEVEL), jnp.arctan(LEVEL / 0.5)
        x = (1 - t) * x0[0] + t * z
        wrong = network(forward)(WEIGHTS)(x, t) - x0[0]  # cos y - s sin F - x0 is sin (dy/da - s F)
        yield jnp.mean((jnp.cos(a) ** 2 * wrong / jnp.sin(a)) ** 2)

    plain, normalised, first, matching = jax.jit(lambda: list(values()))()
    length = np.sqrt(4 * plain)
    assert_allclose(normalised, (length / (length + 0.1)) ** 2 / 4, rtol=1e-10)
    assert_allclose(first, matching, rtol=1e-10)
    assert abs(first - plain) > 1e-3 * plain


@every_process
def test_distillation_vanishes_at_the_exact_map(name, key):
    """sCD's tangent, and MeanFlow's identity with the marginal velocity, are 0 along the trajectories of the ODE."""
    forward, batch, about = PROCESSES[name], gaussian_data(key, 16), context(frozen=LOG, ema=(LOG,))
    model, teacher = lambda log: GaussianMap(log, forward), lambda log: GaussianMean(log, forward)
    wrong = lambda log: GaussianMean(log, forward)
    scm = lambda model: consistency.scm(model, forward, constant=None, warmup=0, teacher=teacher, log_sigma_mean=-1.5)
    meanflow = consistency.meanflow(model, forward, distinct=1.0, power=0.0, teacher=teacher)
    doubled = consistency.shortcut(model, forward, bootstrap=1.0, clip=100.0)

    @jax.jit
    def losses():
        exact = [loss(key, LOG, batch, about) for loss in (scm(model), meanflow, doubled)]
        off = [loss(key, LOG + 0.2, batch, about) for loss in (meanflow, doubled)]
        return exact, [scm(wrong)(key, LOG, batch, about), *off]

    exact, off = losses()
    assert np.all(np.asarray(exact) < 1e-20) and np.all(np.asarray(off) > 1e-4)


def test_meanflow_and_shortcuts_contain_flow_matching(key):
    """r = t, and the shortest step: the loss is `|u(z, t) - (z_1 - x_0)|^2` to machine precision."""
    forward, batch = process.Flow(), gaussian_data(key, 12)
    velocity = {"parametrisation": "velocity", "condition": lambda process, t: t}
    model = lambda params: TwoTimes(network(forward, **velocity)(params))
    meanflow = consistency.meanflow(model, forward, distinct=0.0, power=0.0)
    shortest = consistency.shortcut(model, forward, sections=8, bootstrap=0.0)

    def flow_matching(x0, noise, t, s):
        z = jax.random.normal(noise, x0.shape, float)
        return jnp.sum((apply(WEIGHTS, (1 - t) * x0 + t * z, t, s) - (z - x0)) ** 2)

    def same_time(key, x0):
        place, _, noise, _ = jax.random.split(key, 4)
        t = jnp.max(jax.nn.sigmoid(-0.4 + jax.random.normal(place, (2,), float)))
        return flow_matching(x0, noise, t, t)

    def eighths(key, x0):
        place, noise, _ = jax.random.split(key, 3)
        t = 1 - jnp.floor(jax.random.uniform(place, (), float, 0, 8)) / 8
        return flow_matching(x0, noise, t, t - 1 / 8) / 4

    @jax.jit
    def values():
        mean = lambda one, key: jnp.mean(jax.vmap(one)(jax.random.split(key, 12), batch))
        found = [loss(key, WEIGHTS, batch, context(ema=(WEIGHTS,))) for loss in (meanflow, shortest)]
        return found, [mean(same_time, key), mean(eighths, jax.random.fold_in(key, 1))]

    found, expected = values()
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.slow
def test_meanflow_weighs_adaptively(key):
    """`e / (e + c)^p` of each example's error e; the published p = 1 leaves less than 1."""
    forward, x0 = process.Flow(), gaussian_data(key, 1)
    model = lambda log: GaussianMap(log, forward)
    loss = lambda p: consistency.meanflow(model, forward, distinct=1.0, power=p)(key, LOG + 0.5, x0, context())
    plain, one, some = jax.jit(lambda: [loss(p) for p in (0.0, 1.0, 0.75)])()
    assert_allclose([one, some], [plain / (plain + 0.01), plain / (plain + 0.01) ** 0.75], rtol=1e-10)


def test_the_clocks_are_those_of_the_charts():
    """TrigFlow's angle and rectified flow's time, of three processes at one noise level 0.7."""
    for forward in PROCESSES.values():
        t = continuous.at_level(forward, jnp.asarray(0.7 / 1.7))
        assert_allclose(continuous.angle(forward, t, 0.5), np.arctan(1.4), rtol=1e-12)
        assert_allclose(continuous.level(forward, t), 0.7 / 1.7, rtol=1e-12)
