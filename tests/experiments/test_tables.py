"""The published tables: their exact laws against other linear algebra, their options and marks, and small runs."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import diffinv as di
from diffinv import linalg, operators, process, schema, times
from experiments.tables import (
    benchopt_gmm,
    bipsda,
    gfk,
    inversebench_navier_stokes,
    inversebench_scattering,
    mcgdiff_gmm,
    mixture18,
    published,
    tmpd_gmm,
    tuned,
)

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
ALL = [tmpd_gmm, mcgdiff_gmm, benchopt_gmm, gfk, inversebench_scattering, inversebench_navier_stokes]


def test_a_cell_is_mean_and_interval_of_what_is_finite():
    assert published.cell([1.0, 2.0, 3.0]) == "2.00 ± 1.13"
    assert published.cell([1.0, float("nan"), 3.0], 1) == "2.0 ± 2.0 (1 of 3 failed)"
    assert published.cell([1e6, 3e6]) == "2.0e+06 ± 2.0e+06"


def test_failures_are_counted_over_all_methods_and_runs():
    nan = float("nan")
    assert published.table("x", [[1.0, 2.0], (3.0,)]) == ("x", 0, 3)
    told = "x\n\n2 of 3 results failed, and are in no mean"
    assert published.table("x", [[1.0, nan], [float("inf")]]) == (told, 2, 3)
    assert published.table("", [])[1:] == (0, 0)


@pytest.mark.parametrize(("failed", "whole", "status"), [(0, 3, None), (1, 3, None), (3, 3, 2), (0, 0, None)])
def test_a_table_in_which_everything_failed_says_so_by_its_status(monkeypatch, capsys, failed, whole, status):
    monkeypatch.setattr(published.runtime, "flag", lambda name, default, field: SimpleNamespace(value=default))
    ends = []

    def started(main):
        try:
            ends.append(main())
        except SystemExit as end:
            ends.append(end.code)

    monkeypatch.setattr(published.runtime, "run", started)
    published.run(lambda options: published.Table("the text", failed, whole), {})
    said = capsys.readouterr()
    assert ends == [status] and said.out.startswith("the text")
    assert said.err.count("\n") == (status == 2) == said.err.startswith("error: all 3 results failed")


def test_the_spread_of_the_runs_leaves_out_those_that_failed():
    assert benchopt_gmm.spread([1.0, float("nan"), 3.0]) == "[1.00..3.00]" and benchopt_gmm.spread([np.nan]) == ""


def test_a_method_that_fails_in_every_run_is_counted(monkeypatch):
    """The whole of a table: a row whose samples are NaN, and another one."""
    step = lambda key, x, t, s: (x, None)
    for name, v in (("TMPD", np.nan), ("DPS", 0.0)):
        row = lambda prior, m, v=v: di.Sampler(lambda key, t, x: jnp.full(8, v), step, lambda key, x: x)
        monkeypatch.setitem(tmpd_gmm.ROWS, name, row)
    small = {"samples": 3, "steps": 30, "seeds": 2, "directions": 2, "measured": [1], "methods": ["TMPD", "DPS"]}
    text, failed, whole = tmpd_gmm.main(published.values(tmpd_gmm.OPTIONS, True, **small))
    assert (failed, whole) == (2, 4) and "nan ± nan (2 of 2 failed)" in text and "2 of 4 results failed" in text


def test_columns_are_as_wide_as_their_widest_cell():
    assert published.columns([("a", "bb", "c"), ("aaaa", "", "d")]) == "a     bb  c\naaaa      d"


def test_an_unverified_number_never_stands_without_its_mark():
    assert published.told(published.Told("32.60", False)) == "32.60 (unverified)"
    assert published.told(published.Told("32.60", True)) == "32.60"
    assert published.told(None) == "not at hand"


def test_what_is_given_beats_quick_and_quick_beats_the_default():
    field = published.counted("", 9)
    options = {"a": (1, 2), "b": (3, None), "c": (5, 6)}
    options = {name: published.Option(*pair, field) for name, pair in options.items()}
    assert vars(published.values(options, True, c=7)) == {"a": 2, "b": 3, "c": 7}
    assert vars(published.values(options)) == {"a": 1, "b": 3, "c": 5}


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.__name__.split(".")[-1])
def test_a_misspelt_row_names_the_nearest(table):
    name = next(iter(table.ROWS))
    with pytest.raises(ValueError, match=re.escape(f"did you mean {name!r}")):
        table.main(published.values(table.OPTIONS, True, methods=[name + "x"]))


def test_the_tables_refuse_what_has_no_meaning():
    for table in (tmpd_gmm, mcgdiff_gmm):
        with pytest.raises(ValueError, match="even"):
            table.main(published.values(table.OPTIONS, True, dims=[3]))
        with pytest.raises(ValueError, match="at most as many"):
            table.main(published.values(table.OPTIONS, True, dims=[2], measured=[3]))


def test_every_row_of_the_flow_can_be_built():
    """At any of its values, on the nonlinear operator: a row that cannot would end a table whose others are done."""
    table = inversebench_navier_stokes
    prior = table.field(4)
    operator = table.operators.navier_stokes(prior.shape, 2, steps=2, gain=table.GAIN)
    measurement = table.di.Measurement(operator, np.zeros((2, 2, 1)), table.di.GaussianNoise(0.1))
    for name, row in table.ROWS.items():
        for value in row.values:
            sampler = row.build(prior, measurement, value)
            assert isinstance(sampler, table.di.typing.Sampler), name


@pytest.mark.slow
def test_a_flow_without_noise_is_measured_and_what_is_printed_of_it_stands_beside():
    """The truth's residual is 0: nothing was added; methods without a derivative run, and one is told a deviation."""
    table = inversebench_navier_stokes
    options = published.values(table.OPTIONS, True, side=8, noises=[0.0], seeds=2, methods=["EKI", "DPG"])
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        found = table.main(options)
    assert (found.failed, found.whole) == (0, 4)
    truth = next(line for line in found.text.splitlines() if line.startswith("truth"))
    assert truth.split()[1] == "0.000" and truth.split()[4] == "0.00"
    for name, number in table.PUBLISHED.items():
        assert name not in options.methods or f"{number:.3f} (unverified)" in found.text
    assert table.theirs("EKI", 2, 1.0) == table.theirs("EKI", 4, 0.0) == table.theirs("DPS", 2, 0.0) == "not at hand"


