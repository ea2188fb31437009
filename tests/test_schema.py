"""Fields: what they accept, and the one line with which they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffinv import schema

FIELDS = {
    "zeta": schema.number("step of the gradient", above=0),
    "sigma_y": schema.number("noise", low=0, unit="on [-1, 1]"),
    "steps": schema.either(schema.exactly(0, "0 for the paper's"), schema.whole(low=2, high=10)),
    "task": schema.choices(["box", "blur"], "what is undone"),
    "name": schema.component("folder", empty=True),
    "daps": {"chain": schema.choice(["hmc", "langevin"]), "clip": schema.switch()},
    "levels": schema.several(schema.number(above=0), least=1, most=3),
}
GOOD = {"zeta": 1, "sigma_y": 0.0, "steps": 0, "task": "box, blur", "name": "", "levels": (0.1, 3)}
GOOD |= {"daps": {"chain": "hmc", "clip": True}}


def test_good_values_pass():
    assert not list(schema.refusals(FIELDS, GOOD, "config"))
    assert not list(schema.refusals(FIELDS, {"zeta": np.float32(0.5)}, "config", partial=True))


@pytest.mark.parametrize(
    "change, line",
    [
        ({"zeta": math.nan}, "config.zeta is nan; give a number above 0"),
        ({"zeta": 10**400}, "config.zeta is 1000"),
        ({"zeta": True}, "config.zeta is True; give a number above 0"),
        ({"sigma_y": -1}, "config.sigma_y is -1; give a number at least 0"),
        ({"steps": 1}, "config.steps is 1; give 0 for the paper's, or a whole number at least 2 and at most 10"),
        ({"steps": 2.0}, "config.steps is 2.0; give 0 for the paper's, or a whole number at least 2 and at most 10"),
        ({"task": "bix"}, "config.task is 'bix'; did you mean 'box'? give one or several, with commas, of box, blur"),
        ({"task": ""}, "config.task is ''; give one or several, with commas, of box, blur"),
        ({"task": "box,box"}, "config.task is 'box,box'; give one or several, with commas, of box, blur"),
        ({"name": "../x"}, "config.name is '../x'; give a name without a path, of at most 120 bytes"),
        ({"name": "a\nb"}, "config.name is 'a\\nb'; give a name without a path, of at most 120 bytes"),
        ({"daps": {"chain": "hmx", "clip": True}}, "config.daps.chain is 'hmx'; did you mean 'hmc'? give one of hmc"),
        ({"daps": 3}, "config.daps is 3; give a section with chain, clip"),
        ({"levels": []}, "config.levels is []; give a list of 1 to 3 values, each a number above 0"),
        ({"levels": [1, "2"]}, "config.levels is [1, '2']; give a list of 1 to 3 values, each a number above 0"),
        ({"zeta_": 1}, "config has no field 'zeta_'; did you mean 'zeta'? known are zeta,"),
    ],
)
def test_refusals_name_value_and_remedy(change, line):
    with pytest.raises(ValueError) as error:
        schema.require(FIELDS, GOOD | change)
    assert str(error.value).startswith(line)


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match=r"^card.daps is missing; give a section$"):
        schema.require(FIELDS, {key: value for key, value in GOOD.items() if key != "daps"}, "card")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(key=st.sampled_from(sorted(FIELDS)), value=ANYTHING)
def test_any_value_is_accepted_or_refused_in_one_line(key, value):
    lines = list(schema.refusals(FIELDS, GOOD | {key: value}, "config"))
    assert all(line.startswith("config") and "\n" not in line for line in lines)
    if key == "sigma_y":
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert (not lines) == (real and math.isfinite(value) and value >= 0)


def test_help_and_tables_come_from_the_declaration():
    helped, table = schema.explain(FIELDS, GOOD), schema.markdown(FIELDS, GOOD)
    assert "--config.sigma_y=0.0\n    noise; a number at least 0 (on [-1, 1])" in helped
    assert "| `config.zeta` | `1` | a number above 0 | step of the gradient |" in table
    assert helped.count("--config.") == table.count("| `config.") == 8


@pytest.mark.parametrize(
    "value, fits",
    [
        ("a/../b c", True),
        ("", True),
        ("caf\udce9", True),
        ("Screenshot 1.00\u202fPM.png", True),  # as macOS names them
        ("\u3000\u200d\xa0\xad\ue000", True),
        ("a\nb", False),
        ("a\0b", False),
        ("a\x85b", False),
        ("\ud800", False),
        ("x" * 4097, False),
        ("gs://bucket/run", False),
        ("s3:/bucket", False),
        ("file:///folder/run", False),
        ("C:/pictures", True),
        ("at 12:/30", True),
        (3, False),
    ],
)
def test_paths_are_any_name_that_a_file_may_have(value, fits):
    assert bool(schema.refusal(schema.path(), value, "--out")) != fits


@pytest.mark.parametrize(
    "field, written, value",
    [
        (schema.whole(), "3", 3),
        (schema.whole(), "3.0", "3.0"),
        (schema.number(), "1e-3", 1e-3),
        (schema.choice([1, 2]), "2", 2),
        (schema.choice(["a"]), "2", "2"),
        (schema.several(schema.whole()), "1,2", [1, 2]),
        (schema.several(schema.whole()), "1,x", [1, "x"]),
        (schema.several(schema.whole()), "", []),
        (schema.either(schema.exactly(0), schema.whole(low=2)), "0", 0),
        (schema.switch(), "true", True),
        (schema.switch(), "yes", "yes"),
    ],
)
def test_texts_of_the_command_line_become_values(field, written, value):
    found = schema.parsed(field, written)
    assert found == value and type(found) is type(value)
