"""The U-Net: ADM's topology by an independent listing, and what every variant of it owes."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from compiling import FAST
from flax import linen as nn
from flax import traverse_util

from diffinv.nn import unet

pytestmark = pytest.mark.long


def conv(name, i, o, k=3):
    return {f"{name}/kernel": (k, k, i, o) if k > 1 else (i, o), f"{name}/bias": (o,)}


def norm(name, c):
    return {f"{name}/scale": (c,), f"{name}/bias": (c,)}


def res(name, i, o, emb):
    shapes = norm(f"{name}/in_layers_0", i) | conv(f"{name}/in_layers_2", i, o)
    shapes |= (
        conv(f"{name}/emb_layers_1", emb, 2 * o, 1)
        | norm(f"{name}/out_layers_0", o)
        | conv(f"{name}/out_layers_3", o, o)
    )
    return shapes | (conv(f"{name}/skip_connection", i, o, 1) if i != o else {})


def attention(name, c):
    return norm(f"{name}/norm", c) | conv(f"{name}/qkv", c, 3 * c, 1) | conv(f"{name}/proj_out", c, c, 1)


def adm(size, model_channels, mult, blocks, resolutions, learn_sigma=True):
    """Names and shapes by a transcription of guided-diffusion's `UNetModel.__init__`, resblock_updown=True."""
    emb, where = 4 * model_channels, [size // r for r in resolutions]
    shapes = conv("time_embed_0", model_channels, emb, 1) | conv("time_embed_2", emb, emb, 1)
    ch = int(mult[0] * model_channels)
    shapes |= conv("input_blocks_0_0", 3, ch)
    chans, ds, n = [ch], 1, 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            shapes |= res(f"input_blocks_{n}_0", ch, int(m * model_channels), emb)
            ch = int(m * model_channels)
            shapes |= attention(f"input_blocks_{n}_1", ch) if ds in where else {}
            n += 1
            chans.append(ch)
        if level != len(mult) - 1:
            shapes |= res(f"input_blocks_{n}_0", ch, ch, emb)
            n, ds = n + 1, ds * 2
            chans.append(ch)
    shapes |= res("middle_block_0", ch, ch, emb) | attention("middle_block_1", ch) | res("middle_block_2", ch, ch, emb)
    n = 0
    for level, m in list(enumerate(mult))[::-1]:
        for i in range(blocks + 1):
            shapes |= res(f"output_blocks_{n}_0", ch + chans.pop(), int(m * model_channels), emb)
            ch, part = int(m * model_channels), 1
            if ds in where:
                shapes |= attention(f"output_blocks_{n}_1", ch)
                part = 2
            if level and i == blocks:
                shapes |= res(f"output_blocks_{n}_{part}", ch, ch, emb)
                ds //= 2
            n += 1
    return shapes | norm("out_0", ch) | conv("out_2", ch, 6 if learn_sigma else 3)


def shapes_of(net, size):
    tree = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((size, size, 3)), jnp.zeros(()))
    return tree, {name: leaf.shape for name, leaf in traverse_util.flatten_dict(tree["params"], sep="/").items()}


@pytest.mark.parametrize(
    "preset, options, count",
    [
        (unet.adm_imagenet256, (256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8)), 552_814_086),
        (unet.adm_ffhq256, (128, (1, 1, 2, 2, 4, 4), 1, (16,)), 93_563_910),
    ],
)
def test_adm_presets_have_the_published_parameters(preset, options, count):
    tree, found = shapes_of(preset(), 256)
    assert found == adm(256, *options)
    assert unet.parameter_count(tree) == count


def test_the_embedded_prior_is_small():
    tree, _ = shapes_of(unet.small32(), 32)
    assert unet.parameter_count(tree) * 4 < 20e6


@pytest.fixture(scope="module")
def tiny():
    return *nets.tiny(), jax.random.normal(jax.random.key(0), (3, 8, 8, 3), jnp.float32)


_apply = jax.jit(lambda net, p, x, c, o: net.apply(p, x, c, **o), static_argnums=0, compiler_options=FAST)


def run(net, params, x, condition, **options):
    """The output, by one program for each network and set of options."""
    return _apply(net, params, x, jnp.float32(condition), options)


def assert_close(a, b, tol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tol, atol=tol), a, b)


@pytest.mark.slow
def test_starts_at_zero(tiny):
    """By the last layer, so one level will do: initialisers are slow to compile."""
    (net, _), (_, _, x) = nets.tiny(multipliers=(1,), attention=()), tiny
    zero = jax.jit(lambda k, x: net.apply(net.init(k, x, 0.3), x, 0.3), compiler_options=FAST)
    assert not np.any(zero(jax.random.key(1), x[0]))


@pytest.mark.slow
def test_vmapped_is_one_by_one(tiny):
    net, params, x = tiny
    conditions = jnp.asarray([0.1, -0.5, 0.9], jnp.float32)
    together = jax.jit(jax.vmap(net.apply, (None, 0, 0)), compiler_options=FAST)(params, x, conditions)
    assert_close(together, jnp.stack([run(net, params, a, c) for a, c in zip(x, conditions)]), 1e-5)