def written(value):
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("table", [*ALL, bipsda], ids=lambda table: table.__name__.split(".")[-1])
def test_every_option_takes_its_defaults_and_no_nonsense(table):
    """As the command line writes them: nothing, nan, zero (but an offset), a negative count, a huge one, a word."""
    for name, option in table.OPTIONS.items():
        assert option.field.meaning and "give" not in option.field.wanted
        for value in (option.default, option.quick):
            assert value is None or option.field.accepts(schema.parsed(option.field, written(value))), name
        free = {"offsets": ("0", "-1", "1" + 12 * "0"), "noises": ("0",) if table is inversebench_navier_stokes else ()}
        for text in {"", "nan", "inf", "zzz", "1,,2", "0", "-1", "1" + 12 * "0"} - {*free.get(name, ())}:
            huge = name in ("sigma", "noises") and text.startswith("1000")
            assert huge or not option.field.accepts(schema.parsed(option.field, text)), (name, text)


def test_a_row_named_twice_is_one_row():
    assert published.rows("methods", ["b", " a", "b"], ["a", "b"]) == ["b", "a"]


def test_tmpds_law_is_the_oracles():
    """25 equally likely unit components at the corners of 8 Z^2, singular values below 1."""
    law, A, y = tmpd_gmm.instance(np.random.default_rng(0), 8, 2, 0.5)
    assert sorted(map(tuple, law.means[:, :2])) == [(8 * i, 8 * j) for i in range(-2, 3) for j in range(-2, 3)]
    assert np.linalg.norm(A, 2) < 1
    shares, laws = oracle.mixture_posterior(law.means, law.weights, np.ones(25), A, y, 0.5)
    mean, _ = tmpd_gmm.bayes(law, A, y, 0.5).moments()
    np.testing.assert_allclose(mean, sum(share * each.mean for share, each in zip(shares, laws)), atol=1e-9)


