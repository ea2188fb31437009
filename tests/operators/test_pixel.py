"""Masks, averages, MATLAB's bicubic weights, grey values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.measurement import PoissonNoise, measure

PICTURE = (16, 12, 3)


def _cubic(d):
    d = abs(d)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d <= 2 else 0.0


def _matlab_row(i, n, size, antialias=True):
    """Weights of output i (counted from 1) as imresize's `contributions` finds them, one tap at a time."""
    scale = size / n
    stretch = scale if scale < 1 and antialias else 1.0
    width = 4 / stretch
    u = i / scale + 0.5 * (1 - 1 / scale)
    left = math.floor(u - width / 2)
    row = [0.0] * n
    for j in range(left, left + math.ceil(width) + 2):
        inside = j
        while not 1 <= inside <= n:
            inside = 1 - inside if inside < 1 else 2 * n + 1 - inside
        row[inside - 1] += stretch * _cubic(stretch * (u - j))
    return [w / sum(row) for w in row]


SIZES = [(12, 6), (12, 3), (9, 3), (7, 5), (5, 7), (4, 16), (6, 6), (3, 1), (2, 9), (50, 7)]


@pytest.mark.parametrize("n, size", SIZES)
@pytest.mark.parametrize("antialias", [True, False])
def test_bicubic_weights_are_matlabs(n, size, antialias):
    slow = [_matlab_row(i, n, size, antialias) for i in range(1, size + 1)]
    np.testing.assert_allclose(ops.resize_matrix(n, size, antialias), slow, atol=1e-14)


