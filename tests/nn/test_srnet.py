"""The small super-resolution network: cubic at first, and its upsampling against MATLAB's weights and torch."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST

from diffinv.nn import srnet, unet
from diffinv.operators import imresize

LOW = jax.random.normal(jax.random.key(0), (5, 6, 3), jnp.float32)


@pytest.mark.parametrize("scale", [3, 4])
def test_upsampling_is_matlabs(scale):
    low = LOW.astype(jnp.float64)
    found = srnet.upsample_cubic(low, scale)
    np.testing.assert_allclose(found, imresize(low, (5 * scale, 6 * scale)), atol=1e-12)


@pytest.mark.torch
def test_upsampling_is_torchs():
    torch = pytest.importorskip("torch")
    low = torch.from_numpy(np.array(LOW.transpose(2, 0, 1)[None]))
    wanted = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(srnet.upsample_cubic(LOW, 4, srnet.TORCH), wanted[0].permute(1, 2, 0).numpy(), atol=3e-6)


def test_phases_keep_constants_and_lines():
    for a in (srnet.MATLAB, srnet.TORCH):
        np.testing.assert_allclose(srnet.phases(4, a).sum(1), 1, atol=1e-14)
    np.testing.assert_allclose(
        srnet.phases(4, srnet.MATLAB) @ np.arange(-2, 3), [-0.375, -0.125, 0.125, 0.375], atol=1e-14
    )


@pytest.mark.slow
def test_an_untrained_network_is_the_interpolation_bit_by_bit():
    x = jax.random.normal(jax.random.key(1), (20, 24, 3), jnp.float32)
    net = srnet.SRNet(8, 1)
    init = jax.jit(net.init, compiler_options=FAST)
    params = init(jax.random.key(2), x, jnp.float32(0.1), LOW)
    np.testing.assert_array_equal(net.apply(params, x, jnp.float32(0.1), LOW), srnet.upsample_cubic(LOW, 4))
    assert not params["params"]["head"]["kernel"].any() and not params["params"]["noisy"]["kernel"].any()


def test_the_whole_input_reaches_the_output_and_sizes_are_checked():
    x = jax.random.normal(jax.random.key(1), (20, 24, 3), jnp.float32)
    net = srnet.SRNet(8, 1)
    params = nets.drawn(SimpleNamespace(init=lambda key, x, c: net.init(key, x, c, x[::4, ::4])))
    apply = jax.jit(net.apply, compiler_options=FAST)
    base = apply(params, x, jnp.float32(0.1), LOW)
    for other in [(x + 1, jnp.float32(0.1), LOW), (x, jnp.float32(0.2), LOW), (x, jnp.float32(0.1), LOW + 1)]:
        assert np.abs(apply(params, *other) - base).max() > 1e-3
    with pytest.raises(ValueError, match="x must be 4 times as high"):
        net.apply(params, x[:8], jnp.float32(0.1), LOW)


def test_the_small_preset_has_so_many_weights():
    x = jnp.zeros((16, 16, 3))
    shapes = jax.eval_shape(srnet.SRNet().init, jax.random.key(0), x, 0.0, x[::4, ::4])
    assert unet.parameter_count(shapes) == 211_984
