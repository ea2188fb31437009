"""A denoiser's mean over turns and mirrorings: equivariant, no worse than itself, and itself where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given
from hypothesis import strategies as st

import diffinv as di
from diffinv import denoisers, times
from diffinv.denoisers import FLIPS, MIRROR, SQUARE, Motion, symmetric
from diffinv.prior import Prediction

GROUPS = {"mirror": MIRROR, "flips": FLIPS, "square": SQUARE}
EDM = di.process.EDM()


@struct.dataclass
class Uneven:
    """What no motion leaves as it is: places and neighbours count differently in every direction; of any size."""

    shift: float = 0.3

    def __call__(self, x, t):
        rows, columns = jnp.indices(x.shape[:2], x.dtype)
        field = jnp.sin(rows + 2 * columns)[..., None]
        return jnp.tanh(x - self.shift * jnp.roll(x, 1, 0) ** 2 + 0.5 * jnp.roll(x, 1, 1)) + field / (1 + t)

    def given(self, shift):
        return Uneven(shift)


@struct.dataclass
class Twofold(Uneven):
    """With a share of the variance, as ADM's networks have it."""

    def predict(self, x, t):
        return Prediction(self(x, t), jax.nn.sigmoid(self(2 * x, t)))


def picture(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def prior(denoise, *shape):
    return di.Prior(EDM, denoise, shape)


def isotropic(side, seed=0):
    """A covariance in the DCT of a square that no motion changes, and a mean alike."""
    rows, columns = np.indices((side, side))
    spectrum = 1 / (1.0 + rows**2 + columns**2)[..., None]
    ramp = jnp.asarray(np.random.default_rng(seed).standard_normal((side, side, 1)))
    return di.gaussian_field(EDM, jnp.mean(jnp.stack([m(ramp) for m in SQUARE]), 0), jnp.asarray(spectrum))


@given(st.sampled_from(SQUARE), st.integers(1, 4), st.integers(1, 4))
def test_a_motion_is_undone(motion, rows, columns):
    x = np.random.default_rng(0).standard_normal((rows, columns, 2))
    moved = motion(x)
    assert moved.shape == ((columns, rows, 2) if motion.turns % 2 else x.shape)
    np.testing.assert_array_equal(motion.back(moved), x)


def test_the_eight_motions_are_eight():
    x = picture(3, 3, 1)
    assert len({np.asarray(motion(x)).tobytes() for motion in SQUARE}) == 8
    np.testing.assert_array_equal(Motion(1, False)(x)[..., 0], np.rot90(x[..., 0]))


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("shape", [(5, 5, 2), (4, 6, 1)])
def test_the_mean_commutes_with_every_motion_of_the_group(name, shape):
    x, t, even = picture(*shape), jnp.float64(0.3), symmetric(prior(Uneven(), *shape), GROUPS[name])
    for motion in GROUPS[name]:
        np.testing.assert_allclose(even.denoise(motion(x), t), motion(even.denoise(x, t)), rtol=0, atol=1e-13)
    plain = prior(Uneven(), *shape)
    assert jnp.max(jnp.abs(plain.denoise(MIRROR[1](x), t) - MIRROR[1](plain.denoise(x, t)))) > 0.1


@pytest.mark.parametrize("shape", [(5, 5, 2), (4, 6, 1)])
def test_it_is_the_mean_written_out(shape):
    x, t, plain = picture(*shape), jnp.float64(0.3), prior(Uneven(), *shape)
    written = sum(motion.back(plain.denoise(motion(x), t)) for motion in SQUARE) / 8
    for at_once in (1, 3, 8):
        np.testing.assert_allclose(symmetric(plain, SQUARE, at_once).denoise(x, t), written, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.9])
def test_the_exact_denoiser_of_a_symmetric_law_stays(name, t):
    law, x = isotropic(4), picture(4, 4, 1)
    even, t = symmetric(law, GROUPS[name]), jnp.float64(t)
    np.testing.assert_allclose(even.denoise(x, t), law.denoise(x, t), rtol=0, atol=1e-12)


