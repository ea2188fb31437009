"""Recipes against Gaussian classes, whose denoisers are exact: laws, correlations, guided scores, end points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import NULL, class_prior
from oracle import slope

import diffinv as di
from diffinv import augmentation as au
from diffinv import posterior, process, samplers, times

KINDS = [process.VP(), process.EDM(), process.Flow()]
name = lambda kind: type(kind).__name__


def scales(prior, label, sigma):
    t = times.from_sigma(prior.process, jnp.asarray(sigma))
    return prior.process.alpha(t), prior.process.sigma(t), prior.denoise.variances[label], prior.denoise.means[label]


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_sdedit_under_a_gaussian_prior_is_its_closed_form(kind, sigma):
    """x_0 = m + sqrt(c / (alpha^2 c + sigma^2)) (x_t - alpha m), the probability-flow ODE's own map."""
    prior = class_prior(kind)
    alpha, level, c, m = scales(prior, 0, sigma)
    x = jnp.asarray(np.random.default_rng(0).normal(size=prior.shape))
    exact = m + jnp.sqrt(c / (alpha**2 * c + level**2)) * (x - alpha * m)
    errors = []
    for steps in (20, 40, 80):
        recipe = au.Recipe(sigma=sigma, steps=steps)
        found = au.generate(jax.random.key(0), prior, recipe, au.Example(jnp.asarray(0)), x).x
        errors.append(float(jnp.max(jnp.abs(found - exact))))
    assert errors[-1] < 2e-3 and errors[-1] < errors[0] / 4


def test_sdedit_keeps_the_law_and_the_correlation_that_its_level_says():
    prior, sigma, n = class_prior(process.EDM()), 0.7, 4000
    alpha, level, c, m = scales(prior, 0, sigma)
    keys = jax.random.split(jax.random.key(0), n)
    images = m[None] + jnp.sqrt(c)[None] * jax.random.normal(jax.random.key(1), (n, *prior.shape))
    one = lambda key, image: au.generate(key, prior, au.Recipe(sigma=sigma, steps=60), au.Example(0, image)).x
    made = jax.jit(jax.vmap(one))(keys, images)
    known = np.asarray(alpha * jnp.sqrt(c) / jnp.sqrt(alpha**2 * c + level**2)).ravel()
    a, b = (np.asarray(each).reshape(n, -1) for each in (images, made))
    spread = np.sqrt(np.asarray(c).ravel())
    assert np.all(np.abs(b.mean(0) - np.asarray(m).ravel()) < 4 * spread / np.sqrt(n))
    assert np.all(np.abs(b.std(0) / spread - 1) < 4 / np.sqrt(2 * n))
    found = np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T)])
    assert np.all(np.abs(found - known) < 4 * (1 - known**2) / np.sqrt(n) + 1e-3)


def test_a_moved_start_is_the_start_of_moved_pictures():
    """Each by its own draw; what is not given stays away, and out of noise nothing changes."""
    prior = class_prior(process.EDM())
    a, b = jax.random.normal(jax.random.key(1), (2, *prior.shape))
    change = lambda key, x: jnp.roll(x, jax.random.randint(key, (), 0, 3), 0) + jax.random.normal(key, ())
    seen = []
    start = lambda key, prior, example, t: seen.append(example) or prior.start(key, t)
    au.from_changed(start, change)(jax.random.key(0), prior, au.Example(jnp.asarray(0), a, b), jnp.ones(()))
    first, second, rest = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(seen[0].image, change(first, a))
    np.testing.assert_array_equal(seen[0].other, change(second, b))
    nothing = au.from_changed(au.from_prior, change)(jax.random.key(0), prior, au.Example(jnp.asarray(0)), jnp.ones(()))
    np.testing.assert_array_equal(nothing, au.from_prior(rest, prior, au.Example(jnp.asarray(0)), jnp.ones(())))


def test_a_moved_picture_comes_back_moved_from_its_inverse():
    prior, steps = class_prior(process.EDM()), 160
    image = jax.random.normal(jax.random.key(1), prior.shape)
    turned = lambda key, x: -x
    start = au.from_changed(lambda *given: au.from_inverse(*given, steps=steps), turned)
    recipe = au.Recipe(start, 2.0, steps=steps)
    found = au.generate(jax.random.key(0), prior, recipe, au.Example(jnp.asarray(0), image)).x
    np.testing.assert_allclose(found, -image, atol=5e-3)


