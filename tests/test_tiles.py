"""Tiles: weights that sum to one, tiled equal to whole, one noise for all tiles, a seam that cannot be seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import process, samplers, tiles
from diffinv.loop import sample
from diffinv.prior import Prior

KERNEL = np.random.default_rng(1).standard_normal((5, 5, 3, 3))


def convolve(x, padding="SAME"):
    """A network that sees two pixels around."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    kernel = jnp.asarray(KERNEL, x.dtype)
    return jnp.tanh(jax.lax.conv_general_dilated(x[None], kernel, (1, 1), padding, dimension_numbers=dimensions)[0])


def picture(height, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((height, width, 3)))


@pytest.mark.parametrize(("length", "size", "overlap"), [(10, 10, 4), (11, 10, 4), (37, 8, 3), (64, 16, 0), (23, 9, 8)])
def test_tiles_cover_the_axis_and_scale_with_it(length, size, overlap):
    first = tiles.starts(length, size, overlap)
    assert first[0] == 0 and first[-1] == length - size and len(set(first)) == len(first)
    assert all(0 < b - a <= size - overlap for a, b in zip(first, first[1:]))
    assert tiles.starts(4 * length, 4 * size, 4 * overlap) == tuple(4 * i for i in first)


@pytest.mark.parametrize(("length", "size", "overlap", "margin"), [(37, 8, 3, 1), (23, 9, 8, 3), (64, 16, 0, 0)])
def test_weights_sum_to_one_and_leave_the_margin_out(length, size, overlap, margin):
    table, first = tiles.blend_weights(length, size, overlap, margin), tiles.starts(length, size, overlap)
    total = np.zeros(length)
    np.add.at(total, np.asarray(first)[:, None] + np.arange(size), table)
    np.testing.assert_allclose(total, 1, atol=1e-14)
    assert (table >= 0).all() and (table[0, : size - overlap] > 0).all()
    assert (table[1:, :margin] == 0).all() and (table[:-1, size - margin :] == 0).all()


@pytest.mark.parametrize("shape", [(20, 33, 3), (8, 17, 1), (5, 8, 3)])
def test_join_undoes_cut(shape):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape))
    back = jax.jit(lambda x: tiles.join(tiles.cut(x, 8, 3), x.shape, 3, 1))(x)
    np.testing.assert_allclose(back, x, atol=1e-14)


def test_tiled_is_whole_where_the_margin_covers_what_the_network_sees():
    x = picture(29, 40)
    whole, right, careless, at_once = jax.jit(
        lambda x: (
            convolve(x),
            tiles.tiled(convolve, 16, 8, 2)(x),
            tiles.tiled(convolve, 16, 8, 1)(x),
            tiles.tiled(convolve, 16, 8, 2, over=lambda function, stacks: jax.vmap(function)(*stacks))(x),
        )
    )(x)
    np.testing.assert_allclose(right, whole, atol=1e-12)
    np.testing.assert_allclose(at_once, whole, atol=1e-12)
    assert np.abs(careless - whole).max() > 1e-3  # a margin that is too small shows


def test_two_resolutions_belong_together():
    """`y = block means of x, plus low`, on tiles whose pictures have 4 times and once the grid."""
    means = lambda x: x.reshape(x.shape[0] // 4, 4, x.shape[1] // 4, 4, 3).mean((1, 3))
    function = lambda x, low: jnp.repeat(jnp.repeat(means(x) + low, 2, 0), 2, 1)
    x, low = picture(4 * 13, 4 * 9), picture(13, 9, 1)
    parts = tiles.tiled(function, 6, 2, scales=(4, 1), scale=2)
    whole, expected = jax.jit(lambda x, low: (parts(x, low), function(x, low)))(x, low)
    np.testing.assert_allclose(whole, expected, atol=1e-12)


def test_a_tiled_denoiser_samples_what_the_whole_one_does():
    """Several noisy steps: every tile has its part of the one noise, for it is drawn outside of them."""
    denoiser = tiles.tiled(lambda x: 0.5 * convolve(x), 16, 8, 2)
    prior = lambda denoise: Prior(process.Flow(), lambda x, t: denoise(x), (24, 40, 3))
    times = jnp.linspace(1.0, 0.0, 5)
    draw = lambda p: sample(jax.random.key(3), samplers.ancestral(p), times).x
    whole, parts = jax.jit(lambda: (draw(prior(lambda x: 0.5 * convolve(x))), draw(prior(denoiser))))()
    assert np.std(whole) > 0.1
    np.testing.assert_allclose(parts, whole, atol=1e-10)


def test_a_seam_is_not_seen():
    """Tiles that disagree by a constant: the joint never jumps by more than a blend over the overlap may."""
    stack = jnp.asarray([0.0, 1.0])[:, None, None, None] * jnp.ones((2, 32, 32, 1))
    row = np.asarray(jax.jit(lambda stack: tiles.join(stack, (32, 48, 1), 16))(stack))[7, :, 0]
    assert row[0] == 0 and row[-1] == 1 and (np.diff(row) >= -1e-15).all()
    assert np.diff(row).max() <= np.pi / 2 / 16


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: tiles.cut(x, 8, 8), "overlap is 8"),
        (lambda x: tiles.starts(7, 8, 2), "pad the picture"),
        (lambda x: tiles.join(tiles.cut(x, 8, 2), x.shape, 2, 1), "margin is 1"),
        (lambda x: tiles.join(tiles.cut(x, 8, 2)[1:], x.shape, 2), "needs 9"),
        (lambda x: tiles.tiled(lambda a, b: a, 8, 2, scales=(2, 1))(x, x), "proportion"),
    ],
)
def test_what_cannot_be_is_said(call, word):
    with pytest.raises(ValueError, match=word):
        call(picture(20, 20))
