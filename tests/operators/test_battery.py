"""One line in `OPERATORS` buys every check below, in float32 and float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from diffinv.measurement import measure

pytestmark = pytest.mark.long

KERNEL = jnp.asarray([[0.02, 0.05, 0.03], [0.08, 0.7, 0.04], [0.01, 0.05, 0.02]])
PICTURE = (8, 6, 3)


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, float)


def _multicoil(seed):
    mask = ops.cartesian_mask(jax.random.key(seed), (6, 6), 2, 2)
    coils = _normal(seed, 4, 6, 6), _normal(seed + 10, 4, 6, 6)
    return ops.mri(mask, jax.lax.complex(*coils))


def _dense(seed, m, n):
    return ops.dense(_normal(seed, m, n), (n,))


def _gained(x, gain):
    return gain.astype(x.dtype) * x[::-1]


def _scaled_stack(seed):
    plain = ops.linear(jax.random.key(seed), _gained, (4, 2), jnp.abs(_normal(seed, 4, 2)) + 0.3)
    return ops.scale(ops.stack(plain, REGISTRY["dense_complex"](seed)), 1.5 - 4 * seed)


REGISTRY = {
    "identity": lambda seed: ops.identity(PICTURE),
    "mask": lambda seed: ops.inpainting(PICTURE, _normal(seed, *PICTURE) > 0),
    "weights": lambda seed: ops.inpainting(PICTURE, jnp.abs(_normal(seed, 8, 6, 1)) + 0.3),
    "box_inpainting": lambda seed: ops.box_inpainting(PICTURE, top=1 + seed, left=2, size=3),
    "random_box_inpainting": lambda seed: ops.random_box_inpainting(jax.random.key(seed), PICTURE, 2, 1),
    "random_inpainting": lambda seed: ops.random_inpainting(jax.random.key(seed), PICTURE, 0.6),
    "freeform_inpainting": lambda seed: ops.freeform_inpainting(jax.random.key(seed), PICTURE, width=0.3),
    "average_pool": lambda seed: ops.average_pool(PICTURE, 2),
    "bicubic": lambda seed: ops.bicubic(PICTURE, 2),
    "resize_up_and_down": lambda seed: ops.resize(PICTURE, (5, 9)),
    "grayscale": lambda seed: ops.grayscale(PICTURE, jnp.abs(_normal(seed, 3)) + 0.1),
    "circular_blur": lambda seed: ops.blur(PICTURE, KERNEL + 0.02 * seed),
    "circular_blur_even": lambda seed: ops.blur((7, 6, 2), KERNEL[:2] + 0.02 * seed),
    "gaussian_blur": lambda seed: ops.gaussian_blur(PICTURE, 5, 0.6 + 0.1 * seed),
    "motion_blur": lambda seed: ops.motion_blur(jax.random.key(seed), (9, 11, 1), 5, threshold=0.0),
    "reflect_blur": lambda seed: ops.blur(PICTURE, KERNEL + 0.02 * seed, "reflect"),
    "mri": lambda seed: ops.mri(ops.cartesian_mask(jax.random.key(seed), (6, 7), 3, 2)),
    "mri_multicoil": _multicoil,
    "real_mri": lambda seed: ops.real_mri(ops.cartesian_mask(jax.random.key(seed), (6, 7), 3, 2)),
    "real_mri_gains": lambda seed: ops.real_mri(jnp.maximum(_normal(seed, 4, 6), 0.0)),
    "real_mri_multicoil": lambda seed: ops.Composed(_multicoil(seed), ops.RealPicture((6, 6, 1))),
    "real_picture": lambda seed: ops.RealPicture((3, 4, 1)),
    "dense_wide": lambda seed: _dense(seed, 4, 9),
    "dense_tall": lambda seed: _dense(seed, 9, 4),
    "dense_deficient": lambda seed: ops.dense(_normal(seed, 6, 3) @ _normal(seed + 5, 3, 8), (2, 4)),
    "dense_complex": lambda seed: ops.dense(jax.lax.complex(_normal(seed, 3, 8), _normal(seed + 5, 3, 8)), (4, 2)),
    "subsampled": lambda seed: ops.compressed_sensing(jax.random.key(seed), (8, 4, 2), 0.5),
    "rays": lambda seed: ops.parallel_beam((4, 3, 2), np.arange(9) * 0.35 + 0.1 * seed, 6),
    "non_cartesian_mri": lambda seed: ops.non_cartesian_mri((4, 3), _normal(seed, 24, 2), width=None),
    "visibilities": lambda seed: ops.visibilities((4, 3, 1), 0.3 * _normal(seed, 24, 2), 1.0),
    "scattering": lambda seed: ops.inverse_scattering((3, 4, 1), 4, 5, 1.0, 2.0, 1.0 + 0.1 * seed),
    "scaled_stack": _scaled_stack,
    "composed": lambda seed: ops.Composed(REGISTRY["mask"](seed), ops.blur(PICTURE, KERNEL)),
}


def _cast(operator, dtype):
    """The operator with its parameters in the precision of `dtype`."""
    return jax.tree.map(lambda a: a.astype(COMPLEX[dtype] if jnp.iscomplexobj(a) else dtype), operator)


def _builder(make):
    return functools.cache(lambda dtype, seed=0: _cast(make(seed), dtype))


OPERATORS = {name: _builder(make) for name, make in REGISTRY.items()}
COMPLEX = {jnp.float32: jnp.complex64, jnp.float64: jnp.complex128}
TOLERANCE = {jnp.float32: 3e-5, jnp.float64: 1e-10}

SLOW = {"rays", "non_cartesian_mri", "visibilities", "scattering"}  # to compile; their own tests have the dot test
TWINS = {  # of another operator here, by their code
    "weights", "random_box_inpainting", "random_inpainting", "resize_up_and_down", "circular_blur_even",
    "gaussian_blur", "dense_wide", "dense_deficient", "mri",
}  # fmt: skip
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW | TWINS else name for name in OPERATORS]
CASES = [  # a twin is another's code: one precision is enough
    pytest.param((name, dtype), marks=pytest.mark.slow if single or name in SLOW | TWINS else (), id=f"{name}-{label}")
    for dtype, label, single in ((jnp.float64, "float64", False), (jnp.float32, "float32", True))
    for name in OPERATORS
    if not (single and name in TWINS)
]

every_operator = pytest.mark.parametrize("name", NAMES)


def _flat(y):
    return np.asarray(ops.as_real(y), np.float64).ravel()


def _drawn(seed, shape, dtype):
    """Standard normal, drawn by NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def _input(operator, dtype, seed=3):
    return _drawn(seed, operator.shape, dtype)


