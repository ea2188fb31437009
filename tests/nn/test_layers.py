"""Layers against plain references: numpy, `flax.linen`, `jax.lax`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from diffinv.nn import layers

GEOMETRIES = [
    dict(window_strides=(1, 1), padding=((1, 1), (1, 1))),
    dict(window_strides=(2, 1), padding=((1, 1), (0, 2))),
    dict(window_strides=(2, 3), padding="VALID"),
    dict(window_strides=(2, 2), padding="SAME", rhs_dilation=(2, 1)),
    dict(window_strides=(1, 1), padding=((2, 1), (1, 0)), lhs_dilation=(2, 2)),
    dict(window_strides=(2, 1), padding=((3, 2), (1, 1)), lhs_dilation=(3, 1), rhs_dilation=(1, 2)),
]


def operands(key, kernel=(3, 2)):
    one, two = jax.random.split(key)
    return jax.random.normal(one, (2, 8, 9, 3), jnp.float64), jax.random.normal(two, (*kernel, 3, 4), jnp.float64)


def assert_close(a, b, rtol=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


def both(geometry):
    options = dict(dimension_numbers=layers.NHWC, **geometry)
    return [lambda x, k, f=f: f(x, k, **options) for f in (layers.conv, layers.plain_conv)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_conv_has_plain_values_and_gradients(key, geometry):
    x, kernel = operands(key)
    ours, plain = both(geometry)
    assert_close(ours(x, kernel), plain(x, kernel))
    gradient = lambda f: jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k))), (0, 1)))(x, kernel)
    assert_close(gradient(ours), gradient(plain))


def test_conv_under_vmap_in_a_scan(key):
    x, kernel = operands(key, (3, 3))
    kernel = kernel[..., :3]

    def gradient(f):
        def loss(x, k):
            carry = lax.scan(lambda h, _: (jnp.tanh(f(h[None], k)[0]), None), x, None, length=3)[0]
            return jnp.sum(carry**2)

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))(x, kernel)

    assert_close(*map(gradient, both(GEOMETRIES[0])))


def convolutions(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["dimension_numbers"]
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from convolutions(getattr(inner, "jaxpr", inner))


def test_every_convolution_of_the_gradient_is_canonical(key):
    x, kernel = operands(key)
    canonical = lax.conv_dimension_numbers(x.shape, kernel.shape, layers.NHWC)
    used = [
        set(convolutions(jax.make_jaxpr(jax.grad(lambda x, k, f=f: jnp.sum(f(x, k) ** 2), (0, 1)))(x, kernel).jaxpr))
        for f in both(GEOMETRIES[1])
    ]
    assert used[0] == {canonical}
    assert used[1] != {canonical}


def test_only_plain_conv_has_forward_mode(key):
    ours, plain = both(GEOMETRIES[0])
    operand = operands(key)
    jax.jvp(plain, operand, operand)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(ours, operand, operand)


def test_grouped_and_channels_first_fall_back(key):
    x, kernel = operands(key)
    depthwise = jnp.ones((3, 3, 1, 3), x.dtype)
    options = dict(window_strides=(1, 1), padding="SAME")
    assert_close(
        layers.conv(x, depthwise, dimension_numbers=layers.NHWC, feature_group_count=3, **options),
        lax.conv_general_dilated(x, depthwise, dimension_numbers=layers.NHWC, feature_group_count=3, **options),
    )
    first = layers.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), **options)
    assert_close(first.transpose(0, 2, 3, 1), layers.conv(x, kernel, dimension_numbers=layers.NHWC, **options))


@pytest.mark.parametrize(
    "channels, groups",
    [pytest.param(8, 2, marks=pytest.mark.slow), (12, 3), pytest.param(128, 32, marks=pytest.mark.slow)],
)
def test_group_norm_is_flax_group_norm(key, channels, groups):
    x = 3 + 2 * jax.random.normal(key, (4, 6, channels), jnp.float32)
    affine = {"scale": jnp.linspace(0.5, 2, channels), "bias": jnp.linspace(-1, 1, channels)}
    affine = {"params": jax.tree.map(lambda a: a.astype(jnp.float32), affine)}
    reference = nn.GroupNorm(groups, epsilon=1e-5, reduction_axes=(-3, -2, -1)).apply(affine, x)
    assert_close(layers.GroupNorm().apply(affine, x), reference, 2e-5)


def test_group_norm_film_scales_first(key):
    x = jax.random.normal(key, (4, 4, 8), jnp.float32)
    scale, shift = jnp.full(8, 0.5, jnp.float32), jnp.full(8, 3.0, jnp.float32)
    norm = layers.GroupNorm()
    params = norm.init(key, x)
    assert_close(norm.apply(params, x, (scale, shift)), norm.apply(params, x) * 1.5 + 3, 1e-5)


def test_group_norm_keeps_the_dtype_and_survives_a_constant(key):
    norm, x = layers.GroupNorm(), jnp.full((4, 4, 8), 7.0, jnp.bfloat16)
    out = norm.apply(norm.init(key, x), x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.astype(jnp.float32), 0)


@pytest.mark.parametrize("level", [0.0, 3e3, -1e5])
def test_group_moments_keep_a_deviation_that_is_small_beside_the_mean(level):
    """Of float32 numbers, against float64; about 0, no digit of the variance would be right at 3e3."""
    x = np.random.default_rng(0).standard_normal((16, 12, 8)).astype(np.float32)
    x = (level + x * np.repeat([1.0, 5.0], 4)).astype(np.float32)
    apart, mean, variance = layers.group_moments(jnp.asarray(x), 2)
    groups = x.astype(np.float64).reshape(-1, 2, 4)
    np.testing.assert_allclose(variance, np.repeat(groups.var((0, 2)), 4), rtol=2e-6)
    centred = x - np.repeat(groups.mean((0, 2)), 4)
    np.testing.assert_allclose(np.asarray(apart) - np.asarray(mean), centred, atol=1e-5)
    normed = layers.GroupNorm(smallest=4, eps=0.0)
    found = normed.apply(normed.init(jax.random.key(0), jnp.asarray(x)), jnp.asarray(x))
    exact = (groups - groups.mean((0, 2))[:, None]) / groups.std((0, 2))[:, None]
    np.testing.assert_allclose(found, exact.reshape(x.shape), atol=2e-5)


def test_an_impulse_and_every_derivative_pass_through_group_moments(key):
    """The reference is no part of the function: against moments of two passes, to the second derivative."""
    x, v = (jax.random.normal(k, (8, 8, 4)) for k in jax.random.split(key))
    plain = lambda x: x.reshape(-1, 2, 2).var((0, 2))
    ours = lambda x: layers.group_moments(x, 2)[2][::2]
    for at in (x, jnp.zeros_like(x).at[4, 4, 0].set(1.0)):
        twice = lambda f, at=at: jax.jvp(lambda x: jax.vjp(f, x)[1](jnp.arange(1.0, 3.0))[0], (at,), (v,))
        assert_close(ours(at), plain(at), 1e-10)
        for found, wanted in zip(twice(ours), twice(plain)):
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_group_count():
    assert [layers.group_count(c) for c in (1, 3, 8, 96, 128, 256)] == [1, 1, 2, 24, 32, 32]
    with pytest.raises(ValueError, match="channels is 130"):
        layers.group_count(130)


def test_time_embedding_is_cosines_then_sines():
    t, size = 37.0, 10
    angles = t * np.exp(-np.log(1e4) * np.arange(5) / 5)
    assert_close(layers.time_embedding(jnp.asarray(t), size), np.concatenate([np.cos(angles), np.sin(angles)]), 1e-5)
    assert layers.time_embedding(jnp.asarray(t), 7)[-1] == 0


def qkv_attention_legacy(qkv, heads):
    """OpenAI's `QKVAttentionLegacy` in numpy; qkv is (heads * 3 * d, T), one example."""
    d = qkv.shape[0] // (3 * heads)
    out = []
    for head in qkv.reshape(heads, 3 * d, -1):
        q, k, v = head[:d], head[d : 2 * d], head[2 * d :]
        scores = (q.T @ k) / np.sqrt(d)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out.append((weights / weights.sum(1, keepdims=True) @ v.T).T)
    return np.concatenate(out)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_orders(key, heads):
    qkv = jax.random.normal(key, (6, 3 * 8), jnp.float64)
    expected = qkv_attention_legacy(np.asarray(qkv).T, heads).T
    assert_close(layers.attend(qkv, heads), expected, 1e-6)
    reordered = qkv.reshape(6, heads, 3, -1).swapaxes(1, 2).reshape(6, -1)
    assert_close(layers.attend(reordered, heads, legacy=False), expected, 1e-6)
    if heads > 1:
        assert np.abs(layers.attend(qkv, heads, legacy=False) - expected).max() > 1e-2


def test_attention_wants_a_divisor():
    with pytest.raises(ValueError, match="heads is 3"):
        layers.attend(jnp.zeros((4, 24)), 3)


def test_resampling(key):
    x = jax.random.normal(key, (4, 6, 3), jnp.float64)
    assert_close(layers.up(x), np.repeat(np.repeat(x, 2, 0), 2, 1))
    assert_close(layers.down(layers.up(x)), x)
    expected = np.mean([x[i::2, j::2] for i, j in itertools.product((0, 1), (0, 1))], axis=0)
    assert_close(layers.down(x), expected)
    with pytest.raises(ValueError, match="even"):
        layers.down(x[:3])


def test_space_to_depth_and_back(key):
    x = jax.random.normal(key, (6, 4, 3), jnp.float64)
    folded = layers.space_to_depth(x, 2)
    np.testing.assert_array_equal(folded[1, 0], np.concatenate([x[2, 0], x[2, 1], x[3, 0], x[3, 1]]))
    np.testing.assert_array_equal(layers.depth_to_space(folded, 2), x)
    with pytest.raises(ValueError, match="patch = 4"):
        layers.space_to_depth(x, 4)
