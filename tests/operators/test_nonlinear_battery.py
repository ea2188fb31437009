"""One line in `REGISTRY` buys a nonlinear operator every check below."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.measurement import measure

PICTURE = (8, 10, 3)
STATIONS = np.array(list(itertools.combinations("ABCDE", 2)))


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, float)


def _array(seed):
    """Visibilities of a picture in [-1, 1], five stations at once."""
    uv = 0.2 * _normal(seed, len(STATIONS), 2)
    return ops.compose(ops.visibilities((6, 5, 1), uv, 1.0), ops.intensity((6, 5, 1), 0.1 + seed))


def _curve(x, gain):
    return jnp.tanh(gain.astype(x.dtype) * x)


REGISTRY = {
    "phase_retrieval": lambda seed: ops.phase_retrieval(PICTURE),
    "hdr": lambda seed: ops.high_dynamic_range(PICTURE, 2.0 + seed),
    "low_light": lambda seed: ops.low_light(PICTURE, 0.1 + 0.1 * seed),
    "nonlinear_blur": lambda seed: ops.nonlinear_blur(jax.random.key(seed), PICTURE, 2.0 + seed),
    "quantisation": lambda seed: ops.quantisation(PICTURE, 4 + seed),
    "jpeg": lambda seed: ops.jpeg(PICTURE, 30 + 10 * seed),
    "jpeg_cubic": lambda seed: ops.jpeg(PICTURE, 30 + 10 * seed, 1, "cubic"),
    "closure_phases": lambda seed: ops.closure_phases(_array(seed), np.zeros(10), STATIONS),
    "closure_amplitudes": lambda seed: ops.closure_amplitudes(_array(seed), np.zeros(10), STATIONS),
    "navier_stokes": lambda seed: ops.navier_stokes((8, 8, 1), reynolds=20.0 + 80 * seed, steps=3),
    "function": lambda seed: ops.function(_curve, PICTURE, jnp.asarray(0.5 + seed)),
    "stacked": lambda seed: ops.stack(ops.phase_retrieval(PICTURE), REGISTRY["hdr"](seed)),
    "scaled_chain": lambda seed: ops.scale(ops.compose(REGISTRY["hdr"](seed), ops.intensity(PICTURE, 0.5)), 1.0 + seed),
}
COMPLEX = {jnp.float32: jnp.complex64, jnp.float64: jnp.complex128}

every_operator = pytest.mark.parametrize("name", REGISTRY)


@functools.cache
def _pair(name):
    return [REGISTRY[name](seed) for seed in (0, 1)]


def _input(operator, seed):
    return 0.4 * _normal(seed, *operator.shape)


def _misfit(operator, x):
    return jnp.sum(jnp.sin(ops.as_real(operator(x))))


_many = jax.jit(jax.vmap(lambda operator, x: operator(x)))


@functools.cache
def _evidence(name):
    """What each of the two operators gives for its own picture, how often that was traced, and the program."""
    traces = []

    def use(operator, x):
        traces.append(type(operator))
        return operator(x), jax.grad(_misfit, 1)(operator, x)

    jitted = jax.jit(use)
    seen = [jitted(operator, _input(operator, seed)) for seed, operator in enumerate(_pair(name))]
    return seen, len(traces), jitted


@every_operator
@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)], ids=["float32", "float64"]
)
def test_keeps_precision(name, dtype):
    """Parameters and noise levels of either precision leave the input's in place, in the value and the gradient."""
    operator = _pair(name)[0]
    x = jax.ShapeDtypeStruct(operator.shape, dtype)
    y = jax.eval_shape(operator, x)
    assert y.dtype in (dtype, COMPLEX[dtype]) and y == ops.output(operator, dtype)
    for seen in (jax.eval_shape(operator.project, y), jax.eval_shape(measure, jax.random.key(0), operator, x, 0.1).y):
        assert (seen.shape, seen.dtype) == (y.shape, y.dtype)
    assert jax.eval_shape(jax.grad(_misfit, 1), operator, x) == x


@every_operator
def test_gradients_are_finite_and_alive(name):
    seen, _, jitted = _evidence(name)
    for y, gradient in seen:
        assert np.isfinite(y).all() and np.isfinite(gradient).all() and np.any(gradient)
    operator = _pair(name)[0]
    for part in jitted(operator, jnp.zeros(operator.shape)):
        assert np.isfinite(part).all()


@every_operator
def test_one_trace_and_parameters_count(name):
    """Other parameters are the same program, and give another measurement (a phase retrieval has none)."""
    seen, traces, jitted = _evidence(name)
    assert traces == 1
    first, second = _pair(name)
    if jax.tree.leaves(first):
        x = _input(first, 1)
        assert np.abs(np.asarray(jitted(first, x)[0]) - np.asarray(seen[1][0])).max() > 1e-3


@pytest.mark.slow
@every_operator
def test_parameters_vmap(name):
    seen, _, _ = _evidence(name)
    pair = _pair(name)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    x = jnp.stack([_input(operator, seed) for seed, operator in enumerate(pair)])
    together = _many(stacked, x)
    for i in (0, 1):
        np.testing.assert_allclose(together[i], seen[i][0], atol=1e-10)


@every_operator
def test_pytree_round_trip(name):
    operator = _pair(name)[0]
    leaves, structure = jax.tree.flatten(operator)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(operator) and again.shape == operator.shape
    seen, _, jitted = _evidence(name)
    np.testing.assert_allclose(jitted(again, _input(again, 0))[0], seen[0][0], atol=1e-12)