def _output(operator, dtype, seed=4):
    """A random array of the output's shape and dtype, out of the range where there is an outside."""
    like = jax.eval_shape(operator, jax.ShapeDtypeStruct(operator.shape, dtype))
    assert like.dtype in (dtype, COMPLEX[dtype])
    if jnp.iscomplexobj(like):
        return ops.as_complex(_drawn(seed, (*like.shape, 2), dtype))
    return _drawn(seed, like.shape, dtype)


def _misfit(x, operator, y):
    return 0.5 * jnp.sum(ops.as_real(y - operator(x)) ** 2)


_forward = jax.jit(lambda operator, x: operator(x))
_adjoint = jax.jit(lambda operator, y: operator.adjoint(y))
_default_adjoint = jax.jit(ops.LinearOperator.adjoint)
_gradient = jax.jit(jax.grad(_misfit))
_solve = jax.jit(lambda operator, v, damping: operator.solve(v, damping), static_argnums=2)
_pinv = jax.jit(lambda operator, y: operator.pinv(y))
_project = jax.jit(lambda operator, y: operator.project(y))
_measured = jax.jit(lambda operator, x, sigma: measure(jax.random.key(0), operator, x, sigma).y, static_argnums=2)


def _apply_everything(operator, x, y):
    """All that the operator can do to one input and one output, by one small program for each thing that it can do."""
    forward, pinv, project = _forward(operator, x), _pinv(operator, y), _project(operator, y)
    forward_pinv, noise = _forward(operator, pinv), _measured(operator, x, 0.5) - forward
    return {
        "x": x,
        "y": y,
        "forward": forward,
        "combined": _forward(operator, 2.5 * x - pinv),
        "forward_pinv": forward_pinv,
        "zero": _forward(operator, jnp.zeros_like(x)),
        "adjoint": _adjoint(operator, y),
        "default_adjoint": _default_adjoint(operator, y),
        "gradient": _gradient(x, operator, y),
        "normal_residual": _adjoint(operator, forward - y),
        "solve_range": _solve(operator, forward, 0.0),
        "solve_damped": _solve(operator, y, 0.3),
        "pinv": pinv,
        "pinv_forward_pinv": _pinv(operator, forward_pinv),
        "forward_pinv_forward": _forward(operator, _pinv(operator, forward)),
        "project": project,
        "project_twice": _project(operator, project),
        "noise": noise,
        "project_noise": _project(operator, noise),
        "noiseless": _measured(operator, x, 0.0),
    }


