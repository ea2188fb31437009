"""The exact lab: its posteriors against other linear algebra, its verdicts on right and wrong methods, its command."""

import json
import os
import sys

import forking
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from training_command import FLAGS

import diffinv as di
from configs.exact_lab import get_config
from diffinv import process
from experiments.lab import judge, levy
from experiments.lab import page as lab_page
from experiments.lab import problems as lab_problems
from experiments.methods import lab
from experiments.tables import mcgdiff_gmm

ROWS, DRAWS = 3, 64


@pytest.fixture(scope="module")
def problems():
    make = lambda name: lab_problems.PROBLEMS[name](np.random.default_rng(0), ROWS, DRAWS, process.VP())
    return {name: make(name) for name in ("gaussian8", "mixture8")}


def row(problem, i):
    measurement = jax.tree.map(lambda leaf: leaf[i], problem.measurements)
    return oracle.matrix(measurement.operator), np.asarray(measurement.y), float(measurement.sigma)


def test_gaussian_posterior_is_the_oracles(problems):
    problem = problems["gaussian8"]
    denoise = problem.prior.denoise
    basis = np.asarray(denoise.basis)
    covariance = (basis * np.asarray(denoise.variance)) @ basis.T
    for i in range(ROWS):
        law = oracle.gaussian_posterior(np.asarray(denoise.mean), covariance, *row(problem, i))
        np.testing.assert_allclose(problem.mean[i], law.mean, atol=1e-9)
        np.testing.assert_allclose(problem.covariance[i], law.covariance, atol=1e-9)


def test_mixture_posterior_is_the_oracles(problems):
    problem = problems["mixture8"]
    denoise = problem.prior.denoise
    means, weights = np.asarray(denoise.means), np.exp(np.asarray(denoise.log_weights))
    for i in range(ROWS):
        shares, laws = oracle.mixture_posterior(means, weights, np.ones(25), *row(problem, i))
        mean = sum(share * law.mean for share, law in zip(shares, laws))
        np.testing.assert_allclose(problem.mean[i], mean, atol=1e-8)


def test_exact_samples_have_the_posteriors_moments():
    law = lab_problems.Law(
        np.array([0.3, 0.7]), np.array([[0.0, 1.0], [4.0, -1.0]]), np.stack([np.eye(2), np.eye(2) / 4])
    )
    mean, covariance = law.moments()
    samples = law.sample(np.random.default_rng(1), 40_000)
    assert max(oracle.moment_errors(samples, oracle.Law(mean, covariance))) < 5


def test_the_tables_exact_samples_are_the_posteriors():
    """MCGDiff's table samples it by one shared gain; here component by component."""
    rng = np.random.default_rng(2)
    means, weights, A, sigma = mcgdiff_gmm.instance(rng, 8, 2)
    y = A @ means[12] + 0.3
    prior = lab_problems.Law(weights, means, np.broadcast_to(np.eye(8), (25, 8, 8)))
    mean, covariance = lab_problems.posterior(prior, A, y, sigma).moments()
    samples = mcgdiff_gmm.exact(rng, means, weights, A, sigma, y, 40_000)
    assert max(oracle.moment_errors(samples, oracle.Law(mean, covariance))) < 5


def test_a_field_hidden_by_its_box_keeps_the_priors_variance_there():
    problem = lab_problems.field(np.random.default_rng(0), 1, 4, process.VP(), side=8)
    variance = problem.covariance[0].reshape(8, 8)
    assert variance[3:5, 3:5].min() > 3 * variance[0].max() and problem.covariance.shape == (1, 64)


def laplace_posterior(z, s, scale):
    """Moments of `u ~ Laplace(scale)` seen as `z = u + s n`, by the sum over a fine grid: (mean, variance)."""
    u = np.linspace(-30 * scale, 30 * scale, 600_001)
    logs = -np.abs(u) / scale - 0.5 * ((z - u) / s) ** 2
    w = np.exp(logs - logs.max())
    mean = np.sum(w * u) / np.sum(w)
    return mean, np.sum(w * (u - mean) ** 2) / np.sum(w)


def test_the_increments_denoiser_is_the_conditional_mean_and_its_slope_the_variance():
    """Tweedie's second formula: `dE/dx = alpha / sigma^2 Var`. From nearly no noise to nearly no signal."""
    denoise = levy.LaplaceDenoiser(process.VP(), 0.7)
    both = jax.jit(jax.vmap(jax.value_and_grad(lambda x, t: denoise(x, t))))
    for t in (1.0, 0.5, 0.1, 0.01):
        alpha, sigma = float(denoise.process.alpha(t)), float(denoise.process.sigma(t))
        x = np.array([-3.0, 0.01, 0.8, 2.5])
        exact = np.array([laplace_posterior(each / alpha, sigma / alpha, 0.7) for each in x])
        mean, slope = both(jnp.asarray(x), jnp.full(4, t))
        np.testing.assert_allclose(mean, exact[:, 0], rtol=1e-5, atol=2e-7)
        np.testing.assert_allclose(slope * sigma**2 / alpha, exact[:, 1], rtol=1e-2 if t == 1 else 1e-5, atol=1e-7)


