"""Visibilities of points and Gaussians in closed form; closures that station gains leave alone; the public table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv.operators as ops
from operators.dots import dot_gap

STATIONS = np.array(list(itertools.combinations("ABCDE", 2)))
PLACES = dict(zip("ABCDE", np.random.default_rng(0).normal(size=(5, 2)) * 0.1, strict=True))
UV = np.array([PLACES[a] - PLACES[b] for a, b in STATIONS])
SHAPE = (14, 16, 1)
_apply = jax.jit(lambda operator, x: operator(x))
_of = jax.jit(lambda closure, v: closure.of(v))


def test_two_points_are_their_waves():
    """East is left and north is up: a point `a` columns left and `b` rows up has the phase `-2 pi (u a + v b)`."""
    x = np.zeros(SHAPE)
    x[7 - 3, 8 - 2], x[7, 8] = 0.5, 2.0
    A = ops.visibilities(SHAPE, UV, 0.7)
    wanted = 2 + 0.5 * np.exp(-2j * np.pi * 0.7 * (2 * UV[:, 0] + 3 * UV[:, 1]))
    np.testing.assert_allclose(_apply(A, jnp.asarray(x)), wanted, atol=1e-12)
    assert dot_gap(A) < 1e-13


def test_gaussian_is_a_gaussian():
    """Flux `2 pi s^2` and `exp(-2 pi^2 s^2 |uv|^2)`: spectrally exact on a grid that holds both."""
    shape, s = (40, 42, 1), 3.0
    rows, columns = np.meshgrid(np.arange(40) - 20, np.arange(42) - 21, indexing="ij")
    x = jnp.asarray(np.exp(-0.5 * (rows**2 + columns**2) / s**2)[:, :, None])
    wanted = 2 * np.pi * s**2 * np.exp(-2 * np.pi**2 * s**2 * np.sum(UV**2, 1))
    np.testing.assert_allclose(_apply(ops.visibilities(shape, UV, 1.0), x), wanted, atol=1e-8)


def _closures():
    A = ops.visibilities(SHAPE, UV, 1.0)
    return ops.closure_phases(A, np.zeros(10), STATIONS), ops.closure_amplitudes(A, np.zeros(10), STATIONS)


def test_station_gains_cancel():
    """`V_ab g_a conj(g_b)` leaves every closure; the independent ones are 6 and 5 for 5 stations."""
    rng = np.random.default_rng(1)
    v = rng.normal(size=10) + 1j * rng.normal(size=10)
    gain = dict(zip("ABCDE", rng.uniform(0.5, 2, 5) * np.exp(2j * np.pi * rng.uniform(size=5)), strict=True))
    spoilt = v * np.array([gain[a] * np.conj(gain[b]) for a, b in STATIONS])
    for closure, count in zip(_closures(), (6, 5), strict=True):
        assert _of(closure, v).shape == (count,)
        np.testing.assert_allclose(_of(closure, spoilt), _of(closure, v), atol=1e-12)


def test_closures_are_their_loops():
    """By hand on the first triangle and quadrangle; turned baselines conjugate; a point source has none."""
    phases, amplitudes = _closures()
    x = jnp.asarray(np.random.default_rng(2).uniform(size=SHAPE))
    v = dict(zip(map("".join, STATIONS), np.asarray(_apply(phases.visibility, x)), strict=True))
    angle = np.angle(v["AB"]) + np.angle(v["BC"]) - np.angle(v["AC"])
    np.testing.assert_allclose(_apply(phases, x)[0], np.exp(1j * angle), atol=1e-12)
    ratio = abs(v["AB"] * v["CD"] / (v["AC"] * v["BD"]))
    np.testing.assert_allclose(_apply(amplitudes, x)[0], np.log(ratio), atol=1e-12)
    point = jnp.zeros(SHAPE).at[3, 4].set(1.7)
    np.testing.assert_allclose(_apply(phases, point), 1, atol=1e-12)
    np.testing.assert_allclose(_apply(amplitudes, point), 0, atol=1e-12)
    flipped = ops.closure_phases(ops.visibilities(SHAPE, -UV, 1.0), np.zeros(10), STATIONS[:, ::-1])
    np.testing.assert_allclose(_apply(flipped, x), _apply(phases, x), atol=1e-12)


def test_times_do_not_mix():
    """Two times of three stations: one triangle each; four stations with a missing baseline: two triangles."""
    time, three = np.repeat([0.0, 1.0], 3), np.array(["AB", "BC", "CA"] * 2)
    closure = ops.closure_phases(ops.identity((6,)), time, np.array([list(pair) for pair in three]))
    assert sorted(map(sorted, np.asarray(closure.index).tolist())) == [[0, 1, 2], [3, 4, 5]]
    four = np.array(list(itertools.combinations("ABCD", 2)))[:-1]
    assert ops.closure_phases(ops.identity((5,)), np.zeros(5), four).index.shape == (2, 3)


@pytest.mark.slow
def test_public_table(shared, tmp_path):
    """One night of M87: hermitian names, Jy and wavelengths; the closures of real data have their noise's size."""
    path = shared / "data" / "blackhole_m87" / "M87_2017_095_hi.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    night = ops.read_visibilities(path)
    assert night.uv.shape == (6458, 2) and night.visibility.dtype == complex
    np.testing.assert_allclose(night.visibility[0], 0.01429205 * np.exp(1j * np.radians(-118.9454)))
    assert tuple(night.stations[0]) == ("AA", "LM") and 1e9 < np.abs(night.uv).max() < 1e10
    first = night.time == night.time[0]
    uv = night.uv[first]
    A = ops.visibilities((8, 8, 1), uv, 10 * ops.MICROARCSECOND)
    closure = ops.closure_phases(A, night.time[first], night.stations[first])
    stations = len(set(night.stations[first].ravel()))
    assert closure.index.shape[0] == (stations - 1) * (stations - 2) // 2
    np.testing.assert_allclose(np.abs(closure.of(jnp.asarray(night.visibility[first]))), 1.0)
    assert np.abs(np.sum(uv[closure.index] * np.asarray(closure.sign)[..., None], 1)).max() < 1e-3 * np.abs(uv).max()


def test_tables_without_a_shared_folder(tmp_path):
    path = tmp_path / "night.csv"
    path.write_text("#SRC:M87\n#time,T1,T2,U,V,A,P,S\n0.5,AA,LM,1.0,-2.0,2.0,90.0,0.1\n")
    night = ops.read_visibilities(path)
    np.testing.assert_allclose(night.visibility, [2j], atol=1e-12)
    np.testing.assert_allclose(night.uv, [[1, -2]])
    assert night.time[0] == 0.5 and night.sigma[0] == 0.1 and tuple(night.stations[0]) == ("AA", "LM")
    path.write_text("0.5,AA,LM\n")
    with pytest.raises(ValueError, match=r"has \[3\] columns"):
        ops.read_visibilities(path)


BAD = {
    "channels": (lambda: ops.visibilities((8, 8, 3), UV, 1.0), "shape, uv are"),
    "pixel": (lambda: ops.visibilities((8, 8, 1), UV, 0.0), "pixel is 0.0"),
    "names": (lambda: ops.closure_phases(ops.identity((3,)), np.zeros(3), STATIONS[:2]), "time, stations have"),
    "no loop": (lambda: ops.closure_amplitudes(ops.identity((2,)), np.zeros(2), STATIONS[:2]), "close no loop of 4"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
