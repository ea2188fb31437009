"""Transforms beside NumPy's, under every transformation of JAX, and split over devices as the commands compile them."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST, FUSED, OLDER
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import fft as scipy_fft

import diffinv.operators as ops
from diffinv import fft, linalg

PAIRS = {
    "fft2": (fft.fft2, lambda x: np.fft.fft2(x)),
    "rfft2": (fft.rfft2, lambda x: np.fft.rfft2(x)),
    "dct2": (fft.dct2, lambda x: scipy_fft.dctn(x, axes=(-2, -1), norm="ortho")),
    "idct2": (fft.idct2, lambda x: scipy_fft.idctn(x, axes=(-2, -1), norm="ortho")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_transforms_are_numpys(name):
    ours, theirs = PAIRS[name]
    x = np.random.default_rng(0).standard_normal((2, 5, 6))
    np.testing.assert_allclose(ours(jnp.asarray(x)), theirs(x), atol=1e-13)


def test_inverses():
    size = (4, 7)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, *size)))
    np.testing.assert_allclose(fft.irfft2(fft.rfft2(x), size), x, atol=1e-14)
    np.testing.assert_allclose(fft.ifft2(fft.fft2(x, "ortho"), "ortho").real, x, atol=1e-14)
    np.testing.assert_allclose(fft.in_planes(fft.idct2, fft.in_planes(fft.dct2, x)), x, atol=1e-14)


def test_a_pinned_layout_is_the_identity():
    """In value, tangent and cotangent, and under any `vmap` axis; compiled or not."""
    x = jnp.arange(24.0).reshape(2, 3, 4)
    everything = lambda x: (
        fft.row_major(x),
        jax.jvp(fft.row_major, (x,), (2 * x,))[1] / 2,
        jax.vjp(fft.row_major, x)[1](3 * x)[0] / 3,
        jax.vmap(fft.row_major, 1, 1)(x),
    )
    for run in (everything, jax.jit(everything)):
        for found in run(x):
            np.testing.assert_array_equal(found, x)


PICTURE = (8, 6, 3)
KERNEL = jnp.asarray([[0.02, 0.05, 0.03], [0.08, 0.7, 0.04], [0.01, 0.05, 0.02]])


COILS = functools.partial(ops.simulated_coils, (6, 8), 2)
SOME = {
    "circular": lambda: ops.blur(PICTURE, KERNEL),
    "mri": lambda: ops.mri(ops.cartesian_mask(jax.random.key(0), (6, 8), 2, 2)),
    "cosines": lambda: ops.compressed_sensing(jax.random.key(0), PICTURE, 0.5, "dct"),
}
ALL = {
    **SOME,
    "reflect": lambda: ops.blur(PICTURE, KERNEL, "reflect"),
    "coils": lambda: ops.mri(jnp.ones((6, 8)), COILS()),
    "gridded": lambda: ops.non_cartesian_mri((6, 8), ops.radial(3, 8, (6, 8)), COILS(), width=4),
    "phase": lambda: ops.phase_retrieval(PICTURE),
    "streaks": lambda: ops.nonlinear_blur(jax.random.key(0), PICTURE, size=3),
    "flow": lambda: ops.navier_stokes((8, 8, 1), steps=2),
    "blocks": lambda: ops.average_pool(PICTURE, 2),
}


def _everything(operator, x):
    """Forward, gradient, and what it has in closed form; the coordinates of a spectrum as DDRM goes through them."""
    y = operator(x)
    seen = [y, jax.grad(lambda x: jnp.sum(jnp.abs(ops.as_real(operator(x))) ** 2))(x)]
    if isinstance(operator, ops.LinearOperator):
        seen += [operator.adjoint(y)]
    if isinstance(operator, ops.ClosedForm):
        seen += [operator.pinv(y), operator.solve(y, 0.1)]
    if isinstance(operator, ops.CircularBlur | ops.Subsampled | ops.AveragePool):
        parts = operator.spectrum()
        s = parts.s.astype(x.dtype)
        seen += [parts.synthesise(s * parts.observe(y)), parts.synthesise(s * parts.analyse(x))]
    return seen


def _all(operators, pictures):
    return {name: _everything(operator, pictures[name]) for name, operator in operators.items()}


@pytest.mark.parametrize(("level", "made"), [(0, SOME), pytest.param(3, ALL, marks=pytest.mark.slow)])
def test_operators_split_over_devices(level, made):
    """Vmapped over measurements, operator included, and split over two devices: what `reconstruct` compiles."""
    split_in_two = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), PartitionSpec("data"))
    operators = {name: jax.tree.map(_single, make()) for name, make in made.items()}
    pictures = {name: jax.random.normal(jax.random.key(1), (2, *A.shape), jnp.float32) for name, A in operators.items()}
    batched = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), operators)
    split = jax.device_put((batched, pictures), split_in_two)
    options = {"xla_backend_optimization_level": level, **(FUSED if level else OLDER)}
    program = jax.jit(jax.vmap(_all)).lower(*split).compile(options)
    together = jax.device_get(program(*split))
    alone = jax.jit(_all, compiler_options=FAST)(operators, jax.tree.map(lambda x: x[1], pictures))
    for name in operators:
        for found, wanted in zip(together[name], alone[name], strict=True):
            np.testing.assert_allclose(found[1], wanted, atol=2e-5 * max(1, np.abs(wanted).max()), err_msg=name)


def _single(leaf):
    return leaf.astype(jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.float32)


def test_no_other_transforms():
    """A transform outside this module would be laid out as its neighbours like."""
    files = [path for path in Path(ops.__file__).parents[1].rglob("*.py") if path.name != "fft.py"]
    bad = ("fft2(", "fftn(", "fft(", "rfft(", "irfft(")
    found = [path.name for path in files if any(f"jnp.fft.{name}" in path.read_text() for name in bad)]
    assert not found and "jax.scipy.fft" not in "".join(path.read_text() for path in files)
    np.testing.assert_allclose(linalg.idct_hw(linalg.dct_hw(jnp.ones(PICTURE))), 1.0, atol=1e-12)
