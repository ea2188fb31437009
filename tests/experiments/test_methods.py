"""The table of methods: what is declared once is what the command, the lab, the help and the README all know."""

import ast
import re
from pathlib import Path

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import exact_lab, reconstruct
from diffinv import GaussianNoise, Measurement, gaussian, operators, process, schema
from experiments.lab import fields as lab_fields
from experiments.methods import lab, solvers
from experiments.methods.declared import Method, Tried, assuming, told
from experiments.methods.table import METHODS
from experiments.restore import fields
from experiments.restore.operators import OPERATORS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("field", "known"),
    [("task", OPERATORS), ("solver", METHODS), ("base", [name for name in METHODS if name != "reguidance"])],
)
def test_the_help_lists_what_the_tables_hold(field, known):
    text = schema.explain(fields.FIELDS, reconstruct.get_config(), "config")
    said = re.search(rf"--config\.{field}=.*?(?=\n--config)", text, re.S)[0]
    assert re.search(r"(?<= of )\w+, [\w, ]+$", said)[0].split(", ") == [*known]
    for name in known:
        assert fields.FIELDS[field].accepts(name)
    assert not fields.FIELDS[field].accepts("another")


def test_the_readme_lists_every_method_and_no_other():
    text = (ROOT / "README.md").read_text()
    rows = [re.search(rf"(?m)^\| {kind} \| (.*) \|$", text)[1] for kind in ("guidance", "solvers", "wrappers")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(METHODS) <= listed
    elsewhere = {
        "dps_score",
        "cfg",
        "autoguidance",
        "blind_dps",
    }  # parts of others, or not for pictures
    elsewhere |= {"warm_start", "best_of", "restarts", "account", "sweep"}  # around solvers, whatever these are
    assert listed - set(METHODS) == elsewhere


def test_the_lab_has_every_row_of_every_method_once():
    names = [name for method in METHODS.values() for name in method.tried]
    assert len(set(names)) == len(names) and list(lab.ROWS) == names
    assert all(method.tried or method.codes for method in METHODS.values())
    config = exact_lab.get_config()
    known = lab_fields.fields(config)["methods"]
    assert all(known.accepts(name) for name in names) and not known.accepts("another")


def test_a_row_gives_the_method_its_settings_and_the_value():
    build = lambda prior, m, **given: (prior, m, given)
    row = lab.row(Method("x", build, 1), Tried("eta", (0.5, 1.0), "exact", 7, {"form": "code"}))
    assert row[1:5] == ("eta", (0.5, 1.0), "exact", 7)
    assert row.build("prior", "m", 0.5) == ("prior", "m", {"form": "code", "eta": 0.5})


def test_settings_are_those_of_the_methods_own_section():
    """Another value in the section of a method reaches it."""
    config = reconstruct.get_config()
    for name, method in METHODS.items():
        own = dict(method.settings(config))
        for setting, value in own.items():
            if setting in method.fields and isinstance(value, float):
                changed = ConfigDict(config.to_dict())
                changed[name][setting] = value / 2
                assert method.settings(changed)[setting] == value / 2
    assert METHODS["mmps"].settings(config) == {"eta": 0.85, "sampler": "ddim", "steps": 50, "iterations": 4}


def test_what_a_method_is_told_of_the_noise_is_one_factor():
    m = Measurement(operators.identity((2,)), jnp.zeros(2), GaussianNoise(0.5))
    assert assuming(m, 3.0).sigma == 1.5
    build = told(lambda prior, m, **given: (m.sigma, given))
    assert build(None, m, eta=1) == (0.5, {"eta": 1}) and build(None, m, noise=0.5) == (0.25, {})


@pytest.mark.parametrize("name", METHODS)
def test_times_fall_from_at_most_one_to_zero_in_the_asked_steps(name):
    method, config = METHODS[name], reconstruct.get_config("smoke")
    config.steps = 12
    prior = gaussian(process.VP(), jnp.zeros(2), jnp.eye(2))
    grid = solvers.times_of(method, config, prior)
    steps = method.steps(config) if callable(method.steps) else 12
    assert 0 < grid[0] <= 1 and grid[-1] == 0
    if name != "repaint":  # which goes up again on its way
        held = 3 if name == "dpnp" else 0  # a quarter of its rounds are at its first level
        assert len(grid) == steps + 1 and (jnp.diff(grid) < 0)[held:].all() and not jnp.diff(grid)[:held].any()


def test_what_a_restored_picture_is_made_of_holds_all_the_code_of_its_methods():
    """Where a file of these changes, finished pictures are made again; the lab's rows are known by their programs."""
    text = (ROOT / "experiments" / "restore" / "part.py").read_text()
    code = set(ast.literal_eval(re.search(r"(?s)^CODE = (\(.*?\))$", text, re.M)[1]))
    rooms = {
        f"{room}/{path.name}" for room in ("methods", "restore") for path in (ROOT / "experiments" / room).glob("*.py")
    }
    assert code - {"common/pictures.py", "common/priors.py"} == rooms - {"methods/lab.py"}
