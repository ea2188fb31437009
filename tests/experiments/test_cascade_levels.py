"""The table of levels: an exact stage's law by draws, what is kept of known pictures, a small run."""

import sys

import forking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_command
from oracle import random_covariance
from test_cascade_table import in_place_of_training

pytest.importorskip("ml_collections")
pytest.importorskip("grain")

from experiments.tables import cascade, cascade_levels, published, trainings
from experiments.tables import cascade_stages as stages
from experiments.tables.cascade_levels import Law

FINE, COARSE = (4, 4, 1), (2, 2, 1)


@pytest.fixture(scope="module")
def laws():
    """Of the pictures, and of a base that is wrong."""
    rng = np.random.default_rng(0)
    data = Law(rng.standard_normal(16), random_covariance(rng, 16))
    average = cascade_levels.averaging(FINE, 2)
    return data, Law(average @ data.mean + 0.3, 0.6 * average @ data.covariance @ average.T + 0.05 * np.eye(4)), average


def test_the_matrix_of_block_averages():
    x = np.random.default_rng(0).standard_normal((3, 4, 4, 2))
    found = x.reshape(3, -1) @ cascade_levels.averaging((4, 4, 2), 2).T
    np.testing.assert_allclose(found[:, :2], x[:, :2, :2].mean((1, 2)), atol=1e-12)
    np.testing.assert_allclose(found.reshape(3, 2, 2, 2), cascade_levels.averaged(x, 2), atol=1e-12)


@pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
def test_the_exact_stage_by_its_draws(laws, s):
    """Base, noise, conditional draw: mean, covariance and what is kept, by 400,000 of them."""
    data, base, average = laws
    made, share = cascade_levels.exact(data, base, average, s)
    rng = np.random.default_rng(1)
    draw = lambda law: rng.multivariate_normal(law.mean, law.covariance, 400_000)
    low = draw(base)
    y = low + s * rng.standard_normal(low.shape)
    joint = draw(data)
    seen = joint @ average.T + s * rng.standard_normal(low.shape)
    gain = np.linalg.lstsq(seen - seen.mean(0), joint - joint.mean(0), rcond=None)[0]  # a regression, not the formula
    x = joint + (y - seen) @ gain
    np.testing.assert_allclose(x.mean(0), made.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), made.covariance, atol=0.03)
    assert cascade_levels.kept(x.reshape(-1, *FINE), low.reshape(-1, *COARSE)) == pytest.approx(share, abs=5e-3)


def test_noise_hides_the_base_s_faults_and_then_the_base(laws):
    data, base, average = laws
    made, shares = zip(*(cascade_levels.exact(data, base, average, s) for s in (0.0, 0.5, 1.0, 100.0)))
    far = [cascade_levels.distribution.frechet_distance(*law, *data) for law in made]
    assert far[0] > far[1] > far[2] > far[3] and far[3] < 1e-4 * far[0]
    assert shares[0] == pytest.approx(1) and shares[0] > shares[1] > shares[2] > shares[3] and shares[3] < 1e-3


def test_what_is_kept_of_pictures():
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((5000, 2, 2, 1))
    fine = coarse.repeat(2, 1).repeat(2, 2)
    assert cascade_levels.kept(fine + 7, coarse) == pytest.approx(1)
    assert cascade_levels.kept(-fine, coarse) == pytest.approx(-1)
    noisy = coarse + rng.standard_normal(coarse.shape)
    assert cascade_levels.kept(noisy.repeat(2, 1).repeat(2, 2), coarse) == pytest.approx(0.5**0.5, abs=0.02)


def test_scores_of_a_stage_that_repeats_pixels():
    """Bases of the pictures' own law: nothing is lost but what repeated pixels lack, and all of the base is kept."""
    rng = np.random.default_rng(0)
    grey = lambda count: np.asarray(rng.standard_normal((count, 4, 4, 1)), np.float32)
    known = cascade.Real(grey(4000), np.zeros(4000, int), grey(200), np.zeros(200, int))

    def draw(given, key, label):
        coarse = 0.5 * jax.random.normal(key, COARSE)
        return coarse, coarse.repeat(2, 0).repeat(2, 1)

    model = cascade.Model(0, 1, (), draw, lambda pictures, labels: 0.0)
    with jax.enable_x64(False):
        energy, recognised, far, ideal, kept, share = cascade_levels.scores(model, known, 2000, 0, 0.0)
    assert energy > 0.01 and recognised == 1 and kept == pytest.approx(1) and share == pytest.approx(1, abs=0.01)
    assert far == pytest.approx(12, rel=0.05)  # twelve of 16 directions have no variance
    assert ideal < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("table, flag", [("cascade_levels", "--noise=0,2"), ("cascade", "--level=2")])
def test_the_commands_define_their_flags_and_refuse_a_noise_beyond_what_is_taught(table, flag):
    done = forking.run([sys.executable, "-m", f"experiments.tables.{table}", flag], training_command.environment())
    name = flag.split("=")[0]
    assert done.returncode == 1 and "Traceback" not in done.stderr and f"error: {name} is " in done.stderr


@pytest.mark.slow
def test_every_level_is_drawn_from_the_same_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings.subprocess, "run", in_place_of_training(tmp_path))
    monkeypatch.setattr(cascade.runtime, "cache_folder", lambda: tmp_path / "xla")
    monkeypatch.setattr(stages, "HEUN", 3)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        given = published.values(cascade_levels.OPTIONS, True, models=str(tmp_path / "models"))
        found = cascade_levels.main(given)
        with pytest.raises(ValueError, match="--config is 'emoji', whose texts are captions"):
            cascade_levels.main(published.values(cascade_levels.OPTIONS, True, config="emoji"))
    assert len(list(tmp_path.glob("*.run"))) == 2 * 3 and (found.failed, found.whole) == (0, 4)
    rows = [line.split() for line in found.text.splitlines()[2:]]
    assert [row[0] for row in rows] == ["level", "0", "0.5"] and all(len(row) == 1 + 6 * 3 for row in rows[1:])
    shares = [float(row[16]) for row in rows[1:]]
    assert shares[0] > 0.99 > shares[1] > 0 and jnp.isfinite(jnp.asarray(shares)).all()
