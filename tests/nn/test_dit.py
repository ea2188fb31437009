"""The diffusion transformer: its published sizes, fixed positions, blocks that are the identity at first, labels."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST
from flax import traverse_util

from diffinv.nn import dit, leaves, unet

NET = dit.DiT(channels=16, blocks=2, heads=2, out_channels=3, classes=4)
LABEL = jnp.int32(1)
SIZES = {"S/2": 32_865_056, "B/2": 130_315_808, "L/2": 457_840_672, "XL/2": 674_834_720, "XL/4": 675_000_704}
"""As the layers of the paper add up in PyTorch; facebookresearch/DiT counts its positions besides."""


def counted(net, channels):
    return sum(int(np.prod(shape)) for shape in leaves.leaves(net, channels).values())


@pytest.mark.parametrize("name", SIZES)
def test_published_networks_have_their_published_sizes(name):
    net = dit.published(name)
    assert counted(net, 4) == SIZES[name]
    tokens = (32 // net.patch) ** 2
    if name == "XL/2":
        assert SIZES[name] + tokens * net.channels == 675_129_632  # "675 M" of the paper's table 1


def test_the_small_one_is_as_its_own_init_draws_it():
    picture = jax.ShapeDtypeStruct((32, 32, 4), jnp.float32)
    shapes = jax.eval_shape(dit.published("S/2").init, jax.random.key(0), picture, jnp.float32(0), LABEL)
    assert unet.parameter_count(shapes) == SIZES["S/2"]
    flat = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    assert leaves.leaves(dit.published("S/2"), 4) == flat


@pytest.mark.parametrize("change", [{"classes": None}, {"ratio": 1.5}, {"patch": 4, "out_channels": 6}])
def test_counted_parameters_are_the_traced_ones(change):
    net = NET.clone(**change)
    told = {} if net.classes is None else {"label": LABEL}
    picture = jax.ShapeDtypeStruct((8, 8, 5), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), picture, jnp.float32(0), **told)["params"]
    flat = {f"params/{name}": leaf.shape for name, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    assert leaves.leaves(net, 5) == flat


def test_positions_are_of_the_column_then_of_the_row():
    found = dit.positions(2, 3, 8)
    assert found.shape == (6, 8) and found.dtype == np.float32
    for n, row in enumerate(found):
        angles = [[n % 3, n % 3 / 100], [n // 3, n // 3 / 100]]
        expected = np.concatenate([f(each) for each in angles for f in (np.sin, np.cos)])
        np.testing.assert_allclose(row, expected, atol=1e-7)
    with pytest.raises(ValueError, match="size is 6; positions take a multiple of 4"):
        dit.positions(2, 2, 6)


def test_it_begins_at_zero_and_its_blocks_at_the_identity():
    """adaLN-Zero: with drawn weights the result is 0, and a block gives back what it is given."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 3)), jnp.float32)
    out, _ = jax.jit(NET.init_with_output, compiler_options=FAST)(jax.random.key(0), x, jnp.float32(0.5), LABEL)
    np.testing.assert_array_equal(out, jnp.zeros((4, 4, 3)))
    block, tokens = dit.DiTBlock(heads=2), x.reshape(12, 4)
    kept, _ = jax.jit(block.init_with_output, compiler_options=FAST)(
        jax.random.key(1), tokens, jnp.ones(4, jnp.float32)
    )
    np.testing.assert_array_equal(kept, tokens)


def test_pictures_of_other_sides_and_of_several_examples():
    """Vmapped is alone; sides may differ; each square sees all others, the label and the condition."""
    params = nets.drawn(NET, label=LABEL)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 3)), jnp.float32)
    t, labels = jnp.asarray([0.1, 20.0], jnp.float32), jnp.asarray([1, 3], jnp.int32)
    many = jax.jit(jax.vmap(NET.apply, (None, 0, 0, 0)), compiler_options=FAST)
    out = many(params, x, t, labels)
    assert out.shape == (2, 4, 6, 3) and out.dtype == jnp.float32
    alone = jax.jit(NET.apply, compiler_options=FAST)(params, x[1], t[1], labels[1])
    np.testing.assert_allclose(out[1], alone, rtol=1e-4, atol=1e-5)
    for other in (many(params, x.at[0, 0, 0].add(1), t, labels), many(params, x, t + 1, labels),
                  many(params, x, t, labels - 1)):  # fmt: skip
        assert (jnp.abs(other[0] - out[0]) > 1e-4).any(-1).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="label is None for a network of classes=4; give both or neither"):
        jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((4, 4, 3)), 0.0)
    with pytest.raises(ValueError, match="divisible by patch = 2"):
        jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((5, 4, 3)), 0.0, LABEL)
    for name in ("M/2", "XL/3", "XL"):
        with pytest.raises(ValueError, match=f"name is '{name}'; give S, B, L, XL"):
            dit.published(name)