def test_sampling_from_the_prior_needs_no_picture():
    prior, n = class_prior(process.EDM()), 3000
    recipe = au.Recipe(au.from_prior, jnp.inf, steps=40)
    one = lambda key: au.generate(key, prior, recipe, au.Example(jnp.asarray(1))).x
    made = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), n))).reshape(n, -1)
    mean, spread = np.asarray(prior.denoise.means[1]).ravel(), np.sqrt(0.2)
    assert np.all(np.abs(made.mean(0) - mean) < 4 * spread / np.sqrt(n) + 1e-2)
    assert np.all(np.abs(made.std(0) / spread - 1) < 0.06)


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.5])
def test_free_guidance_is_the_difference_of_two_denoisers_and_of_two_scores(weight):
    """D = (1 + w) D_c - w D_0, and its score grad[(1 + w) ln p(x | c) - w ln p(x)], w = weight - 1."""
    prior, t = class_prior(), 0.4
    guided = au.free(weight, NULL)(prior, au.Example(jnp.asarray(1)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=prior.shape))
    alpha, sigma, w = prior.process.alpha(t), prior.process.sigma(t), weight - 1
    of = lambda label: prior.given(label=label).denoise(x, t)
    np.testing.assert_allclose(guided.denoise(x, t), (1 + w) * of(1) - w * of(NULL), rtol=1e-12)

    def log_p(x, label):
        m, c = prior.denoise.means[label], prior.denoise.variances[label]
        return -0.5 * jnp.sum((x - alpha * m) ** 2 / (alpha**2 * c + sigma**2))

    score = jax.grad(lambda x: (1 + w) * log_p(x, 1) - w * log_p(x, NULL))(x)
    np.testing.assert_allclose((alpha * guided.denoise(x, t) - x) / sigma**2, score, rtol=1e-9)


def test_autoguidance_tells_both_networks_the_class():
    strong, weak = class_prior(), class_prior()
    weak = weak.__class__(weak.process, weak.denoise.replace(variances=2 * weak.denoise.variances), weak.shape)
    guided = au.against(weak, 2.0)(strong, au.Example(jnp.asarray(0)))
    x = jnp.ones(strong.shape)
    expected = 2 * strong.given(label=0).denoise(x, 0.3) - weak.given(label=0).denoise(x, 0.3)
    np.testing.assert_allclose(guided.denoise(x, 0.3), expected)


def test_a_rewards_gradient_is_added_to_the_score():
    """A linear reward g.x0 under a Gaussian prior: x0 + scale sigma^2 / alpha J g, J = alpha c / (...)."""
    prior, t, scale = class_prior(), 0.3, 1.7
    g = jnp.asarray(np.random.default_rng(2).normal(size=prior.shape))
    reward = lambda x0: jnp.stack([jnp.zeros(()), jnp.sum(g * x0), jnp.zeros(())])
    guided = au.rewarded(reward, scale)(prior, au.Example(jnp.asarray(1)))
    alpha, sigma, c = prior.process.alpha(t), prior.process.sigma(t), prior.denoise.variances[1]
    x = jnp.full(prior.shape, 0.4)
    moved = scale * sigma**2 / alpha * alpha * c / (alpha**2 * c + sigma**2) * g
    np.testing.assert_allclose(guided.denoise(x, t), prior.given(label=1).denoise(x, t) + moved, rtol=1e-10)
    assert guided.cost.vjps == 1 and guided.cost.nfe == 1


def test_slerp_ends_at_its_points_and_keeps_the_length_of_equal_ones():
    rng = np.random.default_rng(3)
    a, b = (jnp.asarray(rng.normal(size=(4, 3, 1))) for _ in range(2))
    np.testing.assert_allclose(au.slerp(a, b, 0.0), a, atol=1e-14)
    np.testing.assert_allclose(au.slerp(a, b, 1.0), b, atol=1e-14)
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    for u in (0.2, 0.5, 1.7):
        np.testing.assert_allclose(jnp.linalg.norm(au.slerp(a, b, u)), 1, rtol=1e-12)
    np.testing.assert_allclose(au.slerp(a, 2 * a, 0.25), 1.25 * a, rtol=1e-12)


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_the_ends_of_an_interpolation_return_the_pictures_at_the_integrators_order(u):
    prior = class_prior(process.EDM())
    rng = np.random.default_rng(4)
    images = [jnp.asarray(rng.normal(size=prior.shape)) for _ in range(2)]
    counts, errors = (32, 64, 128), []
    for steps in counts:
        told, t = prior.given(label=0), jnp.asarray(1.0)
        latents = [au.from_inverse(jax.random.key(0), told, au.Example(0, x), t, steps) for x in images]
        recipe = au.Recipe(au.from_prior, jnp.inf, steps=steps)
        back = au.generate(jax.random.key(0), prior, recipe, au.Example(0), au.slerp(*latents, u)).x
        errors.append(float(jnp.max(jnp.abs(back - images[int(u)]))))
    assert slope(counts, errors) > 1.7, errors