def test_gibbs_has_the_posteriors_moments():
    """Two decoupled increments, one seen well and one badly: each has the moments of its own sum."""
    A, y, sigma = np.array([[[2.0, 0.0], [0.0, 0.5]]]), np.array([[1.5, -1.0]]), 0.8
    u = levy.gibbs(np.random.default_rng(0), A, y, sigma, 0.7, chains=400, keep=25, thin=4).reshape(-1, 2)
    exact = np.array([laplace_posterior(z, sigma / a, 0.7) for z, a in ((0.75, 2.0), (-2.0, 0.5))])
    errors = (u.mean(0) - exact[:, 0]) / np.sqrt(exact[:, 1] / 10_000)
    assert np.abs(errors).max() < 4
    np.testing.assert_allclose(u.var(0), exact[:, 1], rtol=0.05)


def test_a_levy_process_is_measured_at_its_places():
    problem = lab_problems.levy(np.random.default_rng(0), 2, 8, process.VP(), length=12, seen=4)
    assert problem.exact.shape == problem.other.shape == (2, 8, 12) and problem.covariance.shape == (2, 12, 12)
    sums = np.cumsum(problem.truth, 1)
    for i in range(2):
        A, y, _ = row(problem, i)
        assert {0.0, 1.0} == set(A.round(9).ravel()) and (np.diff(A.sum(1)) > 0).all()
        np.testing.assert_allclose(A @ problem.truth[i], sums[i][A.sum(1).round().astype(int) - 1], atol=1e-9)
        assert np.abs(y - A @ problem.truth[i]).max() < 5 * 0.3
        assert np.linalg.norm(y - A @ problem.mean[i]) < 0.3 * 4 * np.sqrt(4)


def test_a_problem_may_have_numbers_and_methods_of_its_own():
    config = get_config()
    plain, field = (lab_problems.settings(config, which) for which in ("gaussian8", "field"))
    assert plain.draws == 256 and not plain.methods
    assert field.draws == 64 and set(field.methods.split(",")) < set(lab.ROWS)
    config.methods = "DPS"
    assert lab_problems.settings(config, "field").methods == "DPS" and set(config.reduced) < set(lab_problems.PROBLEMS)


def samples(problem, name, value):
    solver = lab.solver(lab.ROWS[name], problem.prior, value)
    draw = lambda key, m: jax.vmap(lambda k: solver(k, m).x)(jax.random.split(key, DRAWS))
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), ROWS), problem.measurements))


@pytest.mark.slow
def test_it_tells_an_exact_method_from_a_biased_one(problems):
    problem, config = problems["gaussian8"], {"projections": 50}
    config = type("Config", (), config)
    found = {
        name: judge.summary(samples(problem, *each), np.arange(ROWS), problem, config)
        for name, each in {"right": ("MMPS", 1.0), "wrong": ("DPS", 0.01)}.items()
    }
    exact = judge.floor(problem, np.arange(ROWS), config)
    assert found["right"]["w1"][0] < 1.2 * exact["w1"][0]
    assert found["wrong"]["w1"][0] > 1.5 * exact["w1"][0]


@pytest.mark.parametrize("value", [np.nan, 1e200])
def test_a_sample_that_diverged_gives_no_number(problems, value):
    x = problems["gaussian8"].exact[0].copy()
    assert np.isfinite(list(judge.judged(x, 0, problems["gaussian8"], 10).values())).all()
    x[3, 2] = value
    assert np.isnan(list(judge.judged(x, 0, problems["gaussian8"], 10).values())).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", lab.ROWS)
