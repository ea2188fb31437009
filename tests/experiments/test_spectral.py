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
