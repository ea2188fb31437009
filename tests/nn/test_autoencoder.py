"""The autoencoder: its published size, shapes, the clipped variance, one example as many; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

from diffinv.nn import autoencoder, leaves, unet

TINY = {"channels": 8, "multipliers": (1, 1.5), "blocks": 1, "groups": 4, "code_channels": 2}
NET = autoencoder.AutoencoderKL(**TINY)
PICTURE = jax.ShapeDtypeStruct((8, 12, 3), jnp.float32)


def traced(net, picture=PICTURE):
    """Shapes of the parameters by the network's own `init`, which computes nothing."""
    return jax.eval_shape(net.clone(plain_conv=True).init, jax.random.key(0), picture)["params"]


@pytest.fixture(scope="module")
def drawn():
    """Weights with no zeros among them, as after training."""
    generator = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.3 * generator.standard_normal(leaf.shape), jnp.float32)
    return {"params": jax.tree.map(draw, traced(NET))}


def test_stable_diffusions_has_its_published_size():
    """83,653,863, as diffusers counts it of the config of sd-vae-ft-mse."""
    large = autoencoder.AutoencoderKL()
    assert unet.parameter_count(traced(large, jax.ShapeDtypeStruct((8, 8, 3), jnp.float32))) == 83_653_863
    small = autoencoder.AutoencoderKL(channels=16, multipliers=(1, 2, 2), blocks=1, groups=8)
    assert unet.parameter_count(traced(small)) == 242_327


@pytest.mark.parametrize(
    "change", [{}, {"attention": False}, {"quant": False}, {"post_quant": False}, {"blocks": 2, "patch": 2}]
)
def test_counted_parameters_are_the_traced_ones(change):
    net = NET.clone(**change)
    flat = jax.tree_util.tree_flatten_with_path(traced(net))[0]
    found = {"params/" + "/".join(key.key for key in path): leaf.shape for path, leaf in flat}
    assert leaves.leaves(net, 3) == found


def test_codes_are_smaller_by_the_factor_and_decode_to_pictures(drawn):
    assert NET.factor == 2 and autoencoder.AutoencoderKL().factor == 8
    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, 8, 12, 3)), jnp.float32)
    both = lambda x: (NET.apply(drawn, x, method="encode"), NET.apply(drawn, x))
    (mean, log_variance), whole = jax.jit(jax.vmap(both), compiler_options=FAST)(x)
    assert mean.shape == log_variance.shape == (3, 4, 6, 2) and mean.dtype == jnp.float32 and whole.shape == x.shape
    decode = jax.jit(lambda z: NET.apply(drawn, z, method="decode"), compiler_options=FAST)
    np.testing.assert_allclose(decode(mean[1]), whole[1], rtol=1e-4, atol=1e-5)


def test_the_log_variance_is_clipped_and_the_mean_is_not(drawn):
    """The last bias moves both: one stops at the bounds."""
    far = jax.tree.map(lambda leaf: leaf, drawn)
    far["params"]["quant_conv"]["bias"] = jnp.asarray([100.0, -100.0, 100.0, -100.0], jnp.float32)
    encode = jax.jit(lambda x: NET.apply(far, x, method="encode"), compiler_options=FAST)
    mean, log_variance = encode(jnp.zeros(PICTURE.shape, jnp.float32))
    assert (log_variance[..., 0] == autoencoder.LOG_VARIANCE[1]).all()
    assert (log_variance[..., 1] == autoencoder.LOG_VARIANCE[0]).all()
    assert (jnp.abs(mean) > 50).all()


def test_sides_that_the_factor_does_not_divide_are_refused(drawn):
    with pytest.raises(ValueError, match=r"x is \(7, 8, 3\); its height and width must be multiples of 2"):
        NET.apply(drawn, jnp.zeros((7, 8, 3)), method="encode")
