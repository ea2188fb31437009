"""Blurring and heat models by the one trainer: a quick run to a prior that loads and samples, and mistakes."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from numpy.testing import assert_allclose
from training_command import TINY, run

from configs import blurring32, heat32
from diffinv import process, samplers, scalespace, times, weights
from diffinv.cascade import CascadeStage, cascade, relaying
from diffinv.denoisers import spectral
from diffinv.loop import sample
from experiments.tasks.spectral import Spectral

pytestmark = pytest.mark.long


@pytest.mark.slow
def test_the_quick_run_exports_a_prior_that_loads_and_samples(tmp_path):
    pytest.importorskip("grain")
    done = run(tmp_path, *TINY, "--config.net.attention=()", config="configs/heat32.py:smoke", DIFFINV_DEVICES="1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    card = json.loads((tmp_path / "heat32.json").read_text())
    assert card["process"] == {"name": "HeatDissipation", "shape": [8, 8], "blur_max": 36.0, "delta": 0.01}
    assert card["parametrisation"] == {"parametrisation": "spectral"} and card["sampler"] == "ancestral, 3 steps"
    with jax.enable_x64(False):
        loaded = weights.load_prior(str(tmp_path / "heat32"))
        assert loaded.shape == (8, 8, 3) and isinstance(loaded.process, process.HeatDissipation)
        assert float(jnp.min(loaded.law.variance)) >= 0.99 * spectral.GREY_STEP
        grid = times.grid(3).astype(jnp.float32)
        draw = lambda p: sample(jax.random.key(0), samplers.ancestral(p), grid).x
        z = jax.jit(draw, compiler_options=FAST)(loaded)
        x = scalespace.cosines(loaded.shape).decode(z)
    assert np.isfinite(x).all() and float(jnp.std(x)) > 0.05
    with pytest.raises(ValueError, match="process is VP, but the network serves HeatDissipation alone"):
        weights.load_prior(str(tmp_path / "heat32"), process.VP())


def test_processes_are_rebuilt_from_their_cards():
    for config, kind in ((blurring32.get_config(), process.Blurring), (heat32.get_config(), process.HeatDissipation)):
        card = {"shape": [32, 32], **config.process.to_dict()}
        built = weights.cards.build_process(card)
        assert type(built) is kind and built.frequencies.shape == (32, 32, 1)
        assert_allclose(built.frequencies[1, 0, 0], (np.pi / 32) ** 2, rtol=1e-6)
    assert built.blur_max == 36 and float(built.alpha(1.0)[0, 1, 0]) < 0.01 < float(built.alpha(1.0)[0, 0, 0])


def test_a_decay_that_would_eat_the_field_is_refused():
    source = SimpleNamespace(classes=("",))
    config = heat32.get_config("smoke")
    config.weight_decay = 0.01
    with pytest.raises(ValueError, match="config.weight_decay is 0.01; give 0, or it shrinks the measured field"):
        Spectral(config, source)
    config.weight_decay, config.process.name = 0.0, "Heat"
    with pytest.raises(ValueError, match="config.process.name is 'Heat'"):
        Spectral(config, source)


@pytest.mark.slow
def test_a_relay_s_export_stands_in_a_cascade_and_blurs_in_blocks(tmp_path):
    pytest.importorskip("grain")
    changes = (*TINY, "--config.net.attention=()", "--config.net.patch=1")
    done = run(tmp_path, *changes, config="configs/relay_digits.py:smoke", DIFFINV_DEVICES="1")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "relay_digits.json").read_text())
    assert card["process"] == {"name": "Relay", "shape": [8, 8], "sigma_blur": 3.0, "block": 2}
    with jax.enable_x64(False):
        prior = weights.load_prior(str(tmp_path / "relay_digits")).given(label=jnp.int32(0))
        chart = scalespace.spectral_codes(prior.process, prior.shape)
        assert_allclose(chart.decode(chart.encode(jnp.ones(prior.shape))), 1, atol=1e-6)
        assert_allclose(chart.encode(jnp.ones(prior.shape))[1::2, 1::2], 0, atol=1e-6)
        grid = 0.5 * times.grid(3).astype(jnp.float32)
        stage = CascadeStage(relaying(prior, samplers.ancestral, grid, chart), prior.shape)
        x = jax.jit(lambda: cascade([stage])(jax.random.key(0), None, jnp.zeros((4, 4, 3))).x, compiler_options=FAST)()
    assert x.shape == (8, 8, 3) and np.isfinite(x).all()


@pytest.mark.slow
def test_a_spectral_network_works_in_the_coefficients_of_its_process():
    """Without a network it is Wiener's filter in blocks, whose weighted error is 1 for a Gaussian field."""
    relay, rng = scalespace.relay(4, 4, 2, sigma_blur=2.0), np.random.default_rng(0)
    chart = scalespace.spectral_codes(relay, (4, 4, 1))
    variance = rng.uniform(0.1, 1, (4, 4, 1))
    pictures = jax.vmap(chart.decode)(jnp.asarray(np.sqrt(variance) * rng.standard_normal((8000, 4, 4, 1))))
    law = scalespace.field(relay, pictures, chart)
    assert_allclose(law.variance, variance, rtol=0.09)
    silent = lambda params, seen, t: 0 * seen[..., :1]
    field = {"mean": law.mean, "variance": law.variance}
    denoise = spectral.denoiser({"field": field}, relay, silent, chart)
    z = jnp.asarray(rng.standard_normal((4, 4, 1)))
    assert_allclose(denoise(z, jnp.float64(0.3)), law(z, 0.3), atol=1e-12)
    error = jax.vmap(lambda key, x: scalespace.spectral_error(key, denoise, x, jnp.float64(0.3)))
    found = error(jax.random.split(jax.random.key(0), 8000), pictures)
    assert float(jnp.mean(found)) == pytest.approx(1, abs=0.03)
    plain = spectral.denoiser({"field": field}, relay, silent)
    assert float(jnp.mean(jax.vmap(lambda k, x: scalespace.spectral_error(k, plain, x, jnp.float64(0.3)))(
        jax.random.split(jax.random.key(0), 2000), pictures[:2000]))) > 1.1  # fmt: skip