def test_mcgdiffs_grid_takes_equal_steps_in_alpha_to_an_exact_end():
    process = mixture18.table(float)
    grid = np.asarray(jax.jit(lambda: mcgdiff_gmm.even(process, 10))())
    steps = np.diff(np.asarray(process.alpha(jnp.asarray(grid))))
    np.testing.assert_allclose(steps, (1 - float(process.alpha(1.0))) / 10, rtol=1e-9)
    assert grid[-1] == 0 and abs(grid[0] - 1) < 1e-9


def test_mcgdiffs_remembered_numbers_stand_at_their_cells_with_their_mark():
    assert mcgdiff_gmm.remembered("DDRM", (8, 1)) == "5.88 (unverified)"
    assert mcgdiff_gmm.remembered("DPS", (80, 2)) == "5.10 (unverified)"
    assert mcgdiff_gmm.remembered("MCGDiff", (800, 4)) == "0.47 (unverified)"
    assert mcgdiff_gmm.remembered("DDRM", (2, 1)) == "not at hand"


def test_mcgdiffs_particles_are_drawn_by_weight_and_the_others_run_once_a_sample(monkeypatch):
    """A sampler whose state is its two particles, or its noise: the shares of the draws are the weights."""
    weights = jnp.log(jnp.asarray([0.25, 0.75]))
    draw = lambda key, state: state[jax.random.categorical(key, weights)]
    step = lambda key, state, t, s: (state, None)
    cloud = di.Sampler(lambda key, t, x: jnp.asarray([[0.0], [1.0]]), step, draw)
    alone = di.Sampler(lambda key, t, x: jax.random.normal(key, (1,)), step, lambda key, state: state)
    monkeypatch.setitem(mcgdiff_gmm.ROWS, "TDS", lambda prior, m, n: cloud)
    monkeypatch.setitem(mcgdiff_gmm.ROWS, "DPS", lambda prior, m, n: alone)
    drawn, ran = (
        np.asarray(mcgdiff_gmm.program(name, 4000, times.grid(1))(jax.random.key(0), None, None))
        for name in ("TDS", "DPS")
    )
    assert drawn.shape == ran.shape == (4000, 1) and abs(drawn.mean() - 0.75) < 5 * np.sqrt(0.1875 / 4000)
    assert len(np.unique(ran)) == 4000


def test_benchopts_published_values_are_those_of_the_reproduction():
    """The same repetitions, there by their range alone."""
    for name, value in benchopt_gmm.PUBLISHED.items():
        mean, low, high = map(float, re.findall(r"[\d.]*\d", value.value.replace("..", " ")))
        _, least, most, _ = mixture18.ROWS[name]
        assert low < mean < high and value.verified
        np.testing.assert_allclose([low, high], [least, most], atol=0.051)


def test_another_measurement_of_the_frozen_mixture_has_its_own_posterior():
    """Of the same operator and noise: seen through it, its samples scatter by sigma about the other y."""
    measurement, samples = mixture18.another(np.random.default_rng(0), 4000, float)
    seen, y = samples @ mixture18.A, float(measurement.y[0])
    assert y != mixture18.Y and abs(y - seen.mean()) < mixture18.SIGMA and float(measurement.sigma) == mixture18.SIGMA
    np.testing.assert_allclose(seen.std(), mixture18.SIGMA, rtol=0.1)


def test_a_tuned_row_takes_the_value_that_is_nearest_elsewhere():
    options = published.values(benchopt_gmm.OPTIONS, reference=50)
    target = mixture18.another(np.random.default_rng(2), 50)[1]
    run = lambda seed, measurement, value: target + value if value else np.full((40, 8), np.nan)
    assert benchopt_gmm.tuned(run, (0.0, 3.0, 0.1, 1.0), options) == 0.1


