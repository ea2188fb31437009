"""The training command: what it says of bad input and of a run that diverges; another configuration, whole."""

import jax
import jax.numpy as jnp
import pytest
from compiling import FAST
from training_command import TINY, error, run, steps, together

from diffinv import weights

pytest.importorskip("grain")
pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_two_processes_must_agree(tmp_path):
    for done in together(tmp_path, others=["--config.batch=4"]):
        assert "another configuration" in error(*done)
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    done = run(
        tmp_path,
        *TINY,
        "--config.log_sigma_mean=20",
        "--config.log_sigma_std=20",
        "--config.patience=2",
        "--config.steps=20",
        "--config.eval_every=20",
    )
    line = error(done.stderr, done.returncode)
    assert "2 times in a row, up to step" in line and "holds the pictures [" in line and "checkpoints/" in line
    assert not (tmp_path / "photo.safetensors").exists() and steps(tmp_path)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--config.data=nowhere/pack.jpegpack.npz"], "nowhere"),
        (["--config.stepz=3"], "stepz"),
        (["--config=configs/prior32.py:quick"], "quick"),
        (["--config.batch=3"], "config.batch is 3"),
        (["--config.classes=1"], "the data have 2 labels"),
        (["--process=1"], "give all three"),
        (["--config.net.channels=0"], "config.net.channels is 0; give a whole number"),
        (["--export=nowhere"], "holds no checkpoint to export"),
    ],
)
def test_bad_input_is_one_line(tmp_path, more, word):
    done = run(tmp_path, *more)
    assert word in error(done.stderr, done.returncode)


@pytest.mark.parametrize("config", ["prior32_cond"])
def test_other_configs_run_and_their_priors_load(tmp_path, config):
    """With the configuration's own network."""
    done = run(tmp_path, "--config.steps=2", config=f"configs/{config}.py:smoke", DIFFINV_DEVICES="1")
    assert done.returncode == 0, done.stderr
    prior = weights.load_prior(str(tmp_path / config))
    x, t = jnp.zeros(prior.shape, jnp.float32), jnp.float32(0.5)
    found = jax.jit(lambda x, t: prior.denoise(x, t), compiler_options=FAST)(x, t)
    assert found.shape == prior.shape and jnp.isfinite(found).all()
