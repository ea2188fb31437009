"""Named recipes have their published numbers, and GIF's step climbs the score that is written out here again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NULL, class_prior

from diffinv import augmentation as au
from diffinv import process
from diffinv.augmentation import recipes

PLANS = {
    "class_sampling": recipes.class_sampling(steps=3),
    "sdedit": recipes.sdedit(0.5, steps=3),
    "da_fusion": recipes.da_fusion(NULL, steps=3),
    "diff_mix": recipes.diff_mix(0.5, steps=3),
    "diff_ii": recipes.diff_ii(steps=3),
    "inversion": recipes.inversion(steps=3),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_recipe_of_every_plan_makes_a_finite_picture(name):
    prior = class_prior(process.EDM())
    example = au.Example(jnp.asarray(1), jnp.zeros(prior.shape), jnp.full(prior.shape, 0.3))
    for recipe in PLANS[name].recipes:
        made = au.generate(jax.random.key(0), prior, recipe, example).x
        assert made.shape == prior.shape and np.isfinite(made).all()


def test_da_fusion_has_its_published_numbers():
    plan = recipes.da_fusion(null=NULL)
    assert [float(r.sigma) for r in plan.recipes] == [recipes.noise_of(s) for s in (1, 0.75, 0.5, 0.25)]
    assert plan.probability == 0.5 and plan.learns is au.embeddings
    guided = plan.recipes[0].guide(class_prior(), au.Example(jnp.asarray(1)))
    assert guided.denoise.weight == 7.5


def test_what_plans_learn():
    assert recipes.nothing((1,)) is None
    assert recipes.sdedit(1.0).learns is recipes.nothing and recipes.class_sampling().learns is recipes.all_weights
    params = {"params": {"label_emb": {"embedding": jnp.ones((4, 2))}}}
    assert recipes.all_weights((1,)).init(jax.random.key(0), params)["params"]["label_emb"]["embedding"].shape == (4, 2)
    words, lower = recipes.words_and_adapters((1, 2)).init(jax.random.key(0), params)
    assert words.shape == (2, 2) and lower[0][0].shape == (4, 2)
    assert recipes.diff_mix(1.0).foreign and recipes.diff_ii().pairs


def test_strengths_are_shares_of_the_linear_schedule():
    """alpha^2 = exp(-(20 - .1) s^2 / 2 - .1 s); the ratio is sqrt(1 / alpha^2 - 1)."""
    for s in (0.25, 0.5, 1.0):
        alpha2 = np.exp(-(20 - 0.1) * s**2 / 2 - 0.1 * s)
        np.testing.assert_allclose(recipes.noise_of(s, 0.6), 0.6 * np.sqrt(1 / alpha2 - 1), rtol=1e-6)
    for s in (0, 1.2):
        with pytest.raises(ValueError, match="give a number above 0, at most 1"):
            recipes.noise_of(s)


def test_gif_stays_in_its_bound_and_climbs_its_score():
    prior, t, count = class_prior(process.EDM()), jnp.asarray(0.005), 4
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(3, 6)))
    classify = lambda x: jax.nn.log_softmax(matrix @ x.ravel())
    example = au.Example(jnp.asarray(1), jnp.asarray(rng.normal(size=prior.shape)))
    told, key = prior.given(label=1), jax.random.key(3)
    run = lambda step: recipes.expanded(key, told, example, t, classify, count, step)
    still, moved = run(0.0), run(0.02)
    state = au.from_noised(jax.random.split(key)[0], told, example, t)
    assert np.all(np.abs(np.asarray(moved.x) - np.asarray(state)) <= 0.8 + 1e-12)
    assert moved.score[1] > moved.score[0] == still.score[0] == still.score[1]

    entropy = lambda p: -np.sum(p * np.log(p))
    p = np.exp([classify(told.denoise(x, t)) for x in still.x])
    known = np.exp(classify(example.image))
    informative = np.mean([q[known.argmax()] + entropy(q) - entropy(known) for q in p])
    diverse = np.mean([np.sum(q * np.log(q / p.mean(0))) for q in p])
    np.testing.assert_allclose(still.score[0], informative + diverse, rtol=1e-9)
    done = au.generate(key, prior, au.Recipe(sigma=0.4, steps=3), example, moved.x[0])
    assert np.isfinite(done.x).all()