def test_the_noisy_process_is_their_ornstein_uhlenbeck():
    """`alpha = exp(-T)` and unit total variance, T = 2 at the end."""
    t = np.linspace(0.1, 1.0, 4)
    np.testing.assert_allclose(gfk.OU.alpha(t), np.exp(-2 * t), rtol=1e-12)
    np.testing.assert_allclose(gfk.OU.sigma(t) ** 2, 1 - np.exp(-4 * t), rtol=1e-12)


def test_the_outlier_lies_its_offset_away_from_what_the_prior_predicts():
    law, A, y, sigma = gfk.instance(np.random.default_rng(1), 5, 10.0)
    near = gfk.instance(np.random.default_rng(1), 5, 0.0)
    np.testing.assert_allclose([y - near[2], near[2]], [[10.0], A @ law.moments()[0]], rtol=1e-12)
    assert np.linalg.norm(A) < sigma < np.hypot(np.linalg.norm(A), 1)
    values = np.linalg.eigvalsh(law.covariances)
    np.testing.assert_allclose(values[:, :4], 1.0)
    assert (values[:, 4] > 1).all()


def test_the_paths_widths_are_their_recursion():
    """`Omega_{k+1} = a^2 (F_k F_k^T 2 dt + Omega_k) + 1 - a^2`, `F_k = a^k A`, from `sigma_y^2 I`, a = exp(-dt)."""
    A, variance, dt = np.array([[0.3, -0.8], [0.5, 0.1]]), 0.2, 0.02
    omega, F = variance * np.eye(2), A
    for _ in range(50):
        omega = np.exp(-2 * dt) * (F @ F.T * 2 * dt + omega) + (1 - np.exp(-2 * dt)) * np.eye(2)
        F = np.exp(-dt) * F
    w, d = gfk.path_widths(gfk.OU, variance, 50 * dt / 2)
    np.testing.assert_allclose(w * A @ A.T + d * np.eye(2), omega, atol=1e-12)


@pytest.mark.slow
def test_zhaos_particles_have_the_posteriors_moments():
    """One Gaussian component: what is left is the chain's own error, which falls with the steps."""
    law, A, y, sigma = gfk.instance(np.random.default_rng(3), 2, 3.0)
    law = gfk.Law(np.ones(1), law.means[:1], law.covariances[:1])
    prior = gfk.exact_prior(law, gfk.OU)
    measurement = di.Measurement(operators.dense(jnp.asarray(A)), jnp.asarray(y), di.GaussianNoise(jnp.asarray(sigma)))
    count, grid = 4000, times.grid(200)

    def run(key):
        sampler = gfk.auxiliary(prior, measurement, count)
        draws = lambda key, state: (state.x, state.log_weights)
        return di.sample(key, sampler._replace(final=draws), grid).x

    x, log_weights = jax.jit(run)(jax.random.key(0))
    weights = np.exp(log_weights - np.max(log_weights))
    mean = np.average(x, axis=0, weights=weights)
    exact = oracle.gaussian_posterior(law.means[0], law.covariances[0], A, y, sigma)
    size = weights.sum() ** 2 / (weights**2).sum()
    np.testing.assert_allclose(mean, exact.mean, atol=5 * np.sqrt(np.diag(exact.covariance).max() / size))
    np.testing.assert_allclose(np.cov(x.T, aweights=weights), exact.covariance, atol=0.1 * exact.covariance.max())


@pytest.fixture(scope="module")
def scattering():
    A, sigma = inversebench_scattering.matrix(6, 360)
    return A, sigma, inversebench_scattering.exact(A, sigma, inversebench_scattering.spectrum(6))


