"""NIQE: the laws it fits, its features by another route, its order of pictures, and the authors' file."""

import numpy as np
import pytest
from scipy import io, ndimage, stats

from diffinv.metrics import natural

RANGE = (-1.0, 1.0)


def leaves(seed, side=128, count=600):
    """Dead leaves: discs of random grey that hide one another, radii as 1 / r^3, like natural pictures.

    A little noise, as a camera's: in flat areas the signs that the laws are split by would be those of rounding.
    """
    rng = np.random.default_rng(seed)
    picture, (rows, columns) = np.zeros((side, side)), np.mgrid[:side, :side]
    for radius in 3 / np.sqrt(rng.uniform(0.01, 1, count)):
        place = rng.uniform(0, side, 2)
        picture[(rows - place[0]) ** 2 + (columns - place[1]) ** 2 < radius**2] = rng.uniform(-0.9, 0.9)
    return (ndimage.gaussian_filter(picture, 0.6) + rng.normal(0, 0.02, (side, side)))[..., None]


@pytest.fixture(scope="module")
def model():
    return natural.fitted_pristine([leaves(seed) for seed in range(8)], RANGE, patch=32, sharp=0.3)


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 0.5, 2.0), (1.5, 3.0, 1.0)])
def test_the_law_of_known_draws_comes_back(shape, left, right):
    """|x| is generalised Gamma on either side; a side is as likely as it is wide."""
    rng = np.random.default_rng(0)
    size = np.abs(stats.gennorm.rvs(shape, size=400_000, random_state=rng))
    above = rng.uniform(size=len(size)) < right / (left + right)
    found = natural.asymmetric_law(np.where(above, right * size, -left * size))
    np.testing.assert_allclose(found, (shape, left, right), rtol=0.02)
    np.testing.assert_allclose(found.mean(), np.where(above, right * size, -left * size).mean(), atol=0.02)


def test_one_sided_samples_have_no_law():
    assert np.isnan(natural.asymmetric_law(np.ones(5))).all()


def test_features_by_another_route():
    """Scale 1 of one 32 x 32 patch: a two-dimensional window, products with an explicit index."""
    x = leaves(3, 32)
    grey = (x[..., 0] + 1) * 127.5
    window = np.exp(-0.5 * (np.arange(-3, 4)[:, None] ** 2 + np.arange(-3, 4) ** 2) / (7 / 6) ** 2)
    blur = lambda a: ndimage.convolve(a, window / window.sum(), mode="nearest")
    spread = np.sqrt(np.abs(blur(grey**2) - blur(grey) ** 2))
    normal = (grey - blur(grey)) / (spread + 1)
    i, j = np.mgrid[:32, :32]
    expected = []
    for di, dj in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        law = natural.asymmetric_law(normal * normal[(i + di) % 32, (j + dj) % 32])
        expected += [law.shape, law.mean(), law.left, law.right]
    rows, sharpness = natural.patch_statistics(x, RANGE, 32)
    assert rows.shape == (1, 36)
    np.testing.assert_allclose(rows[0, 2:18], expected, rtol=1e-7)
    np.testing.assert_allclose(sharpness, spread.mean())


def test_the_distance_is_mahalanobis():
    rows, _ = natural.patch_statistics(leaves(0), RANGE, 16)
    own = natural.Pristine(rows.mean(0), np.cov(rows.T), 16)
    assert natural.niqe(leaves(0), RANGE, own) == pytest.approx(0, abs=1e-9)
    shift = np.linspace(-1, 1, 36)
    expected = np.sqrt(shift @ np.linalg.solve(own.covariance, shift))
    assert natural.niqe(leaves(0), RANGE, own._replace(mean=own.mean + shift)) == pytest.approx(expected, rel=1e-5)


def test_pictures_of_the_pristine_law_are_nearer_than_spoilt_ones(model):
    rng = np.random.default_rng(9)
    for seed in (100, 101):
        x = leaves(seed)
        value = natural.niqe(x, RANGE, model)
        assert value < 0.6 * natural.niqe(ndimage.gaussian_filter(x, (2, 2, 0)), RANGE, model)
        assert value < 0.6 * natural.niqe(x + 0.2 * rng.standard_normal(x.shape), RANGE, model)


def test_the_range_and_grey(model):
    x = np.round((leaves(100) + 1) * 127.5)
    value = natural.niqe(x, (0, 255), model)
    assert natural.niqe(x.astype(np.uint8), (0, 255), model) == pytest.approx(value, rel=1e-12)
    assert natural.niqe(x / 127.5 - 1, RANGE, model) == pytest.approx(value, rel=1e-6)
    coloured = np.repeat(x, 3, -1)  # the weights of grey sum to 0.9999
    assert natural.niqe(coloured, (0, 255), model) == pytest.approx(value, rel=0.02)


def test_the_authors_file(tmp_path, model):
    path = str(tmp_path / "modelparameters.mat")
    io.savemat(path, {"mu_prisparam": model.mean[None], "cov_prisparam": model.covariance})
    found = natural.pristine(path)
    np.testing.assert_array_equal(found.mean, model.mean)
    np.testing.assert_array_equal(found.covariance, model.covariance)
    assert found.patch == 96
    io.savemat(path, {"mu_prisparam": model.mean[None, :5], "cov_prisparam": model.covariance})
    with pytest.raises(ValueError, match=r"not 36 and \(36, 36\)"):
        natural.pristine(path)
    for content in (b"nothing", b""):
        (tmp_path / "other.mat").write_bytes(content)
        with pytest.raises(ValueError, match="holds no mu_prisparam.*live.ece.utexas.edu"):
            natural.pristine(str(tmp_path / "other.mat"))
    with pytest.raises(FileNotFoundError, match="live.ece.utexas.edu"):
        natural.pristine(str(tmp_path / "none.mat"))


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda m: natural.niqe(leaves(0), 2, m), r"data_range is 2; give \(low, high\)"),
        (lambda m: natural.niqe(leaves(0)[..., 0], RANGE, m), r"give one real picture, \(H, W, 1\)"),
        (lambda m: natural.niqe(np.zeros((64, 64, 1), np.uint8), RANGE, m), r"give \(0, 255\)"),
        (lambda m: natural.niqe(np.zeros((64, 64, 1)), RANGE, m), "flat in each of its patches"),
        (lambda m: natural.niqe(leaves(0, 16), RANGE, m), "32 x 32 pixels: give a larger"),
        (lambda m: natural.patch_statistics(leaves(0), RANGE, 33), "patch is 33"),
        (lambda m: natural.fitted_pristine([leaves(0)], RANGE, 64), "sharp patches of 64 pixels"),
        (lambda m: natural.fitted_pristine([leaves(0)], RANGE, 64, 1.0), "sharp is 1.0"),
    ],
)
def test_what_does_not_fit_is_named(give, words, model):
    with pytest.raises(ValueError, match=words):
        give(model)
