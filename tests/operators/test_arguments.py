"""Whatever constructors and `measure` are given: an operator that is one, or one line with the argument's name."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffinv as di
import diffinv.operators as ops
from operators.dots import dot_gap

KEY, PICTURE, GREY = jax.random.key(0), (8, 8, 2), (8, 8, 1)
MASK = np.ones((8, 8, 1), np.float32)

GOOD = {
    ops.identity: {"shape": PICTURE},
    ops.inpainting: {"shape": PICTURE, "mask": MASK},
    ops.box_inpainting: {"shape": PICTURE, "top": 1, "left": 2, "size": 3},
    ops.random_box_inpainting: {"key": KEY, "shape": PICTURE, "size": 2, "margin": 1},
    ops.random_inpainting: {"key": KEY, "shape": PICTURE, "probability_masked": 0.7},
    ops.freeform_inpainting: {"key": KEY, "shape": PICTURE, "strokes": 2, "vertices": 2, "width": 0.1, "length": 0.3},
    ops.average_pool: {"shape": PICTURE, "factor": 2},
    ops.bicubic: {"shape": PICTURE, "factor": 2},
    ops.resize: {"shape": PICTURE, "size": (4, 6)},
    ops.grayscale: {"shape": PICTURE, "weights": (0.5, 0.5)},
    ops.blur: {"shape": PICTURE, "kernel": np.ones((3, 3)) / 9, "boundary": "circular", "threshold": 1e-3},
    ops.gaussian_blur: {"shape": PICTURE, "size": 5, "std": 1.0, "boundary": "circular", "threshold": 1e-3},
    ops.motion_blur: {"key": KEY, "shape": PICTURE, "size": 5, "intensity": 0.5, "threshold": 1e-3},
    ops.mri: {"mask": MASK[..., 0], "sensitivities": None},
    ops.parallel_beam: {"shape": GREY, "angles": np.arange(3) * 0.5, "bins": 8, "spacing": 1.0, "step": 0.5},
    ops.fan_beam: {"shape": GREY, "angles": np.arange(3) * 0.5, "source": 20.0, "fan": 0.5, "bins": 8, "step": 0.5},
    ops.compressed_sensing: {"key": KEY, "shape": PICTURE, "fraction": 0.5, "transform": "dct"},
    ops.gaussian_sensing: {"key": KEY, "shape": (3, 4), "fraction": 0.5},
    ops.non_cartesian_mri: {"size": (6, 6), "points": np.ones((3, 2)), "width": 4},
    ops.visibilities: {"shape": GREY, "uv": np.ones((3, 2)), "pixel": 1e-9},
    ops.inverse_scattering: {"shape": GREY, "transmitters": 3, "receivers": 4, "side": 0.2, "radius": 1.0},
    ops.navier_stokes: {"shape": GREY, "factor": 2, "reynolds": 100.0, "duration": 0.1, "steps": 2, "gain": 10.0},
    ops.phase_retrieval: {"shape": PICTURE, "oversample": 2.0, "padding": "factor"},
    ops.high_dynamic_range: {"shape": PICTURE, "gain": 2.0},
    ops.low_light: {"shape": PICTURE, "exposure": 0.2},
    ops.intensity: {"shape": PICTURE, "peak": 2.0},
    ops.nonlinear_blur: {"key": KEY, "shape": PICTURE, "contrast": 2.5, "size": 3, "std": 1.0},
    ops.quantisation: {"shape": PICTURE, "levels": 16},
    ops.jpeg: {"shape": GREY, "quality": 50, "subsampling": 2},
    ops.dense: {"matrix": np.ones((3, 4)), "shape": (4,)},
    ops.scale: {"operator": ops.identity(PICTURE), "gain": 2.0},
    ops.simulated_coils: {"size": (6, 6), "coils": 2, "width": 0.6},
    ops.cartesian_mask: {"key": KEY, "size": (6, 6), "acceleration": 2, "acs": 2, "axis": 1},
    ops.radial: {"spokes": 2, "samples": 4, "size": (6, 6)},
    ops.spiral: {"samples": 8, "turns": 2.0, "size": (6, 6)},
}
LIGHT = [make for make in GOOD if make not in (ops.freeform_inpainting, ops.gaussian_sensing, ops.motion_blur)]
ODD = [
    None, float("nan"), float("inf"), -float("inf"), -1, 0, 1, 2, 3, 2.5, 0.5, 70, 180.0, 255, 1001, 10**6, 1e30, True,
    "0.5", "circular", (), (8, 8), (8, 8, 3), (8, 0, 3), (-8, 8, 3), (2, 8, 8, 3), [8, 8, 1], KEY, jax.random.key(1),
    np.float32(0.5), np.int64(70), np.float64("nan"), jnp.float32(0.25), jnp.asarray(3), np.zeros((8, 8, 1)),
    np.full((8, 8, 1), np.nan), np.full((8, 8, 1), 255, np.uint8), np.full((8, 8), 255.0), np.zeros((3, 3)), np.eye(4),
    np.arange(180), np.ones(3, complex), np.ones((4, 4)), len, lambda x: x, ops.identity((3,)), {}, b"x", object(), 1j,
]  # fmt: skip


def _finite(made):
    leaves = [leaf for leaf in jax.tree.leaves(made) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)


def _tried(make, arguments):
    """What was made, or None where the refusal is one line that names an argument."""
    try:
        return make(**arguments)
    except (ValueError, TypeError) as error:
        text = str(error)
        known = (*inspect.signature(make).parameters, "sides", "kernel")
        assert any(text.startswith(name) or f", {name}" in text for name in known), f"{make.__name__}: {text}"
        assert "\n" not in text and "Traced" not in text and len(text) < 300, text
        return None


@st.composite
def _calls(draw):
    make = draw(st.sampled_from(LIGHT))
    changed = draw(st.lists(st.sampled_from(list(GOOD[make])), min_size=1, max_size=2, unique=True))
    return make, GOOD[make] | {name: ODD[draw(st.integers(0, len(ODD) - 1))] for name in changed}


@given(_calls())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_argument(call):
    """A finite operator whose output's shape is known, or a clear refusal."""
    made = _tried(*call)
    if made is not None:
        assert _finite(made)
        if isinstance(made, ops.Operator):
            ops.output(made)


