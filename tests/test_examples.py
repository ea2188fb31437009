"""The examples run as they stand, and print what they are there to show."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffinv as di

FOLDER = Path(__file__).parents[1] / "examples"


def ran(name, *arguments, **named):
    """What the example's `main` returns, under the settings of a user's own script."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return runpy.run_path(str(FOLDER / name))["main"](*arguments, **named)


def test_each_has_a_test_here():
    told = Path(__file__).read_text()
    assert [path.name for path in FOLDER.glob("*.py") if f'ran("{path.name}"' not in told] == []


@pytest.fixture
def white_prior(monkeypatch):
    """White pictures of variance 0.25, whose denoiser is known, in place of the priors that ship."""
    prior = lambda path, process=None, shape=(64, 64, 3), **_: di.gaussian_field(
        process or di.process.VP(), jnp.zeros(shape), jnp.full((*shape[:2], 1), 0.25)
    )
    monkeypatch.setattr(di.weights, "load_prior", prior)


def shows(folder, name):
    """Whether the example has left its picture, with something in it."""
    return np.asarray(Image.open(folder / f"{name}.png")).std() > 1


def test_an_onnx_file_and_a_numpy_operator_give_intervals_that_hold():
    """The prior's deviation is 0.5; four problems of 64 pixels, which depend on each other."""
    share, width = ran("own_network.py", problems=4)
    assert 0.82 < share < 0.97 and 0.1 < width < 0.35


@pytest.mark.slow
def test_own_solver_is_near_the_posterior_and_mmps_nearer(tmp_path):
    errors = ran("own_solver.py", str(tmp_path))
    assert shows(tmp_path, "own_solver")
    assert errors["mmps"] < 0.02 and errors["mmps"] < errors["ddnm_plus"] < errors["null_space"] < 0.1


def test_own_operator_is_fitted_to_its_noise(tmp_path):
    assert ran("own_operator.py", str(tmp_path)) == pytest.approx(0.05, abs=0.03)
    assert shows(tmp_path, "own_operator")


def test_a_sweep_tells_every_value_and_its_cost(tmp_path):
    errors, cost = ran("sweep.py", str(tmp_path))
    assert shows(tmp_path, "sweep")
    assert errors.shape == (4,) and len(set(errors.tolist())) == 4
    assert (cost.nfe, cost.vjps, cost.calls) == (100, 100, 200)


@pytest.mark.slow
def test_wild_noise_is_told_by_its_own_law(tmp_path):
    errors = ran("own_noise.py", str(tmp_path))
    assert errors["Student"] < 0.25 < errors["Gaussian"] and shows(tmp_path, "own_noise")


@pytest.mark.slow
def test_the_exact_sampler_is_calibrated_and_dps_is_not(tmp_path):
    curves = ran("calibration.py", str(tmp_path), problems=60)
    assert abs(curves["MMPS"][36] - 0.9) < 0.12 and curves["DPS"][36] < 0.7 > curves["DDNM"][36] - 0.1
    assert shows(tmp_path, "calibration")


def test_a_slice_of_few_lines_is_completed(white_prior, tmp_path):
    scores = ran("mri.py", str(tmp_path), steps=4)
    assert set(scores) == {"zero-filled", "total variation", "DDNM+"} and shows(tmp_path, "mri")
    assert scores["total variation"] > scores["zero-filled"] + 3


def test_magnitudes_are_fitted_by_the_best_run(white_prior, tmp_path):
    scores = ran("phase_retrieval.py", str(tmp_path), 3, 2, (3,))
    assert len(scores) == 1 and 5 < scores[0] < 40 and shows(tmp_path, "phase_retrieval")


@pytest.mark.slow
def test_a_detailed_picture_tells_the_shake(tmp_path):
    found, scores = ran("blind_deblurring.py", str(tmp_path), 10, 6)
    assert scores["restored"] > scores["blurred"] + 3
    assert found == 3 and scores["restored"] > scores["by another shake"] and shows(tmp_path, "blind_deblurring")


