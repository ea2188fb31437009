"""The examples in the docstrings of the central types, under the settings of a user's own script."""

import doctest
import importlib

import jax
import pytest

CENTRAL = ("typing", "process.base", "prior", "measurement", "operators.base", "loop", "posterior.wrappers")


@pytest.mark.parametrize("name", CENTRAL)
def test_they_print_what_they_say(name):
    module = importlib.import_module(f"diffinv.{name}")
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = doctest.testmod(module)
    assert found.attempted > 3 and found.failed == 0
