"""Weights and cards: what is saved comes back, what was touched does not."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from diffinv import process, weights
from diffinv.nn import unet

CARD = {
    "architecture": json.loads(json.dumps({"name": "unet", **nets.TINY, "dtype": "float32"})),
    "parametrisation": {"parametrisation": "edm", "sigma_data": 0.4},
    "process": {"name": "EDM", "sigma_max": 40.0},
    "shape": [8, 8, 3],
}


@pytest.fixture(scope="module")
def params():
    return nets.tiny()[1]


@pytest.fixture
def saved(params, tmp_path):
    path = str(tmp_path / "deep" / "tiny")
    weights.save(path, params, CARD)
    return path


def test_round_trip(params, saved):
    found, card = weights.restore(saved)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert card["parameters"] == unet.parameter_count(params)
    assert {key: card[key] for key in CARD} == CARD
    assert weights.restore(saved + ".safetensors")[1] == weights.restore(saved + ".json")[1] == card


def test_names_are_paths(params):
    flat = weights.flatten(params)
    assert "params/input_blocks_1_0/in_layers_2/kernel" in flat
    jax.tree.map(np.testing.assert_array_equal, weights.unflatten(flat), params)


def test_transposed_arrays_keep_their_order(tmp_path):
    value = jnp.arange(6.0).reshape(2, 3)
    weights.save(str(tmp_path / "t"), {"a": np.asarray(value).T}, {})
    np.testing.assert_array_equal(weights.restore(str(tmp_path / "t"))[0]["a"], value.T)


def edit(path, change):
    path = Path(path)
    path.write_bytes(change(bytearray(path.read_bytes())))


def flip_last(content):
    content[-1] ^= 1
    return content


@pytest.mark.parametrize("change", [flip_last, lambda c: c[:-4], lambda c: c + b"\0", lambda c: b""])
def test_touched_weights_are_refused(saved, change):
    edit(saved + ".safetensors", change)
    with pytest.raises(ValueError, match=r"tiny\.safetensors has sha256 .* copy both files again"):
        weights.restore(saved)


@pytest.mark.parametrize("change", [lambda c: c[:-20], lambda c: b"", lambda c: b"[1]", lambda c: b"{}"])
def test_touched_cards_are_refused(saved, change):
    edit(saved + ".json", change)
    with pytest.raises(ValueError, match=r"tiny\.json .* again"):
        weights.restore(saved)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_missing_files_are_named(saved, tmp_path, suffix):
    (tmp_path / "deep" / f"tiny{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"no file .*tiny\{suffix}; give"):
        weights.restore(saved)


def test_prior_is_rebuilt_from_the_card(params, saved):
    prior = weights.load_prior(saved)
    x, t = jnp.full((8, 8, 3), 0.3, jnp.float32), jnp.float32(0.02)
    assert prior.shape == (8, 8, 3)
    sigma, data = 0.8, 0.4
    weight = np.sqrt(sigma**2 + data**2)
    net = unet.UNet(**nets.TINY)
    out = jax.jit(net.apply)(params, x / jnp.float32(weight), jnp.float32(np.log(sigma) / 4))
    expected = data**2 / weight**2 * np.asarray(x) + sigma * data / weight * np.asarray(out)
    np.testing.assert_allclose(jax.jit(lambda p: p.denoise(x, t))(prior), expected, rtol=1e-4, atol=1e-5)


def test_prior_under_another_process_and_network_options(saved):
    prior = weights.load_prior(saved, process.VP(), remat=True)
    assert isinstance(prior.process, process.VP) and isinstance(prior.denoise.process, process.VP)
    out = jax.jit(lambda p: p.denoise(jnp.ones((8, 8, 3), jnp.float32), jnp.float32(0.5)))(prior)
    assert np.all(np.isfinite(out))


def test_unknown_architecture_is_named(params, tmp_path):
    weights.save(str(tmp_path / "x"), params, {**CARD, "architecture": {"name": "vit"}})
    with pytest.raises(ValueError, match="'vit'; known are unet"):
        weights.load_prior(str(tmp_path / "x"))


def test_card_is_json(saved):
    assert json.loads(Path(saved + ".json").read_text())["process"] == CARD["process"]


def test_a_card_may_be_amended_but_not_made_wrong(params, saved):
    card = weights.amend(saved, {"sample_quality": {"value": 1.5}})
    found, again = weights.restore(saved)
    assert again == card and card["sample_quality"] == {"value": 1.5}
    jax.tree.map(np.testing.assert_array_equal, found, params)
    for field in ("sha256", "shape", "parametrisation"):
        with pytest.raises(ValueError, match=field):
            weights.amend(saved, {field: 0})
    assert weights.read_card(saved) == card


def test_half_precision_is_stored_and_computed_in_single(params, tmp_path):
    half = weights.halved(params)
    path = str(tmp_path / "half")
    weights.save(path, half, CARD)
    prior, whole = weights.load_prior(path), weights.build(params, CARD)
    assert {leaf.dtype for leaf in jax.tree.leaves(prior.denoise.params)} == {jnp.dtype("float32")}
    x, denoised = weights.probe((8, 8, 3)), jax.jit(lambda prior, x: prior.denoise(x, 0.1))
    np.testing.assert_allclose(denoised(prior, x), denoised(whole, x), atol=5e-3)
    with pytest.raises(ValueError, match="a weight is 70000, and float16 ends at 65504"):
        weights.halved({"w": np.full((2, 2), 7e4, np.float32)})
