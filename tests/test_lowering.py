"""Every method, sampler and operator lowers for TPUs and GPUs, and multiplies exactly there, as the text says.

At its default precision a TPU multiplies in bfloat16. What a method computes of states and measurements must not be
rounded so; a network may be.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from operators import test_battery, test_nonlinear_battery
from posterior.methods import METHODS
from registries import ANY_PROCESS, ISOTROPIC, PROCESSES, SAMPLERS

import diffinv as di
from diffinv import operators as ops
from diffinv import times
from diffinv.denoisers import exact

PLATFORMS = ["tpu", "cuda"]
SHAPE = (8, 8, 1)
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")
NETWORKS = {"deep_image_prior"}  # what it trains is a network


def exported(function, *arguments):
    """The text of the program for all platforms, without running it."""
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).mlir_module()


def rounded(text):
    """The products that a TPU would round, each once."""
    return sorted({line for line in PRODUCT.findall(text) if "HIGHEST" not in line})


def prior(process):
    law = exact.GaussianDenoiser(process, jnp.zeros(SHAPE), jnp.full(SHAPE, 0.3))
    return di.Prior(process, law, SHAPE)


def bits(key):
    """Keys have no form outside of a program."""
    return jax.random.wrap_key_data(key)


def test_a_product_at_default_precision_is_found():
    """Positive control, for a product of matrices and for a convolution."""
    x = jnp.zeros((4, 4))
    assert rounded(exported(lambda x: x @ x, x))
    assert not rounded(exported(lambda x: jnp.matmul(x, x, precision="highest"), x))
    picture, kernel = jnp.zeros((1, 8, 8, 1)), jnp.zeros((3, 3, 1, 1))
    layout = ("NHWC", "HWIO", "NHWC")
    convolved = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout)
    assert rounded(exported(convolved, picture, kernel))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "blind_dps"])
def test_a_method_lowers_and_multiplies_exactly(name):
    operator = ops.average_pool(SHAPE, 2)
    measurement = di.Measurement(operator, jnp.zeros((4, 4, 1)), di.GaussianNoise(0.1))

    def solve(key, prior, measurement):
        return di.as_solver(lambda m: METHODS[name](prior, m), times.grid(3))(bits(key), measurement).x

    text = exported(solve, jax.random.key_data(jax.random.key(0)), prior(di.process.VP()), measurement)
    assert name in NETWORKS or rounded(text) == []


KINDS = ("vp", "flow", "blurring")  # a scale for all, one that ends at 0, one for every frequency
PAIRS = [(name, kind) for name in SAMPLERS for kind in KINDS if kind in ISOTROPIC or name in ANY_PROCESS]


@pytest.mark.slow
@pytest.mark.parametrize("name, process", PAIRS)
def test_a_sampler_lowers_and_multiplies_exactly(name, process):
    draw = lambda key, prior: di.sample(bits(key), SAMPLERS[name](prior), times.grid(3)).x
    assert rounded(exported(draw, jax.random.key_data(jax.random.key(0)), prior(PROCESSES[process]))) == []


OPERATORS = {**test_battery.REGISTRY, **test_nonlinear_battery.REGISTRY}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_lowers_and_multiplies_exactly(name):
    """With its adjoint, and its inverse where it has one; a nonlinear one with the pull of its derivative."""

    def seen(operator, x):
        y = operator(x)
        if not isinstance(operator, ops.LinearOperator):
            return y, jax.vjp(operator, x)[1](y)
        return y, operator.adjoint(y), operator.solve(y, 0.1) if isinstance(operator, ops.base.ClosedForm) else ()

    operator = OPERATORS[name](0)
    assert rounded(exported(seen, operator, jnp.zeros(operator.shape))) == []
