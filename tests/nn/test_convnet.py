"""The network for any size: a crop is treated as the whole, and nothing looks further than it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv.nn import convnet

NET = convnet.ConvUNet(channels=8, multipliers=(1, 1.5), blocks=1)
CONDITION = jnp.float32(-0.3)


@pytest.fixture(scope="module")
def trained():
    """Weights with no zeros among them, as after training."""
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((8, 8, 3), jnp.float32), CONDITION)
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    draw = lambda key, leaf: 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype)
    return jax.tree.unflatten(tree, [draw(*pair) for pair in zip(keys, leaves, strict=True)])


def picture(side, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((side, side, 3)), jnp.float32)


def test_the_centre_of_a_picture_is_the_centre_of_its_crop(trained):
    """Beyond the reach, on the grid of patches; in float32, relative to the largest value."""
    apply, reach, unit = jax.jit(NET.apply), NET.reach(), NET.patch * 2
    side, whole = 2 * reach + 3 * unit, picture(2 * reach + 11 * unit)
    crop = whole[4 * unit : 4 * unit + side, 4 * unit : 4 * unit + side]
    inner = lambda y, start: y[start + reach : start + side - reach, start + reach : start + side - reach]
    large, small = inner(apply(trained, whole, CONDITION), 4 * unit), inner(apply(trained, crop, CONDITION), 0)
    assert small.shape[0] == 3 * unit
    np.testing.assert_allclose(large, small, atol=1e-5 * float(jnp.abs(large).max()))


def test_it_sees_no_further_than_it_says_and_nearly_as_far(trained):
    side = 2 * (NET.reach() + 8)
    middle = side // 2
    pixel = lambda x: jnp.sum(NET.apply(trained, x, CONDITION)[middle, middle])
    seen = np.abs(np.asarray(jax.jit(jax.grad(pixel))(picture(side)))).sum(-1)
    rows, columns = np.nonzero(seen)
    furthest = max(np.abs(rows - middle).max(), np.abs(columns - middle).max())
    assert 0.5 * NET.reach() < furthest <= NET.reach()


def test_a_shift_by_its_unit_shifts_the_result(trained):
    """Inside, where no border is seen."""
    apply, reach, unit = jax.jit(NET.apply), NET.reach(), NET.patch * 2
    x = picture(2 * reach + 6 * unit)
    y, moved = apply(trained, x, CONDITION), apply(trained, jnp.roll(x, unit, 0), CONDITION)
    inner = slice(reach + unit, -reach - unit)
    expected = jnp.roll(y, unit, 0)[inner, inner]
    np.testing.assert_allclose(moved[inner, inner], expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_norm_is_of_one_pixel():
    x = picture(4) * 7
    y = convnet.PixelNorm().apply({"params": {"gain": jnp.ones(3, jnp.float32)}}, x)
    np.testing.assert_allclose(y, x / np.sqrt(np.mean(np.square(x), -1, keepdims=True)), rtol=1e-5)


def test_starts_at_zero_and_vmap_is_the_batch(trained):
    x = picture(8)
    assert not np.any(NET.apply(NET.init(jax.random.key(0), x, CONDITION), x, CONDITION))
    batch = jnp.stack([x, picture(8, 1)])
    together = jax.vmap(NET.apply, (None, 0, None))(trained, batch, CONDITION)
    apart = jnp.stack([NET.apply(trained, each, CONDITION) for each in batch])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)
