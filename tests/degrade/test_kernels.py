"""Blur kernels against their formulae in NumPy, float64, for any side on the same square."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from diffinv import degrade
from diffinv.degrade import kernels
from diffinv.degrade.draws import BlurDraw
from diffinv.degrade.settings import FAMILIES

SIZE = 19


@lru_cache
def batched():
    return jax.jit(jax.vmap(lambda draw: degrade.kernel(SIZE, *draw)))


def drawn(count=40):
    generator = np.random.default_rng(0)
    uniform = generator.uniform
    draw = BlurDraw(
        np.arange(count) % 8,
        generator.integers(1, 10, count) * 2 + 1,
        uniform(0.2, 3, (count, 2)),
        uniform(-np.pi, np.pi, count),
        uniform(0.5, 4, count),
        uniform(np.pi / 5, np.pi, count),
    )
    return draw, np.asarray(batched()(jax.tree.map(jnp.asarray, draw)))


def oracle(family, side, deviations, angle, beta, cutoff):
    """On its own square of `side` pixels, by the covariance matrix; then zeros about it."""
    place = np.arange(side) - side // 2
    x = np.stack(np.meshgrid(place, place, indexing="xy"), -1).astype(float)
    name = [*FAMILIES, "sinc", "none"][family]
    one, two = deviations if "aniso" in name else (deviations[0],) * 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    q = np.einsum("ija,ab,ijb->ij", x, np.linalg.inv(turn @ np.diag([one**2, two**2]) @ turn.T), x)
    if name == "sinc":
        r = np.maximum(np.hypot(x[..., 0], x[..., 1]), 1e-300)
        values = np.where(r > 1e-9, cutoff * special.j1(cutoff * r) / (2 * np.pi * r), cutoff**2 / (4 * np.pi))
    elif name == "none":
        values = (q == 0).astype(float)
    elif "plateau" in name:
        values = 1 / (1 + q**beta)
    else:
        values = np.exp(-0.5 * q ** (beta if "generalised" in name else 1.0))
    return np.pad(values / values.sum(), (SIZE - side) // 2)


def test_every_family_is_its_formula():
    draw, found = drawn()
    for i, kernel in enumerate(found):
        expected = oracle(*(np.asarray(field)[i] for field in draw))
        np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-12, err_msg=str(draw.family[i]))


def test_sums_are_one_and_centres_in_the_middle():
    draw, found = drawn()
    np.testing.assert_allclose(found.sum((1, 2)), 1, atol=1e-12)
    np.testing.assert_allclose(found, found[:, ::-1, ::-1], atol=1e-12)
    assert (found[draw.family < kernels.SINC] >= 0).all() and (found[draw.family == kernels.SINC] < 0).any()


def test_bessel_is_that_of_scipy():
    z = np.concatenate([np.linspace(-60, 100, 5001), [0.0, 1e-9]])
    np.testing.assert_allclose(jax.jit(kernels.bessel_j1)(z), special.j1(z), rtol=0, atol=2e-15)


def test_a_low_pass_filter_passes_what_is_low():
    """The transfer function of a wide one is about 1 under the cutoff and 0 above."""
    wide = np.asarray(jax.jit(kernels.sinc, static_argnums=0)(101, 101, np.pi / 2))
    response = np.abs(np.fft.fft2(wide))[0]
    frequency = 2 * np.pi * np.fft.fftfreq(101)
    assert (np.abs(response[np.abs(frequency) < 0.4 * np.pi] - 1) < 0.05).all()
    assert (response[np.abs(frequency) > 0.6 * np.pi] < 0.05).all()


def test_nothing_is_left_beyond_the_side():
    draw, found = drawn()
    for i in np.flatnonzero(draw.family == FAMILIES.index("plateau_iso")):
        margin = (SIZE - draw.side[i]) // 2
        assert (found[i][margin : SIZE - margin, margin : SIZE - margin] > 0).all()
        assert np.count_nonzero(found[i]) == draw.side[i] ** 2
