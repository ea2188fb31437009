"""CTMSR's network: the published count, windowed attention against its definition, a tiny instance's every input."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST

from diffinv.nn import ctmsr_unet, srnet, swin, unet

TINY = {
    "resolution": 8,
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (8, 4),
    "heads": 2,
    "window": 4,
}


def test_the_published_network_has_so_many_weights():
    low = jnp.zeros((64, 64, 3))
    net = ctmsr_unet.CTMSRUNet(dropout=0.13)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((256, 256, 3)), 0.0, low)
    assert round(unet.parameter_count(shapes) / 1e6, 2) == 171.52
    assert shapes["params"]["enc_64x64_conv"]["kernel"].shape == (3, 3, 51, 192)
    assert shapes["params"]["dec_8x8_in0_swin"]["attention"]["bias"].shape == (225, 6)


def test_windows_are_taken_apart_and_put_together():
    x = jnp.arange(4 * 6 * 2).reshape(4, 6, 2)
    parts = swin.windows(x, 2)
    np.testing.assert_array_equal(parts[1].reshape(2, 2, 2), x[:2, 2:4])
    np.testing.assert_array_equal(swin.merged(parts, 4, 6), x)
    with pytest.raises(ValueError, match="divisible by the window, 4"):
        swin.windows(x, 4)


def test_attention_sees_its_window_and_positions_alone():
    """One head and zero queries: the weights are the softmax of the table at the relative positions."""
    layer = swin.WindowAttention(1, 2)
    x = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
    table = np.random.default_rng(1).standard_normal((9, 1)).astype(np.float32)
    eye = np.eye(2, dtype=np.float32)
    params = {
        "bias": table,
        "qkv": {"kernel": np.concatenate([0 * eye, eye, eye], 1), "bias": np.zeros(6, np.float32)},
        "proj": {"kernel": eye, "bias": np.zeros(2, np.float32)},
    }
    found = layer.apply({"params": params}, x)
    places = [(i, j) for i in range(2) for j in range(2)]
    logits = np.array([[table[(a - c + 1) * 3 + b - d + 1, 0] for c, d in places] for a, b in places])
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, np.einsum("ts,nsc->ntc", weights, x), atol=1e-6)


@pytest.mark.slow
def test_a_tiny_one_uses_every_input_and_starts_from_the_interpolation():
    low = jax.random.normal(jax.random.key(0), (8, 8, 3), jnp.float32)
    x, condition = jax.random.normal(jax.random.key(1), (32, 32, 3), jnp.float32), jnp.float32(-0.1)
    net = ctmsr_unet.CTMSRUNet(**TINY, residual=True, dropout=0.5)
    params = nets.drawn(SimpleNamespace(init=lambda key, x, c: net.init(key, x, c, x[::4, ::4])), 32)
    apply = jax.jit(net.apply, compiler_options=FAST)
    base = apply(params, x, condition, low)
    for other in [(x + 1, condition, low), (x, condition + 0.5, low), (x, condition, low + 1)]:
        assert np.abs(apply(params, *other) - base).max() > 1e-3
    still = {**params["params"], "conv_last": jax.tree.map(jnp.zeros_like, params["params"]["conv_last"])}
    found = apply({"params": still}, x, condition, low)
    np.testing.assert_allclose(found, srnet.upsample_cubic(low, 4, srnet.TORCH), atol=2e-6)
    with pytest.raises(ValueError, match="x must be 4 times as high"):
        net.apply(params, x[:8], condition, low)