def test_its_error_is_no_greater_on_symmetric_pictures_and_less_where_the_error_turns():
    """An error that is one fixed field keeps its mean over the group alone; Jensen's inequality for one that is not."""
    law, t = isotropic(4), jnp.float64(0.4)
    fixed = picture(4, 4, 1, seed=5)
    wrong = {"fixed": lambda x, t: law.denoise(x, t) + fixed, "uneven": Uneven()}
    keys = jax.random.split(jax.random.key(0), 256)
    drawn = jax.vmap(lambda key: EDM.sigma(t) * jax.random.normal(key, (4, 4, 1), jnp.float64))(keys)
    for name, denoise in wrong.items():
        error = lambda one: jax.vmap(lambda x: jnp.sum((one(x, t) - law.denoise(x, t)) ** 2))(drawn).mean()
        ours, own = error(symmetric(prior(denoise, 4, 4, 1)).denoise), error(denoise)
        assert ours < 0.9 * own, name
        if name == "fixed":
            left = jnp.mean(jnp.stack([motion(fixed) for motion in SQUARE]), 0)
            np.testing.assert_allclose(ours, jnp.sum(left**2), rtol=1e-10)


def test_what_it_costs_tells_and_takes():
    even = symmetric(prior(Twofold(), 4, 4, 1), FLIPS)
    assert even.cost == di.Cost(nfe=4) and even.process == EDM
    x, t = picture(4, 4, 1), jnp.float64(0.2)
    said = even.predict(x, t)
    np.testing.assert_array_equal(said.x0, even.denoise(x, t))
    written = sum(m.back(Twofold().predict(m(x), t).v) for m in FLIPS) / 4
    np.testing.assert_allclose(said.v, written, rtol=1e-13)
    assert symmetric(prior(Uneven(), 4, 4, 1), FLIPS).predict(x, t).v is None
    other = even.given(shift=jnp.float64(0.9))
    assert jnp.max(jnp.abs(other.denoise(x, t) - even.denoise(x, t))) > 1e-3


@pytest.mark.parametrize("method", [di.posterior.dps, di.posterior.ddrm])
def test_a_guided_solver_and_its_gradients_go_through_it(method):
    """Under the mean of an exact denoiser solvers do what they do under the denoiser."""
    law = isotropic(4)
    operator = di.operators.inpainting((4, 4, 1), jnp.asarray(np.random.default_rng(1).random((4, 4, 1)) > 0.4))
    measurement = di.measure(jax.random.key(3), operator, picture(4, 4, 1), jnp.float64(0.1))
    grid = times.grid(6).astype(jnp.float64)
    solve = lambda prior: di.as_solver(lambda m: method(prior, m), grid)(jax.random.key(0), measurement)
    even, own = solve(symmetric(law)), solve(law)
    np.testing.assert_allclose(even.x, own.x, rtol=0, atol=1e-9)
    assert even.info.cost.nfe.sum() == 8 * own.info.cost.nfe.sum()


@pytest.mark.parametrize("motions", [(), (Motion(1, False),), (*MIRROR, Motion(2, False)), (*MIRROR, MIRROR[0])])
def test_motions_that_are_no_group_are_refused(motions):
    with pytest.raises(ValueError, match="motions is .*; give a group"):
        symmetric(prior(Uneven(), 4, 4, 1), motions)
    with pytest.raises(ValueError, match="at_once is 0; give a whole number"):
        symmetric(prior(Uneven(), 4, 4, 1), MIRROR, 0)
    assert symmetric(prior(Uneven(), 4, 4, 1), SQUARE[:4]).cost.nfe == 4, "turns alone are a group"


def test_two_of_equal_motions_are_one_program():
    made = jax.jit(lambda prior, x: prior.denoise(x, 0.2))
    for _ in range(2):
        made(symmetric(prior(Uneven(), 4, 4, 1), FLIPS), picture(4, 4, 1))
    assert made._cache_size() == 1
    assert "Symmetric" in repr(symmetric(prior(Uneven(), 4, 4, 1))) and denoisers.symmetric is symmetric