@pytest.mark.slow
def test_one_step_is_nearer_to_digits_than_noise(tmp_path):
    pytest.importorskip("sklearn")
    distances = ran("consistency.py", str(tmp_path), 240)
    assert max(distances["one step"], distances["two steps"]) < distances["noise"] / 2
    assert shows(tmp_path, "consistency")


@pytest.mark.slow
def test_a_box_is_filled_through_a_decoder(tmp_path):
    scores = ran("latent.py", str(tmp_path), 40)
    assert scores["decoded"] > 35 and min(scores["latent DPS"], scores["PSLD"]) > 15 and shows(tmp_path, "latent")


def test_a_table_is_paired(white_prior, tmp_path, capsys):
    found = ran("table.py", str(tmp_path), 3, 4)
    assert found.shape == (3, 3) and np.isfinite(found).all() and shows(tmp_path, "table")
    assert "| DDRM |" in capsys.readouterr().out


def test_a_photograph_is_restored_from_coarse_to_fine(white_prior, tmp_path):
    """Under white pictures, whose posterior has nothing to gain from a coarser one."""
    scores = ran("cascade.py", str(tmp_path), (8, 16), 12)
    assert set(scores) == {"cascade", "dps"} and all(5 < value < 30 for value in scores.values())
    picture = np.asarray(Image.open(tmp_path / "cascade.png"))
    assert picture.shape == (16, 5 * 16, 3)  # truth, measurement, two stages, DPS alone
    coarse = picture[:, 32:48].reshape(8, 2, 8, 2, 3)
    assert (coarse == coarse[:, :1, :, :1]).all()


def white(path):
    """A consistency model that makes of noise white pictures of variance 0.09, whatever the label."""

    def network(params, x, condition, label):
        return params * x

    forward = di.process.EDM()
    denoise = di.NetworkDenoiser(jnp.float32(0.6), forward, network, "boundary", extra={"label": 0.5})
    return di.Prior(forward, denoise, (16, 16, 1))


def test_terrains_are_sampled_filled_and_enlarged(monkeypatch, tmp_path):
    """A linear generator: in the void the most likely code is 0, and elsewhere it is that of the measurement.

    ReGuidance keeps it, as the codes' own flow stands still and guidance sees nothing of what is not measured.
    """
    monkeypatch.setattr(di.weights, "load_prior", white)
    found = ran("terrain.py", "", tmp_path, "baseline", "map_in_codes", "reguidance_in_codes", steps=100)
    assert {path.name for path in tmp_path.iterdir()} == {
        "terrain_samples.png",
        "terrain_void.png",
        "terrain_x4.png",
    }
    once = jnp.asarray([1.0, 0.0], jnp.float32)
    drawn = jax.random.split(jax.random.key(3), 3)[0]
    truth = np.asarray(di.sample(drawn, di.samplers.renoise(white("")), once).x)
    void, flat = np.zeros((16, 16, 1)), truth.reshape(4, 4, 4, 4, 1)
    void[5:11, 5:11] = truth[5:11, 5:11]
    lost = {"void": np.mean(void**2), "x4": np.mean((flat - flat.mean((1, 3), keepdims=True)) ** 2)}
    for task, error in lost.items():
        for name in ("map_in_codes", "reguidance_in_codes"):
            assert found[task, name] == pytest.approx(10 * np.log10(4 / error), abs=0.5), name
        assert found[task, "baseline"] < found[task, "map_in_codes"]


def test_no_method_starts_at_the_code_of_the_terrain_it_is_to_find(monkeypatch, tmp_path):
    """After three steps of Adam, of 1/16 at most, a start at the truth's code would be within 0.3 * 3/16 of it."""
    monkeypatch.setattr(di.weights, "load_prior", white)
    found = ran("terrain.py", "", tmp_path, "map_in_codes", steps=1)
    leaked = 10 * np.log10(4 / (0.3 * 3 / 16) ** 2)
    assert all(value < leaked - 10 for value in found.values())
