"""Born scattering of a Gaussian by its series of Bessel functions; flows with closed forms, and their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import hankel1, ive

import diffinv.operators as ops
from operators.dots import dot_gap

_apply = jax.jit(lambda operator, x: operator(x))
_evolve = jax.jit(lambda operator, w: operator.evolve(w))


def test_born_field_of_a_gaussian():
    r"""Graf's addition theorem and Weber's integral: with q = k^2 s^2,

    y = k^2 (i/4)^2 2 pi s^2 sum_m H_m(k R)^2 exp(i m (a - b)) exp(-q) I_m(q).
    """
    n, side, radius, s = 48, 1.0, 1.2, 0.06
    transmit, receive = np.array([0.0, 1.0, 2.5]), np.array([0.3, 1.9, 3.3, 5.0])
    A = ops.inverse_scattering((n, n, 1), transmit, receive, side, 8.0, radius)
    place = side / n * (np.arange(n) - n // 2)
    x = np.exp(-0.5 * (place[:, None] ** 2 + place[None, :] ** 2) / s**2)[:, :, None]
    k, m = 2 * np.pi / (8 * side / n), np.arange(-60, 61)
    turns = np.exp(1j * m * (transmit[:, None, None] - receive[None, :, None]))
    series = np.sum(hankel1(m, k * radius) ** 2 * turns * ive(m, (k * s) ** 2), -1)
    wanted = k**2 * (0.25j) ** 2 * 2 * np.pi * s**2 * series
    np.testing.assert_allclose(_apply(A, jnp.asarray(x)), wanted, rtol=1e-8)


def test_antennas_stand_where_the_text_says():
    """One pixel off the middle: at angle 0 an antenna is on the last column's side, at pi/2 on the last row's."""
    A, pixel = ops.inverse_scattering((5, 6, 1), np.array([0.0, 1.0]), np.array([np.pi / 2]), 0.6, 8.0, 1.0), 0.1
    x = np.zeros((5, 6, 1))
    x[4, 1] = 1.0
    place, k = pixel * np.array([4 - 2, 1 - 3]), 2 * np.pi / (8 * pixel)
    green = lambda a: 0.25j * hankel1(0, k * np.linalg.norm(np.array([np.sin(a), np.cos(a)]) - place))
    wanted = (k * pixel) ** 2 * green(np.pi / 2) * np.array([[green(0.0)], [green(1.0)]])
    np.testing.assert_allclose(A(jnp.asarray(x)), wanted, rtol=1e-12)


def test_scattering_is_reciprocal_and_linear(key):
    """Transmitters and receivers at the same places may be swapped; the adjoint passes the dot test."""
    A = ops.inverse_scattering((6, 8, 1), 5, 5)
    y = _apply(A, jax.random.normal(key, A.shape))
    np.testing.assert_allclose(y, np.asarray(y).T, rtol=1e-10)
    assert dot_gap(A) < 1e-13


def _flow(n, **options):
    return ops.navier_stokes((n, n, 1), **options)


def test_taylor_green_decays():
    """`2 cos x cos y` does not advect itself: it decays by Crank-Nicolson's factor, in the limit `exp(-2 t / Re)`."""
    x = 2 * np.pi * np.arange(16) / 16
    w = jnp.asarray(2 * np.cos(x)[:, None] * np.cos(x)[None, :])
    A = _flow(16, reynolds=10.0, steps=20, force=np.zeros((16, 16)))
    factor = ((1 - 0.05 / 10) / (1 + 0.05 / 10)) ** 20
    np.testing.assert_allclose(_evolve(A, w), factor * w, atol=1e-12)
    assert abs(factor - np.exp(-2 / 10)) < 1e-5


def test_forcing_from_rest():
    """`-4 cos 4y` builds the shear `f Re / 16 (1 - exp(-16 t / Re))`; in Crank-Nicolson's factor, exactly."""
    y = 2 * np.pi * np.arange(16) / 16
    shear = np.broadcast_to(-4 * np.cos(4 * y)[None, :] * 200 / 16, (16, 16))
    factor = ((1 - 0.1 * 8 / 200) / (1 + 0.1 * 8 / 200)) ** 10
    w = _evolve(_flow(16, steps=10), jnp.zeros((16, 16)))
    np.testing.assert_allclose(w, shear * (1 - factor), atol=1e-12)
    assert abs(factor - np.exp(-16 / 200)) < 1e-6


@pytest.fixture(scope="module")
def swirl():
    x = 2 * np.pi * np.arange(16) / 16
    return jnp.asarray(3 * np.sin(x)[:, None] * np.cos(2 * x)[None, :] + 2 * np.cos(x + 0.3)[None, :])


def test_second_order_in_time(swirl):
    """Halving the step quarters the error of a flow that does advect."""
    ends = [np.asarray(_evolve(_flow(16, reynolds=50.0, steps=steps), swirl)) for steps in (8, 16, 32)]
    ratio = np.linalg.norm(ends[0] - ends[1]) / np.linalg.norm(ends[1] - ends[2])
    assert abs(ratio - 4) < 0.5
    assert np.abs(ends[2] - np.asarray(swirl)).max() > 0.3


def test_invariants_of_the_ideal_flow(swirl):
    """Without force and nearly without viscosity, energy, enstrophy and the mean stay."""
    A = _flow(16, reynolds=1e9, steps=200, duration=0.5, force=np.zeros((16, 16)))
    k = np.fft.fftfreq(16, 1 / 16)
    square = k[:, None] ** 2 + k[None, :] ** 2
    square[0, 0] = np.inf
    before, after = (np.abs(np.fft.fft2(w)) ** 2 for w in (swirl, _evolve(A, swirl)))
    for weight in (1.0, 1 / square):
        np.testing.assert_allclose(np.sum(after * weight), np.sum(before * weight), rtol=1e-4)
    assert np.abs(np.mean(_evolve(A, swirl)) - np.mean(swirl)) < 1e-12


def test_measurement_is_the_coarse_flow(swirl):
    """Every `factor`-th pixel of the flow from `gain x`, over the gain."""
    A = _flow(16, factor=4, steps=8, gain=5.0)
    y = _apply(A, swirl[:, :, None] / 5)
    assert y.shape == (4, 4, 1)
    np.testing.assert_allclose(5 * y[:, :, 0], _evolve(A, swirl)[::4, ::4], atol=1e-12)


BAD = {
    "scattering channels": (lambda: ops.inverse_scattering((8, 8, 2)), "the contrast is real"),
    "radius": (lambda: ops.inverse_scattering((8, 8, 1), radius=0.1), "must enclose"),
    "not square": (lambda: ops.navier_stokes((8, 6, 1)), "N even"),
    "factor": (lambda: ops.navier_stokes((8, 8, 1), 3), "shape, factor"),
    "steps": (lambda: ops.navier_stokes((8, 8, 1), steps=0), "steps is 0"),
    "force": (lambda: ops.navier_stokes((8, 8, 1), force=np.ones((4, 4))), "force has shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