def test_bicubic_known_row():
    """Doubling without a border: the well-known weights of a = -1/2 at the distances 1/4, 3/4, 5/4, 7/4."""
    row = ops.resize_matrix(8, 16)[8]
    np.testing.assert_allclose(row[2:6] * 128, [-3, 29, 111, -9], atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("size", [(8, 6), (4, 4), (5, 30), (16, 12), (33, 1)])
def test_imresize_keeps_constants(size, dtype):
    y = ops.imresize(jnp.full(PICTURE, 0.7, dtype), size)
    assert y.shape == (*size, 3) and y.dtype == dtype
    np.testing.assert_allclose(y, 0.7, rtol=1e-6)


def test_imresize_is_separable_and_operator_agrees(key):
    x = jax.random.normal(key, PICTURE)
    wanted = np.einsum("ih,hwc,jw->ijc", ops.resize_matrix(16, 4), x, ops.resize_matrix(12, 3))
    np.testing.assert_allclose(ops.imresize(x, (4, 3)), wanted, atol=1e-13)
    np.testing.assert_allclose(ops.bicubic(PICTURE, 4)(x), wanted, atol=1e-13)
    np.testing.assert_allclose(ops.resize(PICTURE, (4, 3))(x), wanted, atol=1e-13)


def test_bicubic_pinv_interpolates(key):
    """Super-resolution's `A^+ y` has exactly the low-resolution picture it was made from."""
    A = ops.bicubic((32, 24, 3), 4)
    y = jax.random.normal(key, (8, 6, 3))
    np.testing.assert_allclose(A(A.pinv(y)), y, atol=1e-12)


def test_bicubic_single_precision_solve(key):
    A = ops.bicubic((64, 64, 3), 4)
    y = jax.random.normal(key, (16, 16, 3), jnp.float32)
    np.testing.assert_allclose(A(A.pinv(y)), y, atol=2e-5)


def test_box_hides_the_box_only():
    mask = np.asarray(ops.box_inpainting(PICTURE, top=3, left=5, size=4).mask)
    assert mask.shape == (16, 12, 1) and mask.sum() == 16 * 12 - 16
    assert not mask[3:7, 5:9].any()


def test_random_box_keeps_the_margin():
    keys = jax.random.split(jax.random.key(1), 64)
    masks = jax.jit(jax.vmap(lambda k: ops.random_box_inpainting(k, (12, 14, 3), size=4, margin=2).mask))(keys)
    hidden = 1 - np.asarray(masks)[..., 0]
    assert (hidden.sum((1, 2)) == 16).all()
    assert not hidden[:, [0, 1, -2, -1]].any() and not hidden[:, :, [0, 1, -2, -1]].any()
    assert len({h.tobytes() for h in hidden}) > 10


@pytest.mark.parametrize("probability, hidden", [(0.0, 0), (0.3, 57), (0.92, 176), (1.0, 192)])
def test_random_mask_hides_the_exact_number(key, probability, hidden):
    mask = ops.random_inpainting(key, PICTURE, probability).mask
    assert mask.shape == (16, 12, 1) and int(jnp.sum(1 - mask)) == hidden
    swept = jax.vmap(lambda p: ops.random_inpainting(key, PICTURE, p).mask)(jnp.asarray([probability, 0.5]))
    np.testing.assert_array_equal(swept[0], mask)


def test_freeform_strokes():
    keys = jax.random.split(jax.random.key(2), 32)
    draw = jax.jit(jax.vmap(lambda k, width: ops.freeform_inpainting(k, (32, 48, 3), width=width).mask, (0, None)))
    masks = np.asarray(draw(keys, 0.1))
    hidden = 1 - masks.mean((1, 2, 3))
    assert masks.shape == (32, 32, 48, 1) and set(np.unique(masks)) == {0.0, 1.0}
    assert 0.05 < hidden.mean() < 0.4 and (hidden < 0.7).all() and (hidden > 0).mean() > 0.9
    assert 1 - np.asarray(draw(keys, 0.3)).mean() > 1.5 * hidden.mean()


def test_mask_accepts_bool_and_keeps_nan_free_gradients(key):
    A = ops.inpainting(PICTURE, np.arange(16 * 12).reshape(16, 12, 1) % 3 == 0)
    y = A(jax.random.normal(key, PICTURE))

    def loss(mask):
        return jnp.sum(A.replace(mask=mask).solve(y, 0.0) ** 2)

    assert np.isfinite(jax.grad(loss)(A.mask)).all()


def test_photon_counts_stay_zero_where_masked(key):
    A = ops.box_inpainting(PICTURE, top=2, left=1, size=3)
    y = measure(key, A, jnp.zeros(PICTURE), noise=PoissonNoise(10.0)).y
    assert not y[2:5, 1:4].any() and y.any()


def test_average_pool_is_the_block_mean(key):
    x = jax.random.normal(key, PICTURE)
    A = ops.average_pool(PICTURE, 4)
    np.testing.assert_allclose(A(x)[1, 2], np.asarray(x)[4:8, 8:12].mean((0, 1)), atol=1e-14)
    np.testing.assert_allclose(A.pinv(A(x))[4:8, 8:12], np.broadcast_to(A(x)[1, 2], (4, 4, 3)), atol=1e-14)


def test_grayscale_defaults_to_the_mean(key):
    x = jax.random.normal(key, PICTURE)
    np.testing.assert_allclose(ops.grayscale(PICTURE)(x)[..., 0], x.mean(-1), atol=1e-14)
    luma = ops.grayscale(PICTURE, (0.299, 0.587, 0.114))(jnp.ones(PICTURE))
    np.testing.assert_allclose(luma, 1.0, atol=1e-14)


BAD = {
    "batched shape": (lambda: ops.box_inpainting((1, 8, 8, 3), 0, 0, 2), "shape is"),
    "empty shape": (lambda: ops.average_pool((0, 8, 3), 2), "shape is"),
    "box outside": (lambda: ops.box_inpainting(PICTURE, 10, 5, 8), "must lie in"),
    "box negative": (lambda: ops.box_inpainting(PICTURE, -1, 5, 8), "top is -1"),
    "box and margin": (lambda: ops.random_box_inpainting(jax.random.key(0), PICTURE, 8, 2), "size, margin"),
    "mask shape": (lambda: ops.inpainting(PICTURE, np.ones((16, 12))), "add the channel axis"),
    "probability": (lambda: ops.random_inpainting(jax.random.key(0), PICTURE, 1.2), "probability_masked is 1.2"),
    "strokes": (lambda: ops.freeform_inpainting(jax.random.key(0), PICTURE, strokes=0), "strokes"),
    "pool factor": (lambda: ops.average_pool(PICTURE, 5), "factor is 5"),
    "bicubic factor": (lambda: ops.bicubic(PICTURE, 8), "factor is 8"),
    "factor zero": (lambda: ops.bicubic(PICTURE, 0), "factor is 0"),
    "resize": (lambda: ops.resize(PICTURE, (0, 3)), "size is"),
    "imresize of integers": (lambda: ops.imresize(jnp.ones(PICTURE, jnp.uint8), (4, 4)), "convert it"),
    "imresize of a batch": (lambda: ops.imresize(jnp.ones((2, 8, 8, 3)), (4, 4)), "floating-point"),
    "weights": (lambda: ops.grayscale(PICTURE, (0.5, 0.5)), "one for each channel"),
    "dense vector": (lambda: ops.dense(jnp.ones(3)), "reshape it"),
    "dense shape": (lambda: ops.dense(jnp.ones((2, 6)), (2, 2)), "takes 6"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
