"""LPIPS and VGG-16 against torch's functions, NumPy's formula, and files that are not what they should be."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

from diffinv.metrics import lpips
from diffinv.nn import unet, vgg

STAGES = ((4, 4), (6, 6), (4, 4, 4), (8, 8, 8), (4, 4, 4))
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture(scope="module")
def state():
    generator, before, found = np.random.default_rng(0), 3, {}
    for place, width in zip(PLACES, [w for stage in STAGES for w in stage], strict=True):
        found[f"features.{place}.weight"] = generator.standard_normal((width, before, 3, 3)).astype(np.float32) / 4
        found[f"features.{place}.bias"] = generator.standard_normal(width).astype(np.float32)
        before = width
    return {**found, "classifier.0.weight": np.zeros((2, 2), np.float32)}


@pytest.fixture(scope="module")
def pictures():
    return jax.random.uniform(jax.random.key(0), (2, 32, 20, 3), jnp.float32, -1, 1)


def torch_features(state, x):
    torch = pytest.importorskip("torch")
    h = torch.from_numpy(np.array(x.transpose(2, 0, 1)[None], np.float32))
    shift, scale = (torch.tensor(v)[None, :, None, None] for v in (vgg.SHIFT, vgg.SCALE))
    h, taps, places = (h - shift) / scale, [], iter(PLACES)
    for number, stage in enumerate(STAGES):
        h = torch.nn.functional.max_pool2d(h, 2) if number else h
        for place in [next(places) for _ in stage]:
            weight, bias = (torch.from_numpy(state[f"features.{place}.{kind}"]) for kind in ("weight", "bias"))
            h = torch.relu(torch.nn.functional.conv2d(h, weight, bias, padding=1))
        taps.append(h[0].permute(1, 2, 0).numpy())
    return taps


@pytest.mark.torch
@pytest.mark.slow
def test_distance_is_lpips_formula_on_torchs_features(state, pictures):
    weights = tuple(np.random.default_rng(k).uniform(0, 1, s[-1]).astype(np.float32) for k, s in enumerate(STAGES))
    made = lpips.LPIPS(vgg.from_torch(state, STAGES), weights, STAGES)
    expected = 0.0
    for f, g, weight in zip(*(torch_features(state, x) for x in pictures), weights, strict=True):
        unit = lambda a: a / (np.sqrt((a**2).sum(-1, keepdims=True)) + 1e-10)
        expected += (weight * (unit(f) - unit(g)) ** 2).sum(-1).mean()

    value, slope = jax.jit(jax.value_and_grad(made), compiler_options=FAST)(*pictures)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    np.testing.assert_allclose(made(pictures[0], pictures[0]), 0.0, atol=1e-7)


def test_the_network_is_vgg16():
    shapes = jax.eval_shape(vgg.VGG().init, jax.random.key(0), jnp.zeros((32, 32, 3), jnp.float32))
    assert unet.parameter_count(shapes) == 14_714_688
    with pytest.raises(ValueError, match="at least 16 x 16"):
        jax.eval_shape(vgg.VGG().init, jax.random.key(0), jnp.zeros((8, 32, 3), jnp.float32))


def test_other_weights_are_refused(state):
    for wrong in [
        {k: v for k, v in state.items() if k != "features.2.bias"},
        {**state, "features.0.bias": np.zeros(3)},
    ]:
        with pytest.raises(ValueError, match="give VGG-16's weights"):
            vgg.from_torch(wrong, STAGES)


def test_linear_weights_are_checked(tmp_path):
    good = {f"vgg.lin{k}": np.full(stage[-1], 0.5, np.float32) for k, stage in enumerate(STAGES)}
    path = str(tmp_path / "linear.npz")
    np.savez(path, **good)
    assert [w.shape for w in lpips.linear_weights(path, STAGES)] == [(stage[-1],) for stage in STAGES]
    with pytest.raises(ValueError, match="for tap 0"):
        lpips.linear_weights(path)
    np.savez(path, **{**good, "vgg.lin2": -good["vgg.lin2"]})
    with pytest.raises(ValueError, match="for tap 2"):
        lpips.linear_weights(path, STAGES)


def test_files_are_named_or_their_digest_compared(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        lpips.lpips(str(tmp_path / "vgg.pth"), "linear.npz")
    (tmp_path / "vgg.pth").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=hashlib.sha256(b"not a network").hexdigest()[:12]):
        lpips.lpips(str(tmp_path / "vgg.pth"), "linear.npz")


def test_the_published_linear_weights_fit(shared):
    weights = lpips.linear_weights(str(shared / "data" / "weights" / "lpips_v0.1_linear.npz"))
    assert [len(w) for w in weights] == [64, 128, 256, 512, 512]
