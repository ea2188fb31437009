"""An imported network as a prior: from the card alone, under its own process and under another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import CASES, FAST, drawn

from diffinv import denoisers, process, times, weights
from diffinv.weights import loading
from diffinv.weights.cards import fields


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("prior") / "tiny")
    params, card = CASES["adm"][2](drawn("adm")[2].state)
    weights.save(path, params, card)
    return path


def stubbed(prior, out):
    """The prior with a network that answers `out`, and the inputs that it was asked with."""
    asked = []
    network = lambda params, x, index: asked.append((x, index)) or jnp.asarray(out.transpose(1, 2, 0), jnp.float32)
    if isinstance(prior.denoise, denoisers.Rescheduled):
        return prior.replace(denoise=prior.denoise.replace(denoise=prior.denoise.denoise.replace(apply=network))), asked
    return prior.replace(denoise=prior.denoise.replace(apply=network)), asked


@pytest.fixture(scope="module")
def reference():
    """(x, index, clean estimate, variance share) by hand from the reference network's output."""
    x, index, _, out = drawn("adm")
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[int(index)]
    return x.transpose(1, 2, 0), index, (x - np.sqrt(1 - abar) * out[:3]) / np.sqrt(abar), (out[3:] + 1) / 2, out, abar


def check(prediction, x0, v):
    assert np.linalg.norm(np.asarray(prediction.x0).transpose(2, 0, 1) - x0) < 1e-3 * np.linalg.norm(x0)
    np.testing.assert_allclose(prediction.v.transpose(2, 0, 1), v, rtol=1e-5, atol=1e-5)


def test_its_own_process_is_the_published_table(saved, reference):
    x, index, x0, v, out, _ = reference
    prior, asked = stubbed(weights.load_prior(saved), out)
    assert isinstance(prior.process, process.DDPM) and prior.shape == (32, 32, 3)
    check(prior.predict(jnp.asarray(x), jnp.float32((index + 1) / 1000)), x0, v)
    assert asked[0][1] == pytest.approx(index, abs=1e-3)


@pytest.mark.parametrize("other", [process.VP(), process.EDM(), process.Flow()])
def test_another_process_asks_it_at_the_same_noise(saved, reference, other):
    x, index, x0, v, out, abar = reference
    prior, asked = stubbed(weights.load_prior(saved, other), out)
    assert prior.process is other
    t = times.from_sigma(other, jnp.float32(np.sqrt(1 / abar - 1))).astype(jnp.float32)
    scale = jnp.sqrt(other.alpha(t) ** 2 + other.sigma(t) ** 2)
    check(prior.predict(jnp.asarray(x) * scale, t), x0, v)
    np.testing.assert_allclose(asked[0][0], x, rtol=1e-5, atol=1e-5)
    assert asked[0][1] == pytest.approx(index, abs=0.05)


def test_every_parametrisation_that_a_card_may_name_has_a_builder():
    assert set(loading.BUILDERS) == set(fields.PARAMETRISATION["parametrisation"].known)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adm_new_order_labels", "edm_ddpmpp"])
def test_every_family_has_a_certificate(name):
    params, card = CASES[name][2](drawn(name)[2].state)
    card = {**card, "given": {"label": 2}} if card["architecture"].get("classes") else card
    shape = weights.probe_shape(card)
    reference = jax.jit(weights.references, static_argnums=1, compiler_options=FAST)
    values = reference(weights.build(params, card), shape)
    assert shape == (4, 4, 3) and values.shape == (3, 10)
    card["certificate"] = weights.certified(values, shape)
    assert weights.verify(card, values) < 1e-6