def test_condition_matters(tiny):
    net, params, x = tiny
    assert np.abs(run(net, params, x[0], 0.0) - run(net, params, x[0], 1.0)).max() > 1e-2


def outcome(net, params, x):
    """The output, and the gradients of its square in the parameters and in x, by one program."""

    def loss(p, x):
        out = net.apply(p, x, 0.2)
        return jnp.sum(out**2), out

    (_, out), slopes = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), compiler_options=FAST)(params, x)
    return out, slopes


@pytest.fixture(scope="module")
def plain_outcome(tiny):
    net, params, x = tiny
    return outcome(net, params, x[0])


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"remat": True}, {"plain_conv": True}])
def test_rewrites_change_nothing(tiny, plain_outcome, change):
    net, params, x = tiny
    (mine, my_slopes), (theirs, their_slopes) = plain_outcome, outcome(net.clone(**change), params, x[0])
    assert_close(mine, theirs, 1e-5)
    assert_close(my_slopes, their_slopes, 2e-4)


def test_bfloat16_inside_float32_outside(tiny):
    net, params, x = tiny
    half = net.clone(dtype=jnp.bfloat16)
    out, exact = run(half, params, x[0], 0.2), run(net, params, x[0], 0.2)
    assert out.dtype == jnp.float32
    assert 1e-5 < np.linalg.norm(out - exact) / np.linalg.norm(exact) < 0.05
    fresh = jax.eval_shape(half.init, jax.random.key(0), x[0], 0.2)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_forward_mode_of_the_plain_network(tiny):
    net, params, x = tiny
    v, step = x[1], jnp.float32(1e-2)
    f = lambda x: net.clone(plain_conv=True).apply(params, x, 0.2)
    pushed = jax.jit(lambda x: jax.jvp(f, (x,), (v,)), compiler_options=FAST)
    ahead, behind = (pushed(x[0] + sign * step * v)[0] for sign in (1, -1))
    assert_close(pushed(x[0])[1], (ahead - behind) / (2 * step), 2e-2)


def test_patches_and_free_resampling(tiny):
    _, _, x = tiny
    net, params = nets.tiny(patch=2, resample_blocks=False)
    assert run(net, params, x[0], 0.2).shape == (8, 8, 3)
    assert params["params"]["input_blocks_0_0"]["kernel"].shape == (3, 3, 12, 8)
    assert "input_blocks_2_0" not in params["params"]


def test_labels(tiny):
    plain, _, x = tiny
    net = plain.clone(classes=5)
    params = nets.drawn(net, label=jnp.asarray(1))
    one, two = (run(net, params, x[0], 0.2, label=jnp.asarray(i)) for i in (1, 2))
    assert np.abs(one - two).max() > 1e-3
    with pytest.raises(ValueError, match="both or neither"):
        run(net, params, x[0], 0.2)
    with pytest.raises(ValueError, match="both or neither"):
        run(plain, params, x[0], 0.2, label=jnp.asarray(1))


def test_a_number_as_label_enters_by_two_dense_layers(tiny):
    """With the second of them at 0 it is the plain network, and with only its bias the same at every number."""
    plain, params, x = tiny
    net = plain.clone(scalar_label=True)
    width = 4 * plain.channels
    first = {"kernel": jnp.full((1, width), 0.5), "bias": jnp.linspace(-1, 1, width)}

    def at(label, kernel, bias):
        second = {"kernel": jnp.full((width, width), kernel), "bias": jnp.full(width, bias)}
        more = {"label_emb_0": first, "label_emb_2": second}
        return run(net, {"params": {**params["params"], **more}}, x[0], 0.2, label=jnp.asarray(label))

    assert_close(at(0.3, 0.0, 0.0), run(plain, params, x[0], 0.2), 1e-6)
    assert_close(at(0.3, 0.0, 0.2), at(0.9, 0.0, 0.2), 0)
    hidden = nn.silu(0.5 * 0.3 + first["bias"]).sum()  # the dense layers, by hand, as a bias
    assert_close(at(0.3, 0.01, 0.0), at(0.0, 0.0, float(0.01 * hidden)), 1e-5)
    assert np.abs(at(0.3, 0.01, 0.0) - at(0.9, 0.01, 0.0)).max() > 1e-4
    with pytest.raises(ValueError, match="both or neither"):
        run(net, params, x[0], 0.2)


@pytest.mark.slow
def test_dropout_acts_only_with_a_key(tiny):
    net, params, x = tiny
    wet = net.clone(dropout=0.5)
    dry = run(net, params, x[0], 0.2)
    assert_close(run(wet, params, x[0], 0.2), dry, 0)
    dropped = run(wet, params, x[0], 0.2, rngs={"dropout": jax.random.key(1)})
    assert np.abs(dropped - dry).max() > 1e-3
