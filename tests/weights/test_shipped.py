"""What ships inside the package: small, whole, and what its cards say."""

import os
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import data, generator, process, text, train, weights
from diffinv.metrics import memorisation

FOLDER = Path(weights.embedded()).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
PRIORS = [name for name in NAMES if weights.cards.kind_of(weights.read_card(weights.embedded(name))) == "prior"]


def test_all_weights_together_are_small():
    assert {"brain128", "photo", "prior32", "satellite64", "stackgan_digits"} <= set(NAMES)
    assert sum(os.path.getsize(FOLDER / f"{name}.safetensors") for name in NAMES) <= 26e6


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_the_round_trip_bit_for_bit(name, tmp_path):
    params, card = weights.restore(weights.embedded(name))
    told = {key: value for key, value in card.items() if key not in ("sha256", "parameters")}
    weights.save(str(tmp_path / name), params, told)
    suffix = f"{name}.safetensors"
    assert (tmp_path / suffix).read_bytes() == (FOLDER / suffix).read_bytes()
    assert weights.read_card(str(tmp_path / name)) == card


@pytest.mark.parametrize("name", NAMES)
def test_cards_tell_data_licence_and_pictures_seen(name):
    card = weights.read_card(weights.embedded(name))
    for field in ("data", "data_licence", "images_seen", "seconds", "hardware"):
        assert card[field] not in (None, "", 0), field
    for said in ("EuroSAT", "MIT", "modified Copernicus Sentinel data"):
        assert (
            name not in ("satellite64", "eurosat_codes", "eurosat_latent")
            or said in card["data"] + card["data_licence"]
        ), said


@cache
def pictures(name):
    """Twelve squares that none of the priors was trained on, in [-1, 1]."""
    if name == "satellite64":
        return data.to_unit(np.asarray(data.read("satellite", 64, limit=12).pixels))
    if name == "eurosat_latent":
        codec = weights.load_latent(weights.embedded(name)).codec
        return jax.jit(jax.vmap(codec.encode))(jnp.asarray(pictures("satellite64"), jnp.float32))
    size = weights.read_card(weights.embedded(name))["shape"][0]
    crops = np.asarray(data.patches("photographs", 128, 100, limit=5).take(range(0, 40, 3))["image"][:12])
    means = crops.reshape(len(crops), size, 128 // size, size, 128 // size, 3).mean((2, 4))
    return data.to_unit(means.astype(np.float32)) if size == 32 else data.to_unit(crops[:, :size, :size])


@pytest.mark.parametrize("name", PRIORS)
def test_cards_are_true(name):
    """The held-out loss at two noise levels, on other pictures of the kind: within a factor of two of the card's."""
    params, card = weights.restore(weights.embedded(name))
    if name == "brain128":
        pytest.skip("no slice of a head ships that it could be compared on")
    if "held_out_loss" not in card or card["parametrisation"]["parametrisation"] != "edm":
        pytest.skip("its card has no held-out loss per noise level")
    with jax.enable_x64(False):
        prior = weights.load_prior(weights.embedded(name), process.EDM())
        levels, spread = jnp.asarray([0.1, 1.0], jnp.float32), card["parametrisation"]["sigma_data"]
        loss = train.noise_levels_loss(lambda denoise: denoise, process.EDM(), levels, spread)
        found = jax.jit(loss)(jax.random.key(0), prior.denoise, jnp.asarray(pictures(name), jnp.float32))
    told = np.asarray([card["held_out_loss"][level] for level in ("0.1", "1")])
    ratio = np.asarray(found) / told
    assert (ratio > 0.5).all() and (ratio < 2).all(), ratio


def test_the_shipped_autoencoder_is_near_what_it_codes():
    """The mean square error over the pictures that ship is the card's, within a half; codes have about variance 1."""
    told = weights.read_card(weights.embedded("eurosat_codes"))["held_out_loss"]["root mean square"]
    with jax.enable_x64(False):
        codec, x = weights.load_autoencoder(weights.embedded("eurosat_codes")), jnp.asarray(pictures("satellite64"))
        both = jax.jit(lambda codec, x: jax.lax.map(lambda x: (codec.encode(x), codec.decode(codec.encode(x))), x))
        codes, found = map(np.asarray, both(codec, x.astype(jnp.float32)))
    assert codec.shape == (16, 16, 8) and 0.6 < codes.std() < 1.5
    assert np.sqrt(np.mean((found - np.asarray(x)) ** 2)) < 1.5 * told


def test_the_shipped_generator_writes_the_digit_that_it_is_asked_for():
    """Twenty of each: the nearest of scikit-learn's own has it as its label, and its encoders tell as the card says."""
    model, card = (load(weights.embedded("stackgan_digits")) for load in (weights.load_generator, weights.read_card))
    labels = np.arange(200) % 10
    tokens = np.stack([model.tokens(model.captions[label]) for label in labels])
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        draw = jax.jit(jax.vmap(lambda model, key, each: model(key, each).pictures, (None, 0, 0)))
        *_, finest = draw(model, jax.random.split(jax.random.key(0), 200), tokens)
        texts = generator.embedded_texts(model.game, model.params, tokens[:10])
        own = text.text_match(generator.viewed(model.game, model.params, finest), texts, jnp.asarray(labels))
    assert float(own) == pytest.approx(1 - card["held_out_loss"]["text"], abs=0.1)
    rows = lambda pixels: np.asarray(pixels).reshape(len(pixels), -1)
    known = data.catalogue("digits")
    read = data.read("digits", 16, channels=1)
    near = memorisation.nearest_rows(rows(finest), rows(data.to_unit(read.pixels))).place
    right = np.asarray([record.label for record in known.records()])[near] == labels
    assert right.mean() > 0.8


@pytest.mark.slow
def test_the_prior_of_any_size_is_one_function_whole_tiled_and_cropped():
    """To rounding in float32, beyond the 68 pixels that it sees, at three noise levels."""
    load = lambda shape, tile=0: weights.load_prior(weights.embedded("photo"), process.VP(), shape=shape, tile=tile)
    with jax.enable_x64(False):
        whole, tiled, crop = load((264, 200, 3)), load((264, 200, 3), 176), load((160, 200, 3))
        reach, x = whole.denoise.reach, jax.random.normal(jax.random.key(0), (264, 200, 3), jnp.float32)
        assert reach == 68
        denoise = jax.jit(lambda prior, x, t: prior.denoise(x, t))
        for t in (0.05, 0.3, 0.8):
            expected = np.asarray(denoise(whole, x, jnp.float32(t)))
            scale = np.abs(expected).max()
            np.testing.assert_allclose(denoise(tiled, x, jnp.float32(t)), expected, atol=1e-5 * scale)
            inner = np.asarray(denoise(crop, x[104:], jnp.float32(t)))[reach:]
            np.testing.assert_allclose(inner, expected[104 + reach :], atol=1e-5 * scale)
    assert di.Cost() == tiled.cost
