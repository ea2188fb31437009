"""Networks that are told of a coarse picture, by the one trainer: the loss in closed form, a stage of a cascade."""

import json
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST
from told import TheirMean, mean_error
from training_command import TINY, run

pytest.importorskip("ml_collections")
pytest.importorskip("grain")

import diffinv as di
from diffinv import cascade, samplers, times, weights
from diffinv.cascade import CascadeStage
from diffinv.data.builders import Resident, Source
from experiments.common import priors
from experiments.tasks import fields
from experiments.tasks.consistency import Consistency
from experiments.tasks.denoising import Denoising
from experiments.tasks.spectral import Spectral

KINDS = {"prior32_cond": Denoising, "ict32": Consistency, "blurring32": Spectral}


@pytest.fixture(autouse=True)
def as_experiments_run():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def configured(name="prior32_cond", **changes):
    config = import_module(f"configs.{name}").get_config("smoke")
    config.update({"coarse": 2, "flip": False, **changes})
    return config


def pictures(count, size=8, channels=3, deviation=0.0):
    """Of equal grey, or of independent pixels."""
    values = deviation * np.random.default_rng(0).standard_normal((count, size, size, channels))
    pixels = np.clip(np.round(127.5 * (values + 1)), 0, 255).astype(np.uint8)
    return Source(Resident(pixels, np.arange(count, dtype=np.int32) % 2), size, channels, ("a", "b"))


def batch_of(source):
    return {name: jnp.asarray(value) for name, value in source.take(range(len(source))).items()}


def test_the_loss_of_the_exact_mean_is_its_closed_form():
    """Independent pixels of variance v, at all noises and levels that training draws; and wrong levels cost more."""
    deviation, greatest, count = 0.25, 0.2, 12_000

    class Known(Denoising):
        def model(self, params):
            return TheirMean(self.process, deviation**2, self.coarse, **params)

    class Lying(TheirMean):
        def given(self, **condition):
            return super().given(**{**condition, "level": 0.0})

    source = pictures(count, size=4, channels=1, deviation=deviation)
    config = configured(size=4, channels=1, coarse_level=greatest, log_sigma_mean=-1.5, log_sigma_std=0.5)
    known = Known(config, source)
    found = jax.jit(known.loss)(jax.random.key(0), {}, batch_of(source))
    nodes, shares = np.polynomial.hermite_e.hermegauss(20)
    r, s = np.exp(-1.5 + 0.5 * nodes), config.sigma_data
    levels = (np.arange(200) + 0.5) / 200 * greatest
    error = mean_error(deviation**2, 4, r[:, None], levels).mean(1)
    expected = np.sum(shares / shares.sum() * (r**2 + s**2) / (r * s) ** 2 * error)
    assert float(found) == pytest.approx(expected, rel=0.01)
    known.model = lambda params: Lying(known.process, deviation**2, known.coarse)
    known.denoising_loss = di.train.denoising_loss(known.model, known.process, -1.5, 0.5, s)
    assert float(jax.jit(known.loss)(jax.random.key(0), {}, batch_of(source))) > 1.05 * expected


@pytest.mark.parametrize("name", KINDS)
def test_labels_and_coarse_pictures_are_told_side_by_side(name):
    """In the loss, in the held-out errors and for the samples, of every task that trains a network for pictures."""
    config, source = configured(name, classes=2), pictures(8, deviation=0.3)
    task = KINDS[name](config, source)
    examples = task.examples(jax.random.key(1), batch_of(source))
    assert set(examples) == {"image", "label", "low", "level"} and examples["low"].shape == (8, 8, 8, 3)
    assert set(np.asarray(examples["label"])) <= {0, 1, 2}
    params = jax.eval_shape(task.init, jax.random.key(0))
    context = (di.train.Context(jnp.int32(0), (params,), None),) if task.contextual else ()
    assert jax.eval_shape(task.loss, jax.random.key(0), params, batch_of(source), *context).shape == ()
    assert all(leaf.shape == () for leaf in jax.tree.leaves(
        jax.eval_shape(task.errors, jax.random.key(0), params, batch_of(source))))  # fmt: skip
    rows = task.prompts(source, 4)
    average = np.asarray(examples["image"][:4]).reshape(4, 2, 4, 2, 4, 3).mean((2, 4))
    np.testing.assert_allclose(rows["coarse"], average, atol=1e-6)
    np.testing.assert_array_equal(rows["label"], [0, 1, 0, 1])
    one = jax.tree.map(lambda leaf: leaf[0], rows)
    assert jax.eval_shape(task.sample, jax.random.key(0), params, one).shape == (8, 8, 3)
    assert task.card()["coarse"] == {"side": 2, "level": 1.0} and task.card()["architecture"]["low_channels"] == 3


def test_without_a_coarse_picture_nothing_is_told_but_labels():
    source = pictures(4)
    task = Denoising(configured(coarse=0), source)
    assert set(task.examples(jax.random.key(1), batch_of(source))) == {"image", "label"} and "coarse" not in task.card()
    task = Denoising(configured(coarse=0, classes=0), source)
    assert task.examples(jax.random.key(1), batch_of(source)).shape[1:] == task.shape  # pictures alone


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"coarse": 3}, "config.coarse is 3; give a divisor of config.size, 8, or 0"),
        ({"coarse": 8}, "config.coarse is 8; give a divisor of config.size, 8, or 0"),
        ({"architecture": "conv"}, "config.architecture is 'conv', which takes no coarse picture; give unet"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, line):
    config = configured(classes=0, **changes)
    if config.architecture == "conv":
        config.net = {"channels": 8, "multipliers": (1,), "blocks": 1, "patch": 1, "time_scale": 40.0, "remat": False}
    with pytest.raises(ValueError, match=line):
        fields.check(config)


@pytest.mark.slow
def test_an_export_runs_as_a_stage_of_a_cascade(tmp_path):
    """Trained by the command, loaded by its card, told of coarse pictures by `sampling`; elsewhere refused by name."""
    changes = ("--config.coarse=4", "--config.coarse_level=0.5", "--config.net.attention=()", "--config.channels=1")
    done = run(tmp_path, *TINY, *changes, config="configs/prior32_cond.py:smoke", DIFFINV_DEVICES="1")
    assert done.returncode == 0, done.stderr
    path = str(tmp_path / "prior32_cond")
    assert json.loads((tmp_path / "prior32_cond.json").read_text())["coarse"] == {"side": 4, "level": 0.5}
    prior = weights.load_prior(path).given(label=jnp.int32(1))
    make = cascade.sampling(prior, samplers.heun, times.karras(3))
    stage = lambda level: CascadeStage(make, (8, 8, 1), cascade.with_noise, level)
    run_it = lambda x, level: cascade.cascade([stage(level)])(jax.random.key(0), None, x).x
    draw = jax.jit(run_it, compiler_options=FAST)
    one, other, more = (
        draw(coarse, jnp.float32(level))
        for coarse, level in ((jnp.zeros((4, 4, 1)), 0.2), (jnp.ones((4, 4, 1)), 0.2), (jnp.zeros((4, 4, 1)), 0.4))
    )
    assert one.shape == (8, 8, 1) and np.isfinite(one).all()
    assert np.abs(one - other).max() > 1e-4 and np.abs(one - more).max() > 1e-5
    with pytest.raises(ValueError, match="low is None for a network of low_channels=1"):
        prior.denoise(jnp.zeros((8, 8, 1)), jnp.float32(0.5))
    with pytest.raises(ValueError, match="--prior is '.*', a cascade's stage, which needs a coarse picture"):
        priors.load(path)
