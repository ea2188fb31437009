"""DISTS against NumPy and SciPy on a small VGG, and files that are not what they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from scipy import ndimage, signal

from diffinv.metrics import dists
from diffinv.nn import vgg
from diffinv.weights.convert import safetensors

STAGES = ((2,), (3,), (2,), (2,), (2,))
PLACES = (0, 3, 6, 9, 12)
WIDTHS = (3, 2, 3, 2, 2, 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small VGG and its weights, as safetensors."""
    rng, folder, before = np.random.default_rng(0), tmp_path_factory.mktemp("dists"), 3
    network = {}
    for place, (width,) in zip(PLACES, STAGES, strict=True):
        network[f"features.{place}.weight"] = rng.standard_normal((width, before, 3, 3)).astype(np.float32) / 3
        network[f"features.{place}.bias"] = rng.standard_normal(width).astype(np.float32) / 3
        before = width
    weights = {name: rng.uniform(0, 1, (1, sum(WIDTHS), 1, 1)).astype(np.float32) for name in ("alpha", "beta")}
    paths = []
    for name, state in (("vgg", network), ("weights", weights)):
        (folder / f"{name}.safetensors").write_bytes(safetensors.written(state))
        paths.append(str(folder / f"{name}.safetensors"))
    return network, weights, *paths


@pytest.fixture(scope="module")
def pictures():
    return jax.random.uniform(jax.random.key(0), (2, 19, 16, 3), jnp.float32)


def by_hand(x, network):
    """The picture and five features, channels last: correlation with zeros outside, ReLU, and the Hann window."""
    window = np.outer([1, 2, 1], [1, 2, 1]) / 16
    h, found = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], [x]
    for number, place in enumerate(PLACES):
        if number:
            h = np.stack([ndimage.correlate(c**2, window, mode="constant")[::2, ::2] for c in h.transpose(2, 0, 1)], -1)
            h = np.sqrt(h + 1e-12)
        kernels, bias = network[f"features.{place}.weight"], network[f"features.{place}.bias"]
        seen = [sum(signal.correlate2d(h[..., c], k[c], "same") for c in range(h.shape[-1])) for k in kernels]
        h = np.maximum(np.stack(seen, -1) + bias, 0)
        found.append(h)
    return found


def test_it_is_the_formula_of_a_network_by_hand(files, pictures):
    network, weights, *paths = files
    made = dists.dists(*paths, STAGES)
    total, expected, place = sum(w.sum() for w in weights.values()), 1.0, 0
    for f, g in zip(*(by_hand(np.asarray(x, np.float64), network) for x in pictures), strict=True):
        for c in range(f.shape[-1]):
            a, b = (weights[name].ravel()[place] / total for name in ("alpha", "beta"))
            u, v = f[..., c].ravel(), g[..., c].ravel()
            (vu, shared), (_, vv) = np.cov(u, v, ddof=0)
            expected -= a * (2 * u.mean() * v.mean() + 1e-6) / (u.mean() ** 2 + v.mean() ** 2 + 1e-6)
            expected -= b * (2 * shared + 1e-6) / (vu + vv + 1e-6)
            place += 1
    run = jax.jit(jax.value_and_grad(lambda x, y: made(x, y, (0, 1))), compiler_options=FAST)
    value, slope = run(*pictures)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert np.isfinite(slope).all() and abs(run(pictures[0], pictures[0])[0]) < 1e-6
    np.testing.assert_allclose(run(pictures[1], pictures[0])[0], value, rtol=1e-5)


def test_the_range_is_asked_for(files, pictures):
    made = dists.dists(*files[2:], STAGES)
    with pytest.raises(TypeError, match="data_range"):
        made(*pictures)
    with pytest.raises(ValueError, match=r"give \(0, 255\)"):
        made(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), (-1, 1))


def test_other_files_are_refused(files, tmp_path):
    _, weights, network, path = files
    with pytest.raises(FileNotFoundError, match="dingkeyan93/DISTS: nothing is downloaded"):
        dists.dists(network, str(tmp_path / "weights.pt"), STAGES)
    with pytest.raises(ValueError, match="alpha is no 1475 weights >= 0; give weights.pt"):
        dists.dists(network, path, vgg.STAGES)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(safetensors.written({**weights, "beta": -weights["beta"]}))
    with pytest.raises(ValueError, match="beta is no 14 weights"):
        dists.dists(network, str(wrong), STAGES)
