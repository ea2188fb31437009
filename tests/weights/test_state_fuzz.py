"""Any change of a public state dict, or of the fields beside it, imports or is one line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parity import CASES, CONFIG, FIELDS, SCHEDULER, drawn

from diffinv.weights.convert import diffusers, edm


@pytest.fixture(scope="module")
def states():
    return {name: (drawn(name)[2].state, CASES[name][2]) for name in CASES}


def changed(state, kind, name, other):
    """One tensor lost, renamed, of another shape or kind, or another's."""
    state = dict(state)
    value = state.pop(name)
    made = {
        "lost": {},
        "flat": {name: value.ravel()},
        "scalar": {name: np.float32(1)[()]},
        "empty": {name: value[:0]},
        "longer": {name: np.concatenate([value, value])},
        "transposed": {name: value.T},
        "nan": {name: value * np.float32(np.nan)},
        "text": {name: np.array("x")},
        "renamed": {f"{name}.x": value},
        "bare": {name.split(".")[0]: value},
        "deeper": {name.replace("0", "7"): value},
        "extra": {name: value, "x": value},
        "swapped": {name: state[other] if other in state else value},
    }[kind]
    return {**state, **{key: np.asarray(value) for key, value in made.items()}}


KINDS = "lost flat scalar empty longer transposed nan text renamed bare deeper extra swapped".split()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_any_changed_tensor(states, data):
    state, imported = states[data.draw(st.sampled_from(sorted(states)))]
    kind, names = data.draw(st.sampled_from(KINDS)), st.sampled_from(sorted(state))
    state = changed(state, kind, data.draw(names), data.draw(names))
    try:
        imported(state)
    except ValueError as error:
        assert "\n" not in str(error)


ATOMS = st.sampled_from([None, True, 0, -1, 2**40, 0.5, float("nan"), "", "x", [], [1], {}, [[]]])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_any_changed_field(states, data):
    """Of config.json, scheduler_config.json and EDM's fields."""
    told = [dict(CONFIG), dict(SCHEDULER), dict(FIELDS)]
    chosen = data.draw(st.sampled_from(told))
    chosen[data.draw(st.sampled_from(sorted(chosen)))] = data.draw(ATOMS)
    told = json.loads(json.dumps(told))
    for call in (
        lambda: diffusers.imported(states["diffusers"][0], told[0], told[1]),
        lambda: edm.imported(states[next(name for name in states if name.startswith("edm"))][0], told[2]),
    ):
        try:
            call()
        except ValueError as error:
            assert "\n" not in str(error)