def test_the_scattering_posterior_is_the_oracles(scattering):
    A, sigma, law = scattering
    rng = np.random.default_rng(0)
    y = A @ (law.white @ rng.standard_normal(36)) + sigma * rng.standard_normal(len(A))
    exact = oracle.gaussian_posterior(np.zeros(36), law.white @ law.white.T, A, y, sigma)
    np.testing.assert_allclose(law.white @ law.mean(y / sigma), exact.mean, atol=1e-8)
    z = np.stack([law.sample(rng, y / sigma) for _ in range(4000)])
    assert max(oracle.moment_errors(z @ law.white.T, exact)) < 5
    distances = [law.distance(each, y / sigma) for each in z]
    assert abs(np.mean(distances) - 1) < 5 * np.sqrt(2 / 36 / 4000)


def test_the_scattering_field_is_the_gaussian_field(scattering):
    """`white` is the square root of the prior's own covariance; a pixel's variance is 1/4 on average."""
    _, _, law = scattering
    variances = inversebench_scattering.spectrum(6)
    x = np.random.default_rng(0).standard_normal((6, 6, 1))
    wanted = jax.jit(lambda x: linalg.idct_hw(variances * linalg.dct_hw(x)))(jnp.asarray(x)).ravel()
    np.testing.assert_allclose(law.white @ law.white.T @ x.ravel(), wanted, atol=1e-10)
    assert abs(np.trace(law.white @ law.white.T) / 36 - 0.25) < 1e-10


def test_the_scattering_is_the_operator_but_for_its_small_singular_values():
    """At a side of 16 an eighth of everything; the rows are orthogonal, the largest has norm 1."""
    A, sigma = inversebench_scattering.matrix(16, 180)
    raw = operators.inverse_scattering((16, 16, 1), 3, round(180 / 8), side=0.18 / 8)
    norm = np.sqrt(np.linalg.eigvalsh(_gram(raw)).max())
    np.testing.assert_allclose(sigma, 1e-4 / 8 / np.sqrt(2) / (0.5 * norm), rtol=1e-6)
    rest = np.linalg.eigvalsh(_gram(raw) / norm**2 - A.T @ A)
    assert -1e-8 < rest.min() and rest.max() < (10 * 1e-4 / 8 / norm) ** 2 * (1 + 1e-6)
    np.testing.assert_allclose(A @ A.T, np.diag(np.diag(A @ A.T)), atol=1e-12)


def _gram(operator):
    columns = np.asarray(jax.vmap(operator)(jnp.eye(256).reshape(-1, *operator.shape))).reshape(256, -1)
    return (columns.conj() @ columns.T).real


def test_the_flows_field_is_stationary_on_the_torus():
    prior = inversebench_navier_stokes.field(8)
    basis, variance = np.asarray(prior.denoise.basis), np.asarray(prior.denoise.variance)
    np.testing.assert_allclose(basis.T @ basis, np.eye(64), atol=1e-12)
    covariance = ((basis * variance) @ basis.T).reshape(8, 8, 8, 8)
    np.testing.assert_allclose(covariance[3, 6], np.roll(covariance[0, 0], (3, 6), (0, 1)), atol=1e-12)
    np.testing.assert_allclose([covariance[0, 0, 0, 0], covariance[0, 0].sum()], [0.25, 0], atol=1e-12)


def test_the_mode_of_a_linear_measurement_is_the_posteriors_mean():
    table = inversebench_navier_stokes
    prior = table.field(4)
    basis, variance = np.asarray(prior.denoise.basis), np.asarray(prior.denoise.variance)
    rng = np.random.default_rng(0)
    A, y = rng.standard_normal((3, 16)), rng.standard_normal(3)
    measurement = di.Measurement(operators.dense(jnp.asarray(A), (4, 4, 1)), jnp.asarray(y), di.GaussianNoise(0.1))
    found = table.mode(prior, measurement, jax.jit(jax.value_and_grad(table._energy, 2)))
    exact = oracle.gaussian_posterior(np.zeros(16), (basis * variance) @ basis.T, A, y, 0.1)
    np.testing.assert_allclose(found.ravel(), exact.mean, atol=1e-5)