@functools.cache
def _evidence(name, dtype):
    """`_apply_everything` to three random pairs, and the matrix of columns `A e_j`: (2m, n) for a complex A."""
    operator = OPERATORS[name](dtype)
    x = jnp.stack([_input(operator, dtype, seed) for seed in range(3)])
    y = jnp.stack([_output(operator, dtype, seed) for seed in range(10, 13)])
    n = int(np.prod(operator.shape))
    columns = jax.vmap(_forward, (None, 0))(operator, jnp.eye(n, dtype=dtype).reshape(n, *operator.shape))
    seen = jax.vmap(_apply_everything, (None, 0, 0))(operator, x, y)
    return operator, np.asarray(ops.as_real(columns), np.float64).reshape(n, -1).T, seen


class Checks:
    """Comparisons of one operator's evidence, relative to the size of what is wanted (at least 1)."""

    def __init__(self, name, dtype):
        self.operator, self.matrix, self.seen = _evidence(name, dtype)
        self.tolerance = TOLERANCE[dtype]

    def rows(self, what):
        return np.stack([_flat(row) for row in self.seen[what]])

    def close(self, a, b, factor=1.0):
        a, b = (self.rows(c) if isinstance(c, str) else c for c in (a, b))
        assert np.linalg.norm(a - b) <= factor * self.tolerance * max(np.linalg.norm(b), 1.0)

    def dots_agree(self, a, b, c, d, factor=1.0):
        """`<a_i, b_j> = <c_i, d_j>` for all pairs of probes, relative to `|a| |b|`."""
        a, b, c, d = map(self.rows, (a, b, c, d))
        size = np.linalg.norm(a) * np.linalg.norm(b)
        assert np.abs(a @ b.T - c @ d.T).max() <= factor * self.tolerance * size


in_every_precision = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def checks(case):
    return Checks(*case)


@pytest.mark.slow
@in_every_precision
def test_keeps_dtypes_and_shapes(case):
    (operator, _, seen), (_, dtype) = _evidence(*case), case
    x, y = seen["x"], seen["y"]
    assert x.shape == (3, *operator.shape) and x.dtype == dtype
    for what, value in seen.items():
        like = x if value.shape == x.shape and value.dtype == x.dtype else y
        assert (value.shape, value.dtype) == (like.shape, like.dtype), what
    for what in ("adjoint", "pinv", "gradient"):
        assert (seen[what].shape, seen[what].dtype) == (x.shape, x.dtype)


@in_every_precision
def test_adjoint_is_the_adjoint(checks):
    checks.dots_agree("forward", "y", "x", "adjoint")


