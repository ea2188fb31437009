"""The deep image prior: what its network is, and that it comes by a picture before it comes by noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import operators, posterior, times
from diffinv.nn.hourglass import Hourglass, PictureNorm

KEY = jax.random.key(0)


def prior(shape):
    return di.Prior(di.process.VP(), None, shape)


def solved(measurement, steps, **options):
    shape = measurement.operator.shape
    method = lambda m: posterior.deep_image_prior(prior(shape), m, **options)
    return jax.jit(di.as_solver(method, times.grid(steps)))(KEY, measurement)


def test_the_norm_takes_out_what_a_channel_is_in_the_mean():
    x = 3 + 2 * jax.random.normal(KEY, (8, 6, 4)) * jnp.array([[[1.0, 2.0, 3.0, 4.0]]])
    norm = PictureNorm()
    out = norm.apply(norm.init(KEY, x), x)
    np.testing.assert_allclose(out.mean((0, 1)), np.zeros(4), atol=1e-12)
    np.testing.assert_allclose(out.std((0, 1)), np.ones(4), rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_network_keeps_size_and_precision(dtype):
    z = jnp.ones((16, 8, 5), dtype)
    net = Hourglass(6, 2, out_channels=3)
    params = net.init(KEY, z)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    out = net.apply(params, z)
    assert out.shape == (16, 8, 3) and out.dtype == dtype


def test_it_has_the_weights_that_it_says():
    """Convolutions of 9 taps without bias, a norm of two numbers a channel after each, and the last layer's."""
    c, levels, skip, inside, out = 6, 2, 4, 5, 3
    params = Hourglass(c, levels, skip, out).init(KEY, jnp.ones((16, 8, inside)))
    downs = 9 * (inside + c) * c + levels * 9 * c * c  # the first of each level sees its input, the second c
    ups = levels * 9 * (c + skip) * c
    skips, norms = (inside + c) * skip, levels * 2 * (3 * c + skip)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total == downs + ups + skips + norms + (c + 1) * out


@pytest.mark.parametrize("shape", [(5, 7, 3), (9,), (6, 5)])
def test_every_shape_is_filled(shape):
    """Sides that are no multiples, and vectors."""
    m = di.measure(KEY, operators.identity(shape), jnp.ones(shape), 0.0)
    x = solved(m, 60, channels=8, levels=1, lr=0.03).x
    assert x.shape == shape
    assert jnp.mean((x - 1) ** 2) < 0.05


def test_a_shape_that_is_no_picture_is_refused():
    m = di.measure(KEY, operators.identity((2, 2, 2, 1)), jnp.zeros((2, 2, 2, 1)), 0.1)
    with pytest.raises(ValueError, match=r"the prior's shape is \(2, 2, 2, 1\); deep_image_prior takes pictures"):
        posterior.deep_image_prior(prior((2, 2, 2, 1)), m)
    plain = di.measure(KEY, operators.identity((4, 4, 1)), jnp.zeros((4, 4, 1)), 0.1)
    for name in ("channels", "levels"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be a whole number"):
            posterior.deep_image_prior(prior((4, 4, 1)), plain, **{name: 0})


def disc(side):
    i = jnp.linspace(-1, 1, side)
    return jnp.where(i[:, None] ** 2 + i[None] ** 2 < 0.5, 0.7, -0.6)[..., None]


def test_it_comes_by_a_picture_before_it_comes_by_the_noise():
    """The paper's figure 2: after the same steps the misfit of a disc is far below that of its pixels shuffled."""
    x = disc(16)
    shuffled = jax.random.permutation(KEY, x.ravel()).reshape(x.shape)
    left = []
    for truth in (x, shuffled):
        found = solved(di.measure(KEY, operators.identity(x.shape), truth, 0.0), 150, channels=16, levels=2)
        left.append(float(jnp.mean((found.x - truth) ** 2) / jnp.var(truth)))
    assert left[0] < 0.03 and left[1] > 3 * left[0], left


def test_it_fills_what_is_hidden():
    """Half of the pixels of a disc: better than the best constant by far."""
    x = disc(16)
    A = operators.inpainting(x.shape, (jax.random.uniform(KEY, x.shape) > 0.5).astype(float))
    found = solved(di.measure(KEY, A, x, 0.0), 200, channels=16, levels=2)
    hidden = np.asarray(A.mask) == 0
    assert np.mean((np.asarray(found.x) - np.asarray(x))[hidden] ** 2) < 0.2 * np.var(np.asarray(x))
    assert found.info.residual[-1] < 0.2 * found.info.residual[0]
    assert int(found.info.cost.nfe.sum()) == 0 and int(found.info.cost.calls.sum()) == 400


def test_it_takes_an_operator_that_is_not_linear():
    A, truth = operators.function(lambda x: x + x**3, (8, 8, 1)), disc(8)
    found = solved(di.measure(KEY, A, truth, 0.0), 300, channels=16, levels=1, jitter=0.0)
    np.testing.assert_allclose(found.x, truth, atol=0.15)
