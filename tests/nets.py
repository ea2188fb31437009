"""Tiny networks with drawn weights: shapes by `eval_shape`, values by numpy, because compiled initialisers are slow."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from diffinv.nn import unet

TINY = dict(channels=8, multipliers=(1, 2), blocks=1, attention=(2,), head_channels=8)


def drawn(net, size=8, seed=0, **condition):
    """Variables of `net` with no zero left in them, which would hide what follows it."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((size, size, 3), jnp.float32), 0.0, **condition)
    generator = np.random.default_rng(seed)

    def draw(name, leaf):
        value = generator.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        value = 1 + 0.1 * value if name[-1] == "scale" else value
        return jnp.asarray(value, leaf.dtype)

    flat = traverse_util.flatten_dict(shapes)
    return traverse_util.unflatten_dict({name: draw(name, leaf) for name, leaf in flat.items()})


def tiny(**changes):
    """A U-Net of two levels on 8x8, and its variables."""
    net = unet.UNet(**{**TINY, **changes})
    return net, drawn(net)


class Mini(nn.Module):
    """The smallest conditional network: one hidden layer on 4 x 4 pixels. It compiles in no time."""

    @nn.compact
    def __call__(self, x, condition, label=None):
        label = jnp.zeros((), jnp.int32) if label is None else label
        shift = nn.Embed(4, 16, embedding_init=nn.initializers.normal(1.0))(label)
        h = nn.Dense(16)(jnp.append(x.ravel(), condition)) + shift
        return nn.Dense(x.size)(nn.gelu(h)).reshape(x.shape)


def mini(shape=(4, 4, 1)):
    """`Mini` and its variables."""
    net = Mini()
    return net, jax.jit(net.init)(jax.random.key(0), jnp.zeros(shape, jnp.float32), jnp.float32(0.0))
