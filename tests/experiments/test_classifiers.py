"""The judges: what they learn, what a weight is to them, and the features' store."""

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

from diffinv.metrics.features import efficientnet_features
from experiments.augmenting import classifiers
from experiments.augmenting.classifiers import CLASSIFIERS
from experiments.augmenting.labelled import Training

PIXELS = ("logistic regression", "RBF-SVM", "convolutional network")
JUDGES = {**CLASSIFIERS, "convolutional network": classifiers.convolutional(32)}


@pytest.fixture(autouse=True)
def as_experiments_run(monkeypatch):
    monkeypatch.setattr(classifiers, "BATCH", 16)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def bars(count, side=8, channels=1, noise=0.3, seed=0):
    """Noise, over which three classes have a bright bar at the top, in the middle and at the bottom."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = noise * rng.standard_normal((count, side, side, channels)).astype(np.float32) - 0.5
    for image, label in zip(images, labels):
        image[label * side // 3 : (label + 1) * side // 3] += 1
    return Training(images.clip(-1, 1), labels, np.ones(count))


def rows(training, chosen):
    return Training(*(part[chosen] for part in training))


@pytest.mark.parametrize("name", PIXELS)
def test_every_judge_learns_bars_and_repeats_itself(name):
    few, test = bars(48), bars(200, seed=1)
    found = JUDGES[name](3, few, test.images)
    assert found.shape == (200,) and np.issubdtype(found.dtype, np.integer)
    assert np.mean(found == test.labels) > 0.98
    np.testing.assert_array_equal(found, JUDGES[name](3, few, test.images))


@pytest.mark.parametrize("name", PIXELS)
def test_a_picture_of_weight_0_is_not_seen(name):
    """Half of the labels are wrong, and weigh nothing."""
    right, wrong, test = bars(24), bars(24, seed=2), bars(60, seed=1)
    wrong = wrong._replace(labels=(wrong.labels + 1) % 3, weights=np.zeros(24))
    both = Training(*map(np.concatenate, zip(right, wrong)))
    found = JUDGES[name](0, both, test.images)
    assert np.mean(found == test.labels) > 0.95
    if name != "convolutional network":
        np.testing.assert_array_equal(found, JUDGES[name](0, right, test.images))


@pytest.mark.parametrize("name", ["logistic regression", "RBF-SVM"])
def test_a_weight_of_3_is_three_copies(name):
    """On pictures of 3 x 3 whose classes overlap; both ways solve one convex problem, to its solver's tolerance."""
    few, test, often = bars(120, 3, noise=1.5), bars(500, 3, noise=1.5, seed=1), np.where(np.arange(120) % 3, 1, 3)
    light = few._replace(weights=np.full(120, 0.03))
    weighted = JUDGES[name](0, light._replace(weights=0.03 * often), test.images)
    copied = JUDGES[name](0, rows(light, np.repeat(np.arange(120), often)), test.images)
    plain = JUDGES[name](0, light, test.images)
    assert np.mean(weighted != copied) < 0.01 and np.mean(weighted == 0) > np.mean(plain == 0) + 0.05


def test_the_network_draws_by_weight():
    """Two labels for one picture, 24 times: it takes the one that weighs more."""
    image = np.zeros((1, 8, 8, 1), np.float32)
    labels = np.arange(48) % 2
    labels[-1] = 2  # as many classes and pictures as in the tests beside this one, whose program it then is
    for heavier in (0, 1):
        weights = np.where(labels == heavier, 0.8, 0.2) * (labels < 2)
        both = Training(image.repeat(48, 0), labels, weights)
        assert JUDGES["convolutional network"](0, both, image).tolist() == [heavier]


def test_the_network_depends_on_its_seed():
    few, test, judge = bars(48, noise=1.5), bars(300, noise=1.5, seed=1), JUDGES["convolutional network"]
    assert (judge(0, few, test.images) != judge(1, few, test.images)).any()


@pytest.mark.parametrize("side", [8, 12, 28, 32, 64])
def test_the_network_takes_pictures_of_any_size(side):
    network = classifiers.Network(3)
    shape = jax.eval_shape(network.init_with_output, jax.random.key(0), np.zeros((2, side, side, 1), np.float32))[0]
    assert shape.shape == (2, 3)


def test_scaled_rows():
    """Mean 0, and a mean variance of 1, of the training set; new ones by its own; equal pictures are all 0."""
    seen = []

    def spy(rows):
        return lambda seed, training, images: seen.extend((rows(training.images), rows(images))) or images

    few = bars(20)
    judge = classifiers.scaled(spy, classifiers.pixels)
    judge(0, few, few.images[:3])
    np.testing.assert_allclose(seen[0].mean(0), 0, atol=1e-5)
    assert seen[0].var(0).mean() == pytest.approx(1, rel=1e-4)
    spread = few.images.reshape(20, -1).std(0)
    np.testing.assert_allclose(seen[0].std(0) / seen[0].std(), spread / np.sqrt(np.mean(spread**2)), rtol=1e-3)
    np.testing.assert_array_equal(seen[0][:3], seen[1])
    judge(0, rows(few, np.zeros(4, int)), few.images[:1])
    assert (seen[2] == 0).all()


def test_judges_that_suit_a_size():
    assert classifiers.suited(np.zeros((1, 8, 8, 1))) == PIXELS
    large = classifiers.suited(np.zeros((1, 64, 32, 3)))
    assert large[0] == "convolutional network" and all("features" in name for name in large[1:]) and len(large) == 3


@pytest.mark.slow
def test_features_are_the_networks_and_are_kept(monkeypatch):
    """Of grey pictures as of coloured ones; what was seen is not computed again, and the oldest make room."""
    monkeypatch.setattr(classifiers, "KEPT", 5)
    monkeypatch.setattr(classifiers, "SIZE", 32)
    monkeypatch.setattr(classifiers, "BLOCK", 4)
    features, images, computed = classifiers.Features(), bars(7, 32).images, []
    inner = features._computed
    monkeypatch.setattr(features, "_computed", lambda new: computed.append(len(new)) or inner(new))
    found = features(images[[0, 1, 2, 3, 4, 0, 1]])
    network = efficientnet_features(32)
    direct = jax.jit(network.pooled)(np.tile(images[4], (1, 1, 3)))
    np.testing.assert_allclose(found[4], direct, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[:2], found[5:])
    np.testing.assert_array_equal(features(images[:5][::-1]), found[:5][::-1])
    features(images[4:])
    features(images[:1])
    assert computed == [5, 0, 2, 1] and len(features.kept) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "features" in name])
def test_judges_of_features_learn_bars(name):
    few, test = bars(30, 32, 3, 0.1), bars(60, 32, 3, 0.1, seed=1)
    assert np.mean(CLASSIFIERS[name](0, few, test.images) == test.labels) > 0.9


def test_refusals():
    for shape in ((1, 16, 32, 3), (1, 32, 32, 2)):
        with pytest.raises(ValueError, match="its features take 32 pixels or more, grey or colours"):
            classifiers.Features()(np.zeros(shape, np.float32))