@pytest.mark.slow
@pytest.mark.parametrize("make", [ops.inpainting, ops.mri, ops.grayscale, ops.dense, ops.blur, ops.resize])
def test_every_odd_value_alone(make):
    """All values in all places; what is accepted passes the dot test, once for each kind of program."""
    seen = set()
    for name in GOOD[make]:
        for value in ODD:
            made = _tried(make, GOOD[make] | {name: value})
            if isinstance(made, ops.LinearOperator) and _finite(made) and str(jax.tree.structure(made)) not in seen:
                seen.add(str(jax.tree.structure(made)))
                blind = not np.any(np.asarray(made(jnp.ones(made.shape))))
                assert blind or dot_gap(made) < 1e-6, (name, value)


A, X = ops.identity(PICTURE), jnp.zeros(PICTURE)
REFUSED = {
    "percent": (
        lambda: ops.random_inpainting(KEY, PICTURE, np.int64(70)),
        "probability_masked is 70; .*give a fraction",
    ),
    "degrees": (lambda: ops.parallel_beam(GREY, np.arange(180)), "angles reach 179; .*np.radians"),
    "bytes as a mask": (lambda: ops.inpainting(PICTURE, 255 * MASK), "mask reaches 255; .*mask > 0"),
    "swapped": (lambda: ops.inpainting(MASK, PICTURE), r"shape is an array, float32\[8,8,1\] .*swapped"),
    "no key": (lambda: ops.random_inpainting(0, PICTURE, 0.5), r"key is 0; give one key, jax.random.key\(0\)"),
    "several keys": (lambda: ops.motion_blur(jax.random.split(KEY), PICTURE), "key is .*vmap over several"),
    "wide": (lambda: ops.gaussian_blur(PICTURE, 5, float("inf")), "std is inf"),
    "bytes": (lambda: di.measure(KEY, A, np.zeros(PICTURE, np.uint8)), "x is uint8; .*x / 127.5 - 1"),
    "complex": (lambda: di.measure(KEY, A, X.astype(complex)), "x is complex.*as_real"),
    "holes": (lambda: di.measure(KEY, A, X * jnp.nan), "x has 128 values that are not finite"),
    "a batch": (lambda: di.measure(KEY, A, X[None]), r"x has shape \(1, 8, 8, 2\).*vmap over a batch"),
    "no sigma": (lambda: di.measure(KEY, A, X, float("nan")), "sigma is nan"),
    "below": (lambda: di.measure(KEY, A, X, np.float32(-1)), "sigma is -1.0"),
    "no light": (lambda: di.measure(KEY, A, X, noise=di.PoissonNoise(0.0)), "noise.peak is 0.0"),
    "a law's level": (lambda: di.measure(KEY, A, X, noise=di.GaussianNoise(-0.1)), "noise.sigma is -0.1"),
    "a number as a law": (lambda: di.measure(KEY, A, X, noise=0.1), "noise is 0.1; give a law"),
    "a function": (lambda: di.measure(KEY, lambda x: x, X), r"operator is .*operators.function\(f, shape\)"),
    "a matrix": (lambda: di.measure(KEY, np.eye(3), X), "operator is .*wrap a matrix, operators.linear"),
    "the order": (lambda: di.measure(KEY, X, A), "operator is .*key, operator, x"),
    "a part": (lambda: ops.stack(A, len), "operator is len; wrap it"),
    "outside": (lambda: ops.compose(len, A), "outer is len; wrap it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_to_do(name):
    make, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_functions_are_named_by_methods_too():
    """`Measurement` can be made by hand: the methods look before they use it."""
    prior = di.Prior(di.process.VP(), lambda x, t: x, PICTURE)
    measurement = di.Measurement(lambda x: x, X, di.GaussianNoise(0.1))
    for method in (di.posterior.dps, di.posterior.ddnm):
        with pytest.raises(TypeError, match="operator is .*wrap it: operators.function"):
            method(prior, measurement)


def test_traced_arguments_pass_and_a_bad_level_shows():
    """What only the run knows cannot be refused; a negative or undefined deviation makes every number NaN."""
    y = jax.jit(jax.vmap(lambda sigma: di.measure(KEY, A, X, sigma).y))(jnp.asarray([0.1, -0.1, jnp.nan]))
    assert np.isfinite(y[0]).all() and np.isnan(y[1:]).all()
    hidden = jax.jit(lambda p: ops.random_inpainting(KEY, PICTURE, p).mask)(0.25)
    assert hidden.sum() == 48
    with pytest.raises(ValueError, match="factor is traced; it is static"):
        jax.jit(lambda factor: ops.average_pool(PICTURE, factor)(X))(2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("made", [
    lambda: ops.blur(PICTURE, np.ones((3, 3)) / 9),
    lambda: ops.blur(PICTURE, np.ones((3, 3)) / 9, "reflect"),
    lambda: ops.mri(MASK[..., 0]),
    lambda: ops.phase_retrieval(PICTURE),
    lambda: ops.visibilities(GREY, np.ones((3, 2)), 1e-3),
])  # fmt: skip
def test_half_precision(made, dtype):
    """Transforms work in single precision; real outputs keep the input's type, complex ones have no half."""
    operator = made()
    y = jax.eval_shape(lambda x: di.measure(KEY, operator, x, 0.1).y, jax.ShapeDtypeStruct(operator.shape, dtype))
    assert y.dtype in (dtype, jnp.complex64)
