"""Frechet distances in closed form, against `sqrtm`, and the estimators' bias."""

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial

from diffinv.metrics import distribution


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _covariance(rng, d):
    root = rng.normal(size=(d, d))
    return root @ root.T / d


def test_commuting_gaussians_in_closed_form():
    """`|m_a - m_b|^2 + sum (s_a - s_b)^2` for diagonal covariances of deviations s."""
    s_a, s_b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    distance = distribution.frechet_distance([1, 2, 3], np.diag(s_a**2), [1, 0, 3], np.diag(s_b**2))
    assert distance == pytest.approx(4 + np.sum((s_a - s_b) ** 2), rel=1e-12)


def test_gaussians_that_do_not_commute_equal_sqrtm(rng):
    a, b, m = _covariance(rng, 6), _covariance(rng, 6), rng.normal(size=6)
    expected = m @ m + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert distribution.frechet_distance(m, a, np.zeros(6), b) == pytest.approx(expected, rel=1e-10)


def test_features_equal_their_means_and_covariances(rng):
    a, b = rng.normal(size=(50, 5)) @ _covariance(rng, 5), 1 + rng.normal(size=(40, 5))
    expected = distribution.frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert distribution.feature_fid(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [10, 200])
def test_closed_forms_of_samples_few_and_many(rng, n):
    """A shift by c adds |c|^2; a stretch by k about the mean gives (k - 1)^2 tr S; also with rows < features."""
    x, shift = rng.normal(size=(n, 30)), rng.normal(size=30)
    assert distribution.feature_fid(x, x) == pytest.approx(0, abs=1e-10)
    assert distribution.feature_fid(x, x + shift) == pytest.approx(shift @ shift, rel=1e-10)
    stretched = x.mean(0) + 3 * (x - x.mean(0))
    assert distribution.feature_fid(x, stretched) == pytest.approx(4 * np.var(x, axis=0, ddof=1).sum(), rel=1e-10)


def test_rotation_and_order_leave_it_alone(rng):
    a, b = rng.normal(size=(40, 8)), rng.normal(size=(30, 8)) * np.arange(1, 9)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    expected = distribution.feature_fid(a, b)
    assert distribution.feature_fid(b[::-1] @ turn, a @ turn) == pytest.approx(expected, rel=1e-10)


def test_the_floor_is_positive_falls_with_n_and_repeats(rng, key):
    x = rng.normal(size=(2000, 10))
    few, many = distribution.feature_fid_floor(key, x[:100]), distribution.feature_fid_floor(key, x)
    assert 0 < many < few / 5
    assert many == distribution.feature_fid_floor(key, x)


def test_the_floor_is_of_disjoint_halves():
    """Four points on a line: however they are split, halves that shared a row could come out at 0."""
    x = np.array([[0.0], [1.0], [10.0], [100.0]])
    splits = {(0, 1), (0, 2), (0, 3)}
    halves = {s: (x[list(s)], x[[i for i in range(4) if i not in s]]) for s in splits}
    possible = [distribution.feature_fid(a, b) for a, b in halves.values()]
    for seed in range(5):
        floor = distribution.feature_fid_floor(jax.random.key(seed), x)
        assert min(abs(floor - value) for value in possible) < 1e-9


def test_the_bias_falls_as_1_over_n_by_its_closed_form(rng):
    r"""Of Gaussian rows: n E d^2 -> 2 tr C + sum_ij c_i c_j (1 + [i = j]) / (c_i + c_j), C of eigenvalues c.

    The means differ by 2 tr C / n; what covariances S + E and S + E' make is sum_ij (E - E')_ij^2 / (2 (c_i + c_j)).
    The next term is of relative order d / n: 0.02 at n = 400, 0.005 at 1,600.
    """
    c = np.linspace(0.25, 2, 6)
    expected = 2 * c.sum() + np.sum(np.outer(c, c) * (1 + np.eye(6)) / (c[:, None] + c))
    for n, trials, slack in ((400, 600, 0.02), (1600, 300, 0.005)):
        draw = lambda n=n: rng.normal(size=(n, 6)) * np.sqrt(c)
        found = n * np.array([distribution.feature_fid(draw(), draw()) for _ in range(trials)])
        assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(trials) + slack * expected