def test_the_value_that_is_reported_was_chosen_on_others():
    """Noise scaled by the knob: the score likes 1.0 on the two held fields, whatever the third would say."""
    method = tuned.Row(lambda prior, m, v: di.samplers.ddim(prior, v), "eta", (0.0, 0.5, 1.0), "biased", 2)
    prior = di.gaussian(process.VP(), jnp.zeros(2), jnp.eye(2))
    seen, wanted = [], iter([3.0, 2.0, 1.0, 3.0, float("nan"), 0.5])
    score = lambda x, i: seen.append(i) or next(wanted)
    bar = type("Bar", (), {"update": lambda self: None})()
    y = jnp.asarray(np.zeros((6, 2)))
    found = tuned.outcome(method, prior, operators.dense(jnp.eye(2)), 1.0, y, 2, score, bar)
    assert seen == [0, 0, 0, 1, 1, 1] and found.value == 1.0 and found.samples.shape == (4, 2)
    assert tuned.calls(method, 6, 2) == 4


def test_a_sample_that_diverged_is_not_finite():
    """The guard freezes it at a finite state; the table must not take that for a result."""
    method = tuned.Row(
        lambda prior, m, v: di.posterior.dps(prior, m, v, di.posterior.rewards.square), "zeta", (0.0, 1e200), "", 8
    )
    prior = di.gaussian(process.VP(), jnp.zeros(2), jnp.eye(2))
    bar, measured = type("Bar", (), {"update": lambda self: None})(), []
    score = lambda x, i: measured.append(x) or float(np.sum(x))
    found = tuned.outcome(method, prior, operators.dense(jnp.eye(2)), 1.0, jnp.ones((3, 2)), 1, score, bar)
    assert np.isfinite(measured[0]).all() and np.isnan(measured[1]).all() and found.value == 0.0


SMALL = {
    tmpd_gmm: {"dims": [2], "samples": 40, "steps": 40, "methods": ["TMPD"]},
    mcgdiff_gmm: {"samples": 40, "methods": ["DDRM", "DAPS", "DDSMC"]},
    benchopt_gmm: {"samples": 40, "methods": ["ddrm", "tds 32 tuned"]},
    gfk: {"dim": 2, "particles": 64, "offsets": [0.0], "methods": ["aux"]},
    inversebench_scattering: {"side": 8, "seeds": 2, "methods": ["DDRM"]},
    inversebench_navier_stokes: {"side": 8, "seeds": 2, "methods": ["DPS"]},
}
TOLD = {mcgdiff_gmm: ["5.88"], inversebench_scattering: ["32.60", "32.13"]}
"""The unverified numbers of the small runs; the other tables have none, or benchopt's, which are verified."""


@pytest.mark.slow
@pytest.mark.parametrize("table", ALL, ids=lambda table: table.__name__.split(".")[-1])
def test_a_small_run_prints_the_table(table):
    text, failed, whole = table.main(published.values(table.OPTIONS, True, **SMALL[table]))
    assert failed == 0 < whole
    assert re.search(r"\d ± \d", text) and "nan" not in text and "failed" not in text
    assert re.findall(r"([\d.]+) \(unverified\)", text) == TOLD.get(table, [])
    assert ("not at hand" in text) == (table not in (*TOLD, benchopt_gmm))
    assert ("29.68 [26.89..33.06]" in text) == (table is benchopt_gmm)


def test_the_readme_lists_every_table_and_each_has_its_page():
    """A table is a module with a command; what several share has none."""
    modules = [path for path in (ROOT / "experiments" / "tables").glob("*.py") if "\ndef main(" in path.read_text()]
    told = re.search(r"`python -m experiments\.tables\.NAME`\s\((.*?)\)", (ROOT / "README.md").read_text(), re.S)[1]
    assert sorted(re.findall(r"`(\w+)`", told)) == sorted(path.stem for path in modules)
    recipes = {path.stem for path in (ROOT / "configs" / "tables").glob("*.py")} - {"defaults"}
    pages = {path.stem for path in (ROOT / "docs" / "tables").glob("*.md")}
    assert {path.stem for path in modules} <= pages <= {path.stem for path in modules} | recipes
