"""The probe of a certificate suits every architecture that a card may name, of priors and of upscalers."""

import jax
import jax.numpy as jnp
import nets
import pytest

from diffinv import weights
from diffinv.weights import cards

SMALL = {
    "unet": {**nets.TINY, "patch": 2},
    "song": {"resolution": 16, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,)},
    "edm2": {
        "resolution": 16,
        "channels": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (8,),
        "head_channels": 4,
    },
    "conv": {"channels": 8, "multipliers": (1, 2), "blocks": 1, "patch": 2},
    "dit": {"channels": 8, "blocks": 1, "heads": 2, "patch": 2, "out_channels": 3},
    "srnet": {"channels": 8, "blocks": 1, "scale": 3, "out_channels": 1},
    "ctmsr": {"resolution": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "window": 4, "heads": 2, "scale": 2},
}
PROBES = {"unet": (8, 8, 3), "song": (4, 4, 3), "edm2": (4, 4, 3), "conv": (8, 8, 3), "dit": (4, 4, 3)}
PROBES |= {"srnet": (6, 6, 1), "ctmsr": (32, 32, 3)}
"""By hand: two pixels at the coarsest level; ctmsr's has two windows of 4 pixels, at half of half the size."""


def output(net, shape, **given):
    """Shape of what the network makes of a picture (H, W, C), without computing it."""
    scale = getattr(net, "scale", 1)
    low = [jax.ShapeDtypeStruct((shape[0] // scale, shape[1] // scale, shape[2]), jnp.float32)] * hasattr(net, "scale")
    x, condition = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(net.init_with_output, jax.random.key(0), x, condition, *low, **given)[0].shape


@pytest.mark.parametrize("name", cards.ARCHITECTURES)
def test_the_probe_suits_every_architecture(name):
    card = {"architecture": {"name": name, **SMALL[name]}}
    probe = weights.probe_shape(card)
    assert probe == PROBES[name] == output(weights.architecture(card), probe)
    assert weights.probe_shape({**card, "shape": [64, 96, 3]}) == (*probe[:2], 3)


@pytest.mark.parametrize(
    ("name", "shape"), [("ctmsr_x4", (8, 8, 3)), ("prior32", (16, 16, 3)), ("satellite64", (32, 32, 3))]
)
def test_the_probe_suits_what_ships(name, shape):
    card = weights.read_card(weights.embedded(name))
    assert weights.probe_shape(card) == shape == output(weights.architecture(card), shape, **card.get("given", {}))


def test_the_probe_is_no_larger_than_the_picture():
    card = {"architecture": {"name": "unet", **nets.TINY}, "shape": [2, 8, 3]}
    assert weights.probe_shape(card) == (2, 4, 3)