@in_every_precision
def test_adjoint_override_is_the_default(checks):
    checks.close("adjoint", "default_adjoint")


@in_every_precision
def test_gradient_of_the_misfit(checks):
    checks.close("gradient", "normal_residual")


@in_every_precision
def test_linear(checks):
    checks.close("combined", 2.5 * checks.rows("forward") - checks.rows("forward_pinv"), 10)
    checks.close("forward", checks.rows("x") @ checks.matrix.T)
    assert not checks.rows("zero").any()


@in_every_precision
def test_solve_is_the_matrix_solve(checks):
    gram = checks.matrix @ checks.matrix.T
    checks.close("solve_range", checks.rows("forward") @ np.linalg.pinv(gram, rcond=1e-5, hermitian=True), 30)
    checks.close("solve_damped", np.linalg.solve(gram + 0.3 * np.eye(len(gram)), checks.rows("y").T).T)


@in_every_precision
def test_penrose(checks):
    checks.close("pinv", checks.rows("y") @ np.linalg.pinv(checks.matrix, rcond=1e-5).T, 30)
    checks.close("forward_pinv_forward", "forward", 30)
    checks.close("pinv_forward_pinv", "pinv", 30)
    checks.close("forward_pinv", "project", 30)


@in_every_precision
def test_project_is_onto_the_range(checks):
    checks.close("project", checks.rows("y") @ (checks.matrix @ np.linalg.pinv(checks.matrix, rcond=1e-5)).T, 30)
    checks.close("project_twice", "project", 30)
    checks.dots_agree("project", "y", "y", "project", 30)


@in_every_precision
def test_noise_lies_in_the_range(checks):
    assert checks.rows("noise").any()
    checks.close("project_noise", "noise", 30)
    checks.close("noiseless", "forward")


TRACES = []


@jax.jit
def _use(operator, x):
    TRACES.append(type(operator))
    y = operator(x)
    return y, operator.adjoint(y), operator.solve(y, 0.1), operator.project(y)


_use_many = jax.jit(jax.vmap(_use.__wrapped__))


@pytest.mark.slow
@every_operator
def test_parameters_vmap(name):
    pair = [OPERATORS[name](jnp.float64, seed) for seed in (0, 1)]
    x = jnp.stack([_input(pair[0], jnp.float64, seed) for seed in (0, 1)])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    together = _use_many(stacked, x)
    TRACES.clear()
    for i in (0, 1):
        for batched, single in zip(together, _use(pair[i], x[i]), strict=True):
            np.testing.assert_allclose(_flat(batched[i]), _flat(single), atol=1e-10)
    assert len(TRACES) <= 1, "other parameters, same trace"


@every_operator
def test_pytree_round_trip(name):
    operator, _, seen = _evidence(name, jnp.float64)
    leaves, structure = jax.tree.flatten(operator)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(operator) and again.shape == operator.shape
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    found = jax.vmap(_forward, (None, 0))(again, seen["x"])
    np.testing.assert_allclose(_flat(found), _flat(seen["forward"]), atol=1e-12)


@every_operator
def test_casts_parameters_and_scalars(name):
    """Parameters in float64, a damping and a noise level of any type leave float32 inputs in float32."""
    operator = OPERATORS[name](jnp.float64)
    x = jax.ShapeDtypeStruct(operator.shape, jnp.float32)
    y = jax.eval_shape(operator, x)
    assert y.dtype in (jnp.float32, jnp.complex64)
    assert jax.eval_shape(operator.adjoint, y).dtype == jax.eval_shape(operator.pinv, y).dtype == jnp.float32
    assert jax.eval_shape(operator.project, y).dtype == y.dtype
    for number in (0.3, jnp.float32(0.3), jnp.asarray(0.3)):
        assert jax.eval_shape(operator.solve, y, number).dtype == y.dtype
        assert jax.eval_shape(measure, jax.random.key(0), operator, x, number).y.dtype == y.dtype