def test_between_two_pictures_draws_on_the_arc_or_on_the_circle():
    prior = class_prior(process.EDM()).given(label=0)
    rng = np.random.default_rng(5)
    example = au.Example(0, *(jnp.asarray(rng.normal(size=prior.shape)) for _ in range(2)))
    ends = [au.from_inverse(None, prior, au.Example(0, x), 1.0, 8) for x in (example.image, example.other)]
    along = lambda x: np.linalg.lstsq(np.stack([np.ravel(e) for e in ends], 1), np.ravel(x), rcond=None)
    for around in (False, True):
        one = lambda key, around=around: au.from_between(key, prior, example, 1.0, 8, around)
        drawn = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 32))
        fits = [along(x) for x in drawn]
        lengths = np.linalg.norm(np.ravel(ends[0]))
        assert all(fit[1][0] < (1e-6 * lengths) ** 2 for fit in fits)  # in the plane of the two
        assert any((fit[0] < 0).all() for fit in fits) == around  # the far side is reached on the circle alone
        assert around or all((fit[0] > -1e-9).all() for fit in fits)


def test_a_masked_edit_keeps_every_pixel_outside_the_mask():
    prior = class_prior(process.EDM())
    image, mask = jnp.linspace(-1, 1, 6).reshape(prior.shape), jnp.zeros((3, 2, 1)).at[0].set(1)
    solver = lambda prior, measurement: samplers.ancestral(posterior.ddnm(prior, measurement))
    recipe = au.Recipe(au.from_noised, 2.0, method=au.within_mask(solver), steps=10)
    one = lambda key: au.generate(key, prior, recipe, au.Example(jnp.asarray(1), image, mask=mask)).x
    made = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 5))
    np.testing.assert_allclose(made[:, 1:], jnp.broadcast_to(image[1:], made[:, 1:].shape), atol=1e-12)
    assert np.all(np.std(made[:, 0], 0) > 0.01)


def test_one_step_samplers_and_consistency_models_are_methods_too():
    prior = class_prior(process.EDM())
    recipe = au.Recipe(sigma=0.5, method=au.by(samplers.renoise), steps=1)
    example = au.Example(jnp.asarray(0), jnp.zeros(prior.shape))
    found = au.generate(jax.random.key(0), prior, recipe, example)
    start = jax.random.split(jax.random.key(0))[0]
    t = au.ladder(prior.process, 1, 0.5)[0]
    state = au.from_noised(start, prior, example, t)
    np.testing.assert_allclose(found.x, prior.given(label=0).denoise(state, t), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_the_ladder_falls_from_its_level_to_zero(kind):
    grid = jax.jit(lambda sigma: au.ladder(kind, 7, sigma))(1.5)
    ratio = np.exp(-0.5 * np.asarray(kind.log_snr(grid[:-1])))
    np.testing.assert_allclose(ratio[[0, -1]], [1.5, 0.002], rtol=1e-6)
    assert grid[-1] == 0 and np.all(np.diff(grid) < 0)
    roots = ratio ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), roots[1] - roots[0], rtol=1e-6)
    assert au.ladder(kind, 7, jnp.inf)[0] == 1


def test_pasting_blends_by_the_mask():
    mask = jnp.asarray([[[0.0], [0.25], [1.0]]])
    np.testing.assert_allclose(au.pasted(jnp.zeros((1, 3, 1)), jnp.ones((1, 3, 1)), mask), mask)


def test_refusals_name_what_is_missing():
    prior, key = class_prior(), jax.random.key(0)
    for start, what in ((au.from_noised, "image"), (au.from_inverse, "image"), (au.from_between, "other")):
        with pytest.raises(ValueError, match=f"example.{what} is None"):
            au.generate(key, prior, au.Recipe(start), au.Example(jnp.asarray(0)))
    recipe = au.Recipe(method=au.within_mask(posterior.ddnm))
    with pytest.raises(ValueError, match="example.mask is None"):
        au.generate(key, prior, recipe, au.Example(jnp.asarray(0), jnp.zeros(prior.shape)))


def test_recipes_run_under_vmap_of_keys_labels_and_levels():
    prior = class_prior(process.EDM())
    one = lambda key, label, sigma: au.generate(key, prior, au.Recipe(sigma=sigma, steps=4), au.Example(label, x)).x
    x = jnp.zeros(prior.shape)
    keys, labels, sigmas = jax.random.split(jax.random.key(0), 3), jnp.asarray([0, 1, 0]), jnp.asarray([0.1, 1.0, 4.0])
    made = jax.jit(jax.vmap(one))(keys, labels, sigmas)
    for i in range(3):
        np.testing.assert_allclose(made[i], one(keys[i], labels[i], sigmas[i]), rtol=1e-9, atol=1e-12)


def test_di_has_the_room():
    assert di.augmentation is au
