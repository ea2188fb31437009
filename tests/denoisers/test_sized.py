"""A denoiser of local view, asked about pictures of any size: whole and tiled are one, and no side is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import denoisers, samplers, times
from diffinv.nn.convnet import ConvUNet

ARCHITECTURE = {"channels": 4, "multipliers": (1, 1.5), "blocks": 1, "patch": 2, "time_scale": 40.0, "remat": False}
CARD = {
    "architecture": {"name": "conv", **ARCHITECTURE, "dtype": "float32", "out_channels": 3},
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.5},
    "process": {"name": "EDM", "sigma_max": 80.0},
    "shape": [16, 16, 3],
}
NET, UNIT = ConvUNet(**ARCHITECTURE), 4
REACH = NET.reach()


@cache
def weights():
    """Without zeros, as after training."""
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((8, 8, 3), jnp.float32), jnp.float32(0))
    leaves, tree = jax.tree.flatten(shapes)
    draw = lambda seed, leaf: 0.4 * jax.random.normal(jax.random.key(seed), leaf.shape, leaf.dtype)
    return jax.tree.unflatten(tree, [draw(*pair) for pair in enumerate(leaves)])


def prior(shape=None, tile=0, process=None):
    return di.weights.build(weights(), CARD, process or di.process.EDM(), shape=shape, tile=tile)


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("sides", [(5, 9), (1, 1), (33, 16)])
def test_any_sides_are_denoised_as_their_mirrored_extension(sides):
    """What is added is a mirror image, at the end, and is cut off again."""
    x, t = noise(*sides, 3), jnp.float32(0.01)
    extended = jnp.pad(x, (*((0, -side % UNIT) for side in sides), (0, 0)), "symmetric")
    expected = prior().denoise(extended, t)[: sides[0], : sides[1]]
    np.testing.assert_array_equal(prior((*sides, 3)).denoise(x, t), expected)


@pytest.mark.parametrize("sides", [(150, 70), (97, 131)])
def test_tiled_is_whole(sides):
    """In float32, to rounding; the network sees `REACH` pixels, which the tiles leave out at their borders."""
    x, t = noise(*sides, 3), jnp.float32(0.01)
    whole, tiled = prior((*sides, 3)), prior((*sides, 3), tile=2 * REACH + 6 * UNIT)
    assert max(sides) > tiled.denoise.tile > tiled.denoise.overlap
    denoise = jax.jit(lambda prior: prior.denoise(x, t))
    expected = denoise(whole)
    np.testing.assert_allclose(denoise(tiled), expected, atol=2e-5 * float(jnp.abs(expected).max()))
    narrow = denoisers.Sized(prior().denoise, UNIT, 4, tile=5 * UNIT)  # which says that it sees less far than it does
    assert float(jnp.abs(narrow(x, t) - expected).max()) > 1e-3


def test_a_tile_must_be_longer_than_the_overlap():
    overlap = denoisers.Sized(prior().denoise, UNIT, REACH).overlap
    for tile in (overlap, overlap + 1):
        with pytest.raises(ValueError, match=rf"tile is {tile}; give a multiple of 4 from {overlap + UNIT} on, or 0"):
            denoisers.Sized(prior().denoise, UNIT, REACH, tile)
    denoisers.Sized(prior().denoise, UNIT, REACH, overlap + UNIT)


def test_it_samples_under_any_process_at_its_size():
    chosen = prior((7, 10, 3), process=di.process.VP())
    solution = di.sample(jax.random.key(0), samplers.heun(chosen), times.grid(4))
    assert solution.x.shape == (7, 10, 3) and bool(jnp.isfinite(solution.x).all())
    assert chosen.cost == di.Cost() and chosen.denoise.process == chosen.process


def test_shapes_that_the_network_cannot_take_are_refused():
    for shape in ((8, 8, 1), (8, 8), (0, 8, 3)):
        with pytest.raises(ValueError, match="give \\(height, width, 3\\)"):
            prior(shape)
    fixed = {**CARD, "architecture": {**di.weights.read_card(di.weights.embedded())["architecture"]}}
    assert di.weights.any_size(CARD) and not di.weights.any_size(fixed)
    with pytest.raises(ValueError, match=r"shape is \(64, 64, 3\), but the prior is of \(16, 16, 3\) alone"):
        di.weights.build({}, fixed, shape=(64, 64, 3))
