"""The classifier inside the generator, against scikit-learn and against a Gaussian whose tilted law is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di
from diffinv import augmentation, samplers, times
from experiments.augmenting import reward
from experiments.augmenting.classifiers import pixels
from experiments.augmenting.labelled import labelled
from experiments.augmenting.methods import METHODS, Setting
from experiments.augmenting.scikit import scikit
from experiments.augmenting.splits import few_shot

pytest.importorskip("sklearn", reason="the judges of augmentation come with scikit-learn")
SHAPE = (2, 2, 1)


def split(classes, rare):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 20)
    means = np.linspace(-0.6, 0.6, classes)[labels]
    images = np.clip(means[:, None, None, None] + 0.3 * rng.normal(size=(len(labels), *SHAPE)), -1, 1)
    return few_shot(labelled(images.astype(np.float32), labels), 0, rare, 4, 0.4, 0.2)


@pytest.mark.parametrize(("classes", "rare"), [(2, (1,)), (4, (1, 3))])
def test_its_probabilities_are_scikit_learn_s(classes, rare):
    data = split(classes, rare)
    mine, images, labels = reward.judge(data), data.test.images, data.test.labels
    model = scikit("linear_model").LogisticRegression(max_iter=1000, class_weight="balanced")
    told = model.fit(pixels(data.train.images), data.train.labels).predict_proba(pixels(images))
    expected = told[np.arange(len(labels)), np.searchsorted(model.classes_, labels)]
    np.testing.assert_allclose(mine.confidence(images, labels), expected, rtol=2e-5)
    with jax.numpy_dtype_promotion("standard"):
        one = np.exp(mine.log_probabilities(jnp.asarray(images[0], jnp.float32)))
    np.testing.assert_allclose(one, told[0], rtol=2e-5)


class Blind(di.denoisers.GaussianDenoiser):
    """N(0, I), whatever the label."""

    def given(self, **condition):
        return self


def prior():
    process = di.process.EDM()
    return di.Prior(process, Blind(process, jnp.zeros(SHAPE), jnp.ones((1, 1, 1))), SHAPE)


def example(weights, place=1, image=0.0):
    judge = reward.Judge(jnp.asarray(weights, float), jnp.zeros(2), np.arange(2))
    return reward.Judged(jnp.asarray(0), jnp.full(SHAPE, image), jnp.zeros(SHAPE), judge, jnp.asarray(place))


def test_guidance_climbs_towards_the_class_along_its_weights():
    """The denoised picture moves by `sigma^2 / alpha` of the gradient through it, which is that of `log p(c | x0)`."""
    told, given = prior(), example(np.stack([np.zeros(4), [2.0, -1.0, 0.0, 0.0]]))
    x, t = jnp.full(SHAPE, 0.5), jnp.asarray(0.4)
    plain, guided = told.denoise(x, t), reward.climbing(1.0)(told, given).denoise(x, t)
    sigma = told.process.sigma(t)
    shrink = 1 / (1 + sigma**2)  # of N(0, I)
    probability = jax.nn.sigmoid(jnp.sum(given.judge.weights[1] * plain.ravel()))
    slope = (1 - probability) * given.judge.weights[1].reshape(SHAPE) * shrink
    np.testing.assert_allclose(guided, plain + sigma**2 * slope, rtol=1e-9)


def test_guided_pictures_are_taken_for_their_class_more_often():
    told, given = prior(), example(np.stack([np.zeros(4), 2 * np.ones(4)]))
    grid = times.karras(12)
    draw = lambda scale: jax.jit(
        jax.vmap(lambda key: di.sample(key, samplers.heun(reward.climbing(scale)(told, given)), grid).x)
    )(jax.random.split(jax.random.key(0), 200))
    likely = [np.mean(np.exp([given.judge.log_probabilities(x)[1] for x in draw(scale)])) for scale in (0.0, 1.0)]
    assert abs(likely[0] - 0.5) < 0.08 and likely[1] > 0.8


def test_starts_are_of_the_set_that_gif_chooses():
    told, given, key, t = prior(), example(np.stack([np.zeros(4), np.ones(4)]), image=0.3), jax.random.key(2), 0.5
    draw, choose = jax.random.split(key)
    whole = augmentation.recipes.expanded(draw, told, given, t, given.judge.log_probabilities, 3).x
    one = reward.from_expanded(key, told, given, t, 3)
    np.testing.assert_allclose(one, whole[jax.random.randint(choose, (), 0, 3)], rtol=1e-12)
    assert len({float(reward.from_expanded(jax.random.key(i), told, given, t).sum()) for i in range(4)}) == 4


def test_the_command_knows_both():
    setting = Setting(9, 0.6, (0.5, 1.0), 7.5, 4)
    for name in ("rewarded SDEdit", "GIF"):
        assert list(METHODS[name](setting)) == ["sigma 0.5", "sigma 1"]
