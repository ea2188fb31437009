"""Counted parameters are the traced ones, of every network and of every field that changes them."""

import time

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import traverse_util

from diffinv.nn import convnet, ctmsr_unet, leaves, song, srnet, unet

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 8}
UNETS = [
    {**SMALL, "multipliers": (1, 1.5, 2), "attention": (1, 4), "patch": 2, "resample_blocks": False, "blocks": 2},
    {**SMALL, "resample_blocks": False, "resample_convs": True, "film": False, "classes": 3, "out_channels": 6},
    {**SMALL, "attention": (), "multipliers": (2, 1), "scalar_label": True},
    {**SMALL, "patch": 2, "classes": 3, "low_channels": 2},
]
SONGS = [
    {"resolution": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "classes": 3},
    {"resolution": 8, "channels": 8, "multipliers": (2, 1), "blocks": 2, "attention": (8,), "noise_channels": 2}
    | {"fourier": True, "residual": True, "taps": (1, 3, 3, 1)},
]
CONVS = [
    {"channels": 8, "multipliers": (1, 1.5, 2), "blocks": 2},
    {"channels": 4, "multipliers": (2,), "blocks": 1, "patch": 1, "out_channels": 2},
]
WINDOWS = {"resolution": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "heads": 2}
UPSCALERS = [
    srnet.SRNet(channels=8, blocks=2),
    srnet.SRNet(channels=8, blocks=1, scale=2, residual=False),
    ctmsr_unet.CTMSRUNet(**WINDOWS, window=4),
    ctmsr_unet.CTMSRUNet(**{**WINDOWS, "attention": ()}, window=8, embed=4, scale=2, residual=True),
]


def traced(net, *inputs, **condition):
    """Flat names and shapes by the network's own `init`, which computes nothing."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs, **condition)
    return {name: leaf.shape for name, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}


def pictures(side, channels):
    return jax.ShapeDtypeStruct((side, side, channels), jnp.float32)


@pytest.mark.parametrize("net", [*(unet.UNet(**f) for f in UNETS), *(song.SongUNet(**f) for f in SONGS)])
def test_priors(net):
    kind = jnp.float32 if getattr(net, "scalar_label", False) else None if net.classes is None else jnp.int32
    told = {} if kind is None else {"label": jax.ShapeDtypeStruct((), kind)}
    if coarse := getattr(net, "low_channels", 0):
        told |= {"low": pictures(16, coarse), "level": jax.ShapeDtypeStruct((), jnp.float32)}
    expected = traced(net, pictures(16, 4), jax.ShapeDtypeStruct((), jnp.float32), **told)
    assert leaves.leaves(net, 4) == expected


@pytest.mark.parametrize("net", [convnet.ConvUNet(**fields) for fields in CONVS])
def test_networks_for_any_size(net):
    assert leaves.leaves(net, 4) == traced(net, pictures(16, 4), jax.ShapeDtypeStruct((), jnp.float32))


@pytest.mark.parametrize("net", UPSCALERS)
def test_upscalers(net):
    t = jax.ShapeDtypeStruct((), jnp.float32)
    assert leaves.leaves(net, 3) == traced(net, pictures(16 * net.scale, 3), t, pictures(16, 3))


def test_a_network_that_nobody_counts_is_traced():
    class Own(nn.Module):
        resolution: int = 16

        @nn.compact
        def __call__(self, x, condition):
            return nn.Dense(x.shape[-1], name="last")(nn.Conv(7, (3, 3), name="first")(x))

    counted = {"first/kernel": (3, 3, 4, 7), "first/bias": (7,), "last/kernel": (7, 4), "last/bias": (4,)}
    assert leaves.leaves(Own(), 4) == {f"params/{name}": shape for name, shape in counted.items()}


def test_the_largest_published_network_is_counted_at_once():
    start = time.process_time()
    found = leaves.leaves(unet.adm_imagenet256(), 3)
    assert time.process_time() - start < 0.05
    count = 0
    for shape in found.values():
        size = 1
        for side in shape:
            size *= side
        count += size
    assert count == 552_814_086