def test_the_estimate_has_no_such_bias_and_its_interval_covers(rng):
    """Against 8 shift^2 + sum (s_a - s_b)^2; the samples' own distance is above it by 10 errors and more."""
    trials, s = 200, np.linspace(0.5, 1.5, 8)
    for shift, stretch in ((0.0, 1.0), (0.3, 1.2)):
        truth = 8 * shift**2 + np.sum((s * (stretch - 1)) ** 2)
        pairs = [
            (rng.normal(size=(150, 8)) * s, shift + stretch * rng.normal(size=(200, 8)) * s) for _ in range(trials)
        ]
        values, halves = np.array([distribution.feature_fid_estimate(*pair) for pair in pairs]).T
        error = values.std() / np.sqrt(trials)
        assert abs(values.mean() - truth) < 4 * error
        assert np.mean([distribution.feature_fid(*pair) for pair in pairs]) > truth + 10 * error
        assert abs(np.mean(abs(values - truth) < halves) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_the_estimate_by_its_groups(rng):
    """Two groups, even and odd rows: the value is 2 F - (F_even + F_odd) / 2, and `half` t_1 |F_even - F_odd| / 2."""
    a, b = rng.normal(size=(9, 2)), 1 + rng.normal(size=(8, 2))
    whole, even, odd = (distribution.feature_fid(a[place], b[place]) for place in np.s_[:, ::2, 1::2])
    found = distribution.feature_fid_estimate(a, b, 2)
    assert found.value == pytest.approx(2 * whole - (even + odd) / 2, rel=1e-10)
    assert found.half == pytest.approx(12.706204736 * abs(even - odd) / 2, rel=1e-9)


def test_mmd_is_unbiased_and_sees_a_shift(rng):
    draws = [distribution.feature_mmd2(rng.normal(size=(30, 4)), rng.normal(size=(20, 4))) for _ in range(200)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0
    shifted = [distribution.feature_mmd2(rng.normal(size=(30, 4)), 1 + rng.normal(size=(20, 4))) for _ in range(20)]
    assert np.mean(shifted) > 5 * np.std(draws)


def test_mmd_by_hand():
    """d = 1, rows 0, 1 against 0, 2: within 1 and 1, between mean(1, 1, 1, 27) = 7.5; 1 + 1 - 15 = -13."""
    assert distribution.feature_mmd2([[0.0], [1.0]], [[0.0], [2.0]]) == pytest.approx(-13)


def test_the_interval_of_the_discrepancy_is_the_jackknifes(rng):
    """By leaving out each row in turn, of either set."""
    a, b = rng.normal(size=(9, 3)), 1 + rng.normal(size=(7, 3))
    without = lambda rows: [np.delete(rows, i, 0) for i in range(len(rows))]
    spread = lambda values: (len(values) - 1) * np.var(values)
    variance = spread([distribution.feature_mmd2(each, b) for each in without(a)])
    variance += spread([distribution.feature_mmd2(a, each) for each in without(b)])
    found = distribution.feature_kid(a, b)
    assert found.value == distribution.feature_mmd2(a, b)
    assert found.half == pytest.approx(1.96 * np.sqrt(variance), rel=1e-9)


def flat(rng, n, d):
    """Uniform features of variance 1."""
    return rng.uniform(-np.sqrt(3), np.sqrt(3), (n, d))


def test_the_interval_covers_what_the_shift_makes(rng):
    """d = 1, a shift by c: E (u v + 1)^3 = 1 + 3 m1 n1 + 3 m2 n2 + m3 n3, with the moments of either law."""
    c, trials = 0.8, 600
    moments = lambda m: np.array([m, m**2 + 1, m**3 + 3 * m])
    mean = lambda m, n: 1 + np.sum([3, 3, 1] * moments(m) * moments(n))
    truth = mean(0, 0) + mean(c, c) - 2 * mean(0, c)
    found = [distribution.feature_kid(flat(rng, 300, 1), c + flat(rng, 200, 1)) for _ in range(trials)]
    values, halves = np.array(found).T
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(trials)
    assert np.mean((halves / 1.96) ** 2) == pytest.approx(values.var(), rel=0.2)
    assert abs(np.mean(abs(values - truth) < halves) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_the_floor_of_the_discrepancy_is_0_and_its_jackknife_twice_the_variance(rng):
    """Between samples of one law, where all first-order terms vanish: the interval covers 0 more often than at 95 %."""
    trials = 2000
    found = [distribution.feature_kid(flat(rng, 60, 4), flat(rng, 60, 4)) for _ in range(trials)]
    values, halves = np.array(found).T
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(trials)
    assert np.mean((halves / 1.96) ** 2) == pytest.approx(2 * values.var(), rel=0.2)
    assert np.mean(abs(values) < halves) > 0.95
    two = distribution.feature_kid([[0.0], [1.0]], [[0.0], [2.0]])
    assert two.value == pytest.approx(-13) and np.isnan(two.half)


def test_the_discrepancy_of_directions_in_closed_form():
    """Two directions at a right angle: |u - v|^2 = 2, however long they are, so 1000 (1 + 1 - 2 exp(-1 / w^2))."""
    a, b = np.array([[2.0, 0.0], [5.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 3.0], [0.0, 0.1]])
    assert distribution.feature_cmmd(a, b) == pytest.approx(2000 * -np.expm1(-0.01), rel=1e-10)
    assert distribution.feature_cmmd(a, b, 0.5) == pytest.approx(2000 * -np.expm1(-4.0), rel=1e-12)
    assert distribution.feature_cmmd(a, 7 * a) == pytest.approx(0, abs=1e-10)


def test_the_discrepancy_of_directions_is_the_published_formula(rng):
    """As the source's code has it: squared distances of unit rows, means over all pairs, the diagonal among them."""
    a, b = rng.normal(size=(9, 5)), 1 + rng.normal(size=(7, 5))
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kernel = lambda u, v: np.exp(-(scipy.spatial.distance.cdist(u, v) ** 2) / 200).mean()
    u, v = unit(a), unit(b)
    assert distribution.feature_cmmd(a, b) == pytest.approx(
        1000 * (kernel(u, u) + kernel(v, v) - 2 * kernel(u, v)), rel=1e-9
    )


def test_the_names_are_never_fid_kid_and_cmmd():
    found = (distribution.NAME, distribution.KID_NAME, distribution.CMMD_NAME)
    assert found == ("EffNetLite0-FID", "EffNetLite0-KID", "EffNetLite0-CMMD")


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: distribution.feature_fid(np.zeros((1, 3)), np.zeros((2, 3))), "features_a is .*at least 2 rows"),
        (lambda: distribution.feature_fid(np.zeros((2, 3)), np.zeros((2, 4))), "one network"),
        (lambda: distribution.feature_fid(np.zeros((2, 3)), [[0.0, 1, 2], [np.nan, 0, 0]]), "first is row 1"),
        (lambda: distribution.feature_fid_estimate(np.eye(5), np.eye(5), 3), "groups is 3; .*at most half of 5 rows"),
        (lambda: distribution.feature_cmmd(np.eye(2), [[1.0, 0], [0, 0]]), "features_b has a row of zeros, the 1"),
        (lambda: distribution.feature_cmmd(np.eye(2), np.eye(2), 0.0), "width is 0.0; give a number above 0"),
        (lambda: distribution.frechet_distance([0, 0], -np.eye(2), [0, 0], np.eye(2)), "cov_a has the eigenvalue -1"),
        (lambda: distribution.frechet_distance([0, 0], np.eye(2), [0, 0], np.eye(3)), "means and covariances"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
