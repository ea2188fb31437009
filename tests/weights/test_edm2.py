"""EDM2's network: against the published algorithm in NumPy, by its magnitudes and counts, and through the import."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

from diffinv.nn import edm2 as networks
from diffinv.nn.leaves import leaves
from diffinv.weights.convert import edm2, public

SMALL = {"resolution": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_channels": 4}
NET = networks.EDM2UNet(**SMALL, classes=3)
FIELDS = {"class": "Precond", "img_resolution": 8, "channels_per_head": 4}


def unit(x, axes):
    """torch's `normalize`, over `axes`."""
    size = np.sqrt(np.sum(x.astype(np.float64) ** 2, axes, keepdims=True))
    return x / (1e-4 + size * math.sqrt(size.size / x.size))


class Published:
    """The network of `training/networks_edm2.py` on one picture (C, H, W) in float64, of drawn weights by its names."""

    def __init__(self, seed=0):
        self.rng, self.state = np.random.default_rng(seed), {}

    def weight(self, name, *shape):
        self.state[name] = self.rng.standard_normal(shape).astype(np.float32)
        return self.state[name].astype(np.float64)

    def layer(self, name, x, out, side=0, gain=1.0):
        window = (side, side) if side else ()
        w = self.weight(f"{name}.weight", out, x.shape[0], *window)
        w = unit(w, tuple(range(1, w.ndim))) * gain / math.sqrt(w[0].size)
        if not side:
            return w @ x
        low = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
        found = np.zeros((out, *x.shape[1:]))
        for i in range(side):
            for j in range(side):
                found += np.einsum("oc,chw->ohw", w[:, :, i, j], low[:, i : i + x.shape[1], j : j + x.shape[2]])
        return found

    silu = staticmethod(lambda x: x / (1 + np.exp(-x)) / 0.596)
    sum = staticmethod(lambda a, b, t: ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2))

    def join(self, a, b, t=0.5):
        wide = math.sqrt((len(a) + len(b)) / ((1 - t) ** 2 + t**2))
        return np.concatenate([wide / math.sqrt(len(a)) * (1 - t) * a, wide / math.sqrt(len(b)) * t * b])

    def block(self, name, x, out, flavour, resample="", attends=False):
        if resample == "down":
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean((2, 4))
        if resample == "up":
            x = x.repeat(2, 1).repeat(2, 2)
        skip = len(x) != out
        if flavour == "enc":
            x = unit(self.layer(f"{name}.conv_skip", x, out, 1) if skip else x, (0,))
        y = self.layer(f"{name}.conv_res0", self.silu(x), out, 3)
        gain = float(self.weight(f"{name}.emb_gain"))
        y = self.silu(y * (self.layer(f"{name}.emb_linear", self.emb, out, gain=gain) + 1)[:, None, None])
        y = self.layer(f"{name}.conv_res1", y, out, 3)
        if flavour == "dec" and skip:
            x = self.layer(f"{name}.conv_skip", x, out, 1)
        x = self.sum(x, y, 0.3)
        if attends:
            h = self.layer(f"{name}.attn_qkv", x, 3 * out, 1).reshape(out // 4, 4, 3, -1)
            q, k, v = np.moveaxis(unit(h, (1,)), 2, 0)
            scores = np.exp(np.einsum("hcq,hck->hqk", q, k) / 2)
            h = np.einsum("hqk,hck->hcq", scores / scores.sum(2, keepdims=True), v)
            x = self.sum(x, self.layer(f"{name}.attn_proj", h.reshape(x.shape), out, 1), 0.3)
        return np.clip(x, -256, 256)

    def __call__(self, x, t, label):
        f, phi = 2 * math.pi * self.weight("emb_fourier.freqs", 8), self.weight("emb_fourier.phases", 8)
        self.state["emb_fourier.freqs"] = f.astype(np.float32)
        emb = self.layer("emb_noise", np.sqrt(2) * np.cos(self.state["emb_fourier.freqs"] * t + phi), 16)
        hot = np.zeros(3) if label is None else np.eye(3)[label] * math.sqrt(3)
        self.emb = self.silu(self.sum(emb, self.layer("emb_label", hot, 16), 0.5))
        h = self.layer("enc.8x8_conv", np.concatenate([x, np.ones_like(x[:1])]), 8, 3)
        skips = [h, h := self.block("enc.8x8_block0", h, 8, "enc")]
        skips.append(h := self.block("enc.4x4_down", h, 8, "enc", "down"))
        skips.append(h := self.block("enc.4x4_block0", h, 16, "enc", attends=True))
        h = self.block("dec.4x4_in1", self.block("dec.4x4_in0", h, 16, "dec", attends=True), 16, "dec")
        for i in range(2):
            h = self.block(f"dec.4x4_block{i}", self.join(h, skips.pop()), 16, "dec", attends=True)
        h = self.block("dec.8x8_up", h, 16, "dec", "up")
        for i in range(2):
            h = self.block(f"dec.8x8_block{i}", self.join(h, skips.pop()), 8, "dec")
        return self.layer("out_conv", h, 3, 3, float(self.weight("out_gain")))


@pytest.fixture(scope="module")
def drawn():
    x = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    network = Published()
    return x, network, network(x, 0.3, 2)


@pytest.fixture(scope="module")
def run():
    options = {"compiler_options": FAST}
    return jax.jit(lambda params, x, t, label: NET.apply(params, x, t, label), **options)


def test_it_is_the_published_algorithm(drawn, run):
    """And without a label, as theirs has it: a label of zeros, which takes its share of the sum all the same."""
    x, network, expected = drawn
    params, card = edm2.imported({f"unet.{name}": value for name, value in network.state.items()}, FIELDS)
    found = run(params, jnp.asarray(x.transpose(1, 2, 0)), jnp.float32(0.3), jnp.int32(2))
    assert np.linalg.norm(np.asarray(found) - expected.transpose(1, 2, 0)) < 1e-5 * np.linalg.norm(expected)
    without = Published()(x, 0.3, None)
    found = jax.jit(NET.apply, compiler_options=FAST)(params, jnp.asarray(x.transpose(1, 2, 0)), jnp.float32(0.3))
    assert np.linalg.norm(np.asarray(found) - without.transpose(1, 2, 0)) < 1e-5 * np.linalg.norm(without)
    assert np.linalg.norm(without - expected) > 0.1 * np.linalg.norm(expected)
    assert card["architecture"]["multipliers"] == (1, 2) and card["architecture"]["classes"] == 3


@pytest.mark.parametrize(
    ("channels", "count"),
    [(128, 125e6), (192, 280e6), (256, 498e6), (320, 777e6), (384, 1119e6), (448, 1523e6)],
)
def test_the_published_sizes(channels, count):
    """125, 280, 498, 777, 1119 and 1523 million (table 2); XS and S to the parameter, of their own code."""
    found = leaves(networks.EDM2UNet(channels=channels, out_channels=4, classes=1000), 4)
    stored = sum(math.prod(shape) for name, shape in found.items() if "emb_fourier" not in name)
    extra = sum(math.prod(shape) for name, shape in found.items() if "emb_fourier" in name)
    assert extra == 2 * channels and round(stored / 1e6) == count / 1e6
    if channels <= 192:
        assert stored == {128: 124713125, 192: 280212709}[channels]


@pytest.mark.parametrize("changes", [{}, {"classes": None, "noise_channels": 3}, {"head_channels": 64}])
def test_its_leaves_are_counted_as_it_makes_them(changes):
    """A head wider than the level is none."""
    net = networks.EDM2UNet(**{**SMALL, "classes": 3, **changes})
    x, t = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    made = jax.eval_shape(net.init, jax.random.key(0), x, t)
    shapes = {"/".join(each.key for each in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(made)}
    assert shapes == leaves(net, 3)


def test_magnitudes_are_kept():
    key = jax.random.key(0)
    x = jax.random.normal(key, (4000, 32), jnp.float32)
    layer = networks.MPLayer(48)
    params = jax.tree.map(lambda w: 7 * w, layer.init(key, x[0]))  # of any length
    assert np.std(layer.apply(params, x)) == pytest.approx(1, abs=0.03)
    assert np.sqrt(np.mean(networks.mp_silu(x) ** 2)) == pytest.approx(1, abs=0.01)
    y = jax.random.normal(jax.random.key(1), (4000, 8), jnp.float32)
    assert np.std(networks.mp_sum(x[:, :8], y, 0.3)) == pytest.approx(1, abs=0.02)
    joined = np.asarray(networks.mp_join(x, y, 0.3))
    left, right = np.mean(joined[:, :32] ** 2) * 32, np.mean(joined[:, 32:] ** 2) * 8
    assert (left + right) / 40 == pytest.approx(1, abs=0.03) and right / left == pytest.approx(
        (0.3 / 0.7) ** 2, rel=0.1
    )
    np.testing.assert_allclose(np.mean(networks.normalized(x, (1,)) ** 2, 1), 1, atol=1e-3)


def test_a_convolution_has_the_gradient_of_laxs_own():
    x = jax.random.normal(jax.random.key(0), (6, 6, 2), jnp.float32)
    ours, plain = (networks.MPLayer(3, 3, plain) for plain in (False, True))
    params = plain.init(jax.random.key(1), x)
    value = lambda net: lambda params, x: jnp.sum(net.apply(params, x, 0.7) ** 2)
    for a, b in zip(*(jax.tree.leaves(jax.grad(value(net), (0, 1))(params, x)) for net in (ours, plain))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_file_is_read_with_the_fields_beside_it(drawn, tmp_path):
    path, state = tmp_path / "edm2.npz", drawn[1].state
    extra = {"logvar_fourier.freqs": np.ones(4, np.float32), "logvar_linear.weight": np.ones((1, 4), np.float32)}
    np.savez(path, **{f"unet.{name}": value for name, value in state.items()}, **extra)
    with pytest.raises(FileNotFoundError, match="edm2.json"):
        public.load_public(path)
    for change, words in (
        ({"class": "EDMPrecond"}, "class is 'EDMPrecond'"),
        ({"img_resolution": 64}, "img_resolution = 64, the weights 8"),
        ({"clip_act": -1}, "clip_act is -1"),
    ):
        path.with_suffix(".json").write_text(json.dumps({**FIELDS, **change}))
        with pytest.raises(ValueError, match=words):
            public.load_public(path)
    path.with_suffix(".json").write_text(json.dumps(FIELDS))
    card = public.load_public(path).card
    assert card["parametrisation"] == {"parametrisation": "edm", "sigma_data": 0.5} and card["shape"] == [8, 8, 3]
    assert card["architecture"]["balance"] == (0.3, 0.3) and card["source"]["family"] == "EDM2 (NVlabs/edm2)"


def test_another_architecture_is_refused(drawn):
    state = dict(drawn[1].state)
    kernel = state.pop("dec.8x8_up.conv_res0.weight")
    with pytest.raises(ValueError, match="dec.8x8_up.conv_res0.weight of shape"):
        edm2.imported(state, FIELDS)
    with pytest.raises(ValueError, match="has no levels"):
        edm2.imported({edm2.MARK: kernel}, FIELDS)
    wide = {**drawn[1].state, "emb_noise.weight": np.ones((32, 8), np.float32)}
    with pytest.raises(ValueError, match="the embedding has 32 channels, the widest level 16"):
        edm2.imported(wide, FIELDS)