def test_every_method_builds_and_tells_its_cost(problems, name):
    """One sample of each, two steps long."""
    method = lab.ROWS[name]._replace(steps=2)
    problem = problems["gaussian8"]
    measurement = jax.tree.map(lambda leaf: leaf[0], problem.measurements)
    value = jnp.asarray(method.values[len(method.values) // 2])
    solver = di.posterior.account(lab.solver(method, problem.prior, value))
    shape = jax.eval_shape(solver, jax.random.key(0), measurement)
    assert shape.x.shape == (8,) and shape.info.cost.nfe.dtype == jnp.int32


def test_curves_of_exact_samples_are_the_diagonal_and_narrow_ones_lie_below():
    """120 problems of a Gaussian posterior; half as wide, half the regions of credibility 0.5 miss their truth."""
    many, rows = lab_problems.PROBLEMS["gaussian8"](np.random.default_rng(1), 120, 20, process.VP()), np.arange(120)
    right = judge.covered(many.other, rows, many)
    narrow = judge.covered(many.mean[:, None] + 0.5 * (many.other - many.mean[:, None]), rows, many)
    for name in ("tarp", "hpd"):
        assert len(right[name]) == len(judge.CREDIBILITIES) and right["problems"] == 120
        np.testing.assert_allclose(right[name], judge.CREDIBILITIES, atol=4.5 * 0.5 / np.sqrt(120))
        assert narrow[name][10] < 0.3 and narrow[name][-1] == 1
    spoilt = many.other.copy()
    spoilt[3] = np.nan
    assert judge.covered(spoilt, rows, many)["problems"] == 119
    assert judge.covered(spoilt[3:4], rows[3:4], many) == {"problems": 0, "tarp": [], "hpd": []}


def line(method, w1, nfe, diverged=0.0):
    pair = (w1, 0.1)
    return {
        "method": method, "claim": "biased" if nfe else "floor", "knob": "eta" if nfe else "", "value": 0.5,
        "w1": pair, "tuning": {"0.5": w1, "1.0": float("inf")}, "diverged": diverged, "nfe": nfe, "vjps": 0,
        "calls": 7 * nfe, "compile_s": 1.0, "run_s": 2.0, "ranks": [3, 1],
        "covered": {"problems": 3 * (w1 == w1), **dict.fromkeys(("tarp", "hpd"), judge.CREDIBILITIES)},
        **{name: pair for name in lab_page.COLUMNS if name != "w1"},
    }  # fmt: skip


def test_the_page_orders_by_error_and_says_what_failed():
    names = {"wild": (0.15, 10, 0.25), "good <b>": (0.2, 100), "bad": (float("nan"), 10, 1.0)}
    names |= {"exact samples": (0.1, 0)}
    lines = {name: line(name, *values) for name, values in names.items()}
    page = lab_page.page({"settings": {"rows": 3}, "problems": {"toy": lines}}, {"toy": "about <toy>"}, "cmd & more")
    places = [page.index(f"{name}</th>") for name in ("exact samples", "good &lt;b&gt;", "wild", "bad")]
    assert places == sorted(places)
    assert (
        ">700</td>" in page
        and "not finite" in page
        and "25.0 %" in page
        and "cmd &amp; more" in page
        and "about &lt;toy&gt;" in page
    )
    assert page.count("<title>TARP</title>") == page.count("<title>HPD</title>") == 3 < page.count("<th>")
    text = lab_page.text(lines).splitlines()
    assert [each.split("  ")[0] for each in text[1:]] == ["exact samples", "good <b>", "wild", "bad"]


def test_what_diverged_is_counted_and_a_run_of_nothing_else_has_failed():
    lines = {name: {"diverged": share} for name, share in {"exact samples": 0.0, "a": 0.0, "b": 0.5}.items()}
    told, failed = lab_page.diverged({"toy": lines, "other": {"b": {"diverged": 1.0}}})
    assert told == "samples diverged in 2 of 3 rows: toy: b, other: b" and not failed
    assert lab_page.diverged({"toy": {name: lines[name] for name in ("exact samples", "a")}}) == ("", False)
    only = {"exact samples": {"diverged": 0.0}, "a": {"diverged": 1.0}}
    assert lab_page.diverged({"toy": only})[1] and lab_page.diverged({"toy": {}}) == ("", False)


@pytest.mark.slow
def test_the_command_leaves_a_page_and_goes_on_where_it_was(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.exact_lab",
        "--config=configs/exact_lab.py:smoke",
        f"--out={tmp_path}",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}
    run = lambda *more: forking.run([*command, *more], env)
    done = run("--config.methods=MMPS")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "exact_lab_smoke" / "results.json").read_text())
    first = results["problems"]["gaussian8"]["MMPS"]
    assert first["diverged"] == 0 and first["w1"][0] < 1.3 * results["problems"]["gaussian8"]["exact samples"]["w1"][0]
    again = run("--config.methods=MMPS,DDRM")
    assert again.returncode == 0 and "DDRM" in again.stdout, again.stderr
    results = json.loads((tmp_path / "exact_lab_smoke" / "results.json").read_text())
    assert results["problems"]["gaussian8"]["MMPS"] == first
    assert "</html>" in (tmp_path / "exact_lab_smoke" / "index.html").read_text()
    wrong = run("--config.methods=MMPZ")
    assert wrong.returncode != 0 and "did you mean 'MMPS'" in wrong.stderr and "Traceback" not in wrong.stderr
