"""The lab's choice of a hyperparameter and the rows it keeps: every value is tried, and nothing finished is lost."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.exact_lab import get_config
from diffinv import process, samplers
from experiments.lab import bench as lab_bench
from experiments.lab import judge, problems
from experiments.lab import rows as lab_rows
from experiments.methods import lab
from experiments.methods.lab import Row

VALUES = (0.3, 3.0, 0.1, 0.0, 0.5, 2.0, 0.9, 0.05)


def settings(**given):
    config = {"seed": 0, "rows": 4, "tuning_rows": 2, "draws": 4, "projections": 10, "methods": ""}
    return ConfigDict({**config, **given})


@pytest.mark.parametrize("best", [0, 3, 7])
def test_every_value_is_tried_on_every_tuning_row(best):
    """Whichever wins is found, though 8 values on 3 rows are 24 tries: more than any one call needs to hold."""
    exact = np.random.default_rng(0).standard_normal((5, 40, 3))
    away = np.roll([0.0, 1, 2, 3, 4, 5, 6, 7], best)
    tried = []

    def program(rows, values):
        tried.extend(zip(rows.tolist(), values.tolist()))
        return np.stack([exact[r] + away[VALUES.index(v)] for r, v in zip(rows, values)]), None

    program = type("Program", (), {"__call__": staticmethod(program), "problem": SimpleNamespace(exact=exact)})()
    value, errors = lab_bench.tuned(program, Row(None, "", VALUES, ""), settings(tuning_rows=3))
    assert value == VALUES[best] and np.isfinite(errors).all() and np.argmin(errors) == best
    assert sorted(tried) == sorted((r, v) for r in range(3) for v in VALUES)


def plain(prior, measurement, value):
    return samplers.ddim(prior, value)


@pytest.fixture(scope="module")
def problem():
    return problems.gaussian8(np.random.default_rng(0), 6, 4, process.VP())


def test_any_number_of_rows_runs_through_a_program_of_a_few(problem):
    """The same samples whatever the program's own number of rows: 9 rows by 4 and by 9."""
    method = Row(plain, "eta", VALUES, "biased", 2)
    rows, values = np.arange(9) % 6, np.linspace(0, 1, 9)
    found = []
    for count in (4, 9):
        program = lab_bench.Program(method, problem, settings(rows=count))
        assert program.compile() > 0
        found.append(program(rows, values))
    (x, account), (other, _) = found
    assert x.shape == (9, 4, 8) and account.diverged.shape == (9, 4) and len(np.unique(x)) == x.size
    np.testing.assert_allclose(x, other, atol=1e-12)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Two methods, whose runs are counted in the place of sampling."""
    methods = {name: Row(plain, "eta", VALUES, "biased", 2) for name in ("one", "two")}
    for module in (lab_bench, lab):
        monkeypatch.setattr(module, "ROWS", methods)
    runs = []

    def row_of(name, program, rows, config):
        runs.append(name)
        return {"method": name, "made": len(runs)}

    monkeypatch.setattr(lab_bench, "row_of", row_of)
    make = lambda **given: lab_bench.Bench("gaussian8", settings(**given), lab_rows.Rows(tmp_path))
    return SimpleNamespace(make=make, methods=methods, runs=runs, folder=tmp_path)


def test_a_row_is_kept_by_its_settings_and_its_code(bench):
    """Back at the first settings, or the first code, the first row is there again; what is new is named."""
    first, word = bench.make().line("one")
    assert word == "" and bench.make().line("one") == (first, "")
    other, word = bench.make(draws=5).line("one")
    assert other != first and "one was run again" in word
    assert bench.make().line("one") == (first, "")
    bench.methods["one"] = Row(lambda prior, m, v: samplers.ddim(prior, 0.5 * v), "eta", VALUES, "biased", 2)
    changed, word = bench.make().line("one")
    assert changed["made"] == 3 and "its code" in word
    bench.methods["one"] = bench.methods["two"]
    assert bench.make().line("one") == (first, "")
    assert bench.make(seed=10**30).line("one")[0]["made"] == 4 and bench.runs == ["one"] * 4
    assert bench.make().line("one", fresh=True)[0]["made"] == 5


def test_a_run_of_other_methods_loses_no_row(bench):
    """The page of the second run holds the first one's row; one of other settings does not."""
    mine, theirs = bench.make(), bench.make()
    lines = {name: line for name, line, _ in mine.lines(["one"], False)}
    assert dict((n, line) for n, line, _ in theirs.lines(["two"], False)) and theirs.others(["two"]) == lines
    assert bench.make(draws=5).others(["two"]) == {} and theirs.others(["one", "two"]) == {}


@pytest.mark.parametrize("content", ['{"method":', "3", ""])
def test_a_damaged_row_is_made_again(bench, content):
    bench.make().line("one")
    next(bench.folder.rglob("*.json")).write_text(content)
    row, word = bench.make().line("one")
    assert row["made"] == 2 and "run again" in word


def test_a_digest_tells_values_types_and_shapes_apart():
    parts = [1, 1.0, "1", np.ones(1), np.ones(1, np.float32), np.ones((1, 1)), jnp.zeros(1), (1, 2), ("1", "2"), "12"]
    assert len({lab_rows.digest(part) for part in parts}) == len(parts)
    assert lab_rows.digest(10**40, judge) == lab_rows.digest(10**40, judge) != lab_rows.digest(10**40)


@pytest.mark.slow
def test_pigdm_is_tuned_to_the_same_weight_with_few_rows_as_with_many():
    """Its likelihood's own weight wins, and is the fifth of eight values: few rows may not hide it."""
    method, config = lab.ROWS["PiGDM likelihood"], get_config()
    problem = problems.gaussian8(np.random.default_rng([0, 0]), 27, 64, process.VP())
    for rows in (20, 24):
        own = settings(**{name: config[name] for name in ("tuning_rows", "projections")}, rows=rows, draws=64)
        program = lab_bench.Program(method, problem, own)
        program.compile()
        value, errors = lab_bench.tuned(program, method, own)
        assert value == 1.0 and np.isfinite(errors).all()
