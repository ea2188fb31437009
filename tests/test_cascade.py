"""Cascades: the closed form of Gaussian stages, what each kind of stage is told, and that the whole is a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import OPTIMISED
from flax import struct
from oracle import random_covariance
from told import TheirMean

import diffinv as di
from diffinv import cascade as cascades
from diffinv import operators, posterior, samplers, scalespace, times
from diffinv.cascade import CascadeStage, cascade
from diffinv.denoisers.exact import GaussianDenoiser
from diffinv.loop import total_cost
from diffinv.posterior import moments

COARSE, FINE = (2, 2, 1), (4, 4, 1)


@pytest.fixture(scope="module")
def law():
    """N(m, C) of fine pictures, and D, the block average, (4, 16)."""
    rng = np.random.default_rng(0)
    average = np.asarray(jax.vmap(operators.average_pool(FINE, 2))(jnp.eye(16).reshape(16, *FINE))).reshape(16, 4).T
    return 0.3 * rng.standard_normal(16), 0.1 * random_covariance(rng, 16), average


def drawing(mean, covariance, shape):
    """A first stage that draws N(mean, covariance)."""
    root = jnp.asarray(np.linalg.cholesky(covariance + 1e-14 * np.eye(len(covariance))))
    draw = lambda key: jnp.asarray(mean) + root @ jax.random.normal(key, (len(mean),))
    return CascadeStage(lambda key, m, coarse, level: di.Solution(draw(key).reshape(shape), ()), shape)


def gain(law, s):
    """K of x given `D x + s eps`, and the covariance that is left."""
    _, c, d = law
    k = np.linalg.solve(d @ c @ d.T + s**2 * np.eye(4), d @ c).T
    return k, c - k @ d @ c


def exact(law, s):
    """A second stage that draws x given its corrupted block averages, exactly."""
    m, _, d = law
    k, left = gain(law, s)
    root = jnp.asarray(np.linalg.cholesky(left + 1e-12 * np.eye(16)))

    def generate(key, measurement, coarse, level):
        x = m + k @ (coarse.ravel() - d @ m) + root @ jax.random.normal(key, (16,))
        return di.Solution(x.reshape(FINE), ())

    return CascadeStage(generate, FINE, cascades.with_noise, s)


def moments_of(stages, draws=400_000):
    """Mean and covariance of the cascade's pictures."""
    run = jax.jit(jax.vmap(lambda key: cascade(stages)(key, None).x.ravel()))
    x = np.asarray(run(jax.random.split(jax.random.key(0), draws)))
    return x.mean(0), np.cov(x.T)


LEVELS = (0.0, 0.3, 1.0)


@pytest.mark.parametrize("s", LEVELS)
def test_with_an_exact_base_the_law_is_exact_at_every_level(law, s):
    m, c, d = law
    mean, covariance = moments_of([drawing(d @ m, d @ c @ d.T, COARSE), exact(law, s)])
    np.testing.assert_allclose(mean, m, atol=2e-3)
    np.testing.assert_allclose(covariance, c, atol=1e-3 * max(1, np.abs(c).max() / 0.2))


def wrong_law(law, s, mean, covariance):
    """Of the output, the base being N(mean, covariance): m + K (mean - D m), C - K D C + K (covariance + s^2) K^T."""
    m, _, d = law
    k, left = gain(law, s)
    return m + k @ (mean - d @ m), left + k @ (covariance + s**2 * np.eye(4)) @ k.T


def test_with_a_wrong_base_the_error_falls_with_the_level_as_the_formula_says(law):
    """A bias of 0.05 and 0.6 of the covariance; the noise hides the base's faults, and at last the base."""
    m, c, d = law
    base = d @ m + 0.05, 0.6 * d @ c @ d.T
    errors = []
    for s in LEVELS:
        mean, covariance = moments_of([drawing(*base, COARSE), exact(law, s)])
        expected = wrong_law(law, s, *base)
        np.testing.assert_allclose(mean, expected[0], atol=2e-3)
        np.testing.assert_allclose(covariance, expected[1], atol=1e-3 * max(1, np.abs(c).max() / 0.2))
        errors.append(np.abs(mean - m).max())
    assert errors[0] > 1.2 * errors[1] > 1.2**2 * errors[2]
    assert np.abs(gain(law, 1e3)[0]).max() < 1e-4  # nothing of the base is left


@pytest.mark.parametrize("s", LEVELS)
def test_a_sampler_told_of_the_coarse_picture_keeps_the_law_at_every_level(key, s):
    """Pixels N(0, v): the result has their law; its averages have the correlation 1 / (1 + 4 s^2 / v) with the base."""
    v, process = 0.36, di.process.EDM()
    prior = di.Prior(process, TheirMean(process, v, COARSE), FINE)
    fine = CascadeStage(cascades.sampling(prior, samplers.heun, times.karras(40)), FINE, cascades.with_noise, s)
    stages = [drawing(np.zeros(4), v / 4 * np.eye(4), COARSE), fine]
    run = jax.jit(jax.vmap(lambda key: cascade(stages)(key, None).info.pictures), compiler_options=OPTIMISED)
    base, x = map(np.asarray, run(jax.random.split(key, 10_000)))
    covariance = np.cov(x.reshape(-1, 16).T)
    np.testing.assert_allclose(covariance, v * np.eye(16), atol=0.02)
    averages = np.asarray(jax.vmap(operators.average_pool(FINE, 2))(x))
    pull = v / 4 / (v / 4 + s**2)
    assert np.mean(averages * base) / (v / 4) == pytest.approx(pull, abs=0.02)


def test_what_is_told_in_training_is_what_a_stage_tells(key):
    """`with_noise` of the block averages, enlarged, at a level that is uniform up to the greatest."""
    x0, greatest = jax.random.normal(key, (6, 4, 2)), 0.7
    make = jax.vmap(lambda k: cascades.augmented_condition(k, x0, (3, 2, 2), greatest))
    told = make(jax.random.split(key, 4000))
    assert set(told) == {"low", "level"} and told["low"].shape == (4000, 6, 4, 2)
    level = np.asarray(told["level"])
    assert 0 <= level.min() < 0.01 and 0.69 < level.max() <= greatest
    assert np.quantile(level, [0.25, 0.5, 0.75]) == pytest.approx([0.175, 0.35, 0.525], abs=0.03)
    corners = np.asarray(told["low"])[:, ::2, ::2]
    np.testing.assert_array_equal(told["low"], corners.repeat(2, 1).repeat(2, 2))
    average = np.asarray(operators.average_pool((6, 4, 2), 2)(x0))
    eps = (corners - average) / level[:, None, None, None]
    assert eps.mean() == pytest.approx(0, abs=0.03) and eps.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(np.abs(eps[:, 0, 0, 0]), level)[0, 1]) < 0.08  # the noise's own size is no part of it
    same = cascades.condition(jnp.ones((3, 2, 2)), (6, 4, 2), 0.3)
    np.testing.assert_array_equal(same["low"], np.ones((6, 4, 2)))
    with pytest.raises(ValueError, match=r"x0 is \(6, 4, 2\) after \(4, 2, 2\)"):
        cascades.augmented_condition(key, x0, (4, 2, 2), greatest)


def test_a_projected_picture_has_its_block_averages_and_is_the_nearest(key):
    coarse, x = jax.random.normal(key, (3, 2, 2)), jax.random.normal(jax.random.key(5), (9, 6, 2))
    done = cascades.projected(x, coarse)
    average = operators.average_pool((9, 6, 2), 3)
    np.testing.assert_allclose(average(done), coarse, atol=1e-12)
    move = done - x
    np.testing.assert_allclose(move, average.adjoint(average(move)) * 9, atol=1e-12)  # in the range of D^T
    given = CascadeStage(lambda key, m, coarse, level: di.Solution(x, ()), (9, 6, 2), project=True)
    start = CascadeStage(lambda key, m, coarse, level: di.Solution(coarse, ()), (3, 2, 2))
    solution = cascade([start, given])(key, None, coarse)
    np.testing.assert_allclose(average(solution.x), coarse, atol=1e-12)
    assert [picture.shape for picture in solution.info.pictures] == [(3, 2, 2), (9, 6, 2)]


def test_every_stage_sees_the_measurement_in_its_own_pixels(key):
    """Of its picture with every pixel repeated; the last sees it as it is."""
    m = di.measure(key, operators.box_inpainting((8, 8, 1), 2, 2, 3), jax.random.normal(key, (8, 8, 1)), 0.1)
    seen = []

    def generate(key, measurement, coarse, level):
        seen.append(measurement)
        return di.Solution(jnp.zeros((2 ** len(seen), 2 ** len(seen), 1)), ())

    cascade([CascadeStage(generate, (side, side, 1)) for side in (2, 4, 8)])(key, m)
    for side, each in zip((2, 4), seen):
        x = jax.random.normal(key, (side, side, 1))
        np.testing.assert_allclose(each.operator(x), m.operator(cascades.enlarge(x, (8, 8, 1))), atol=1e-12)
        np.testing.assert_array_equal(each.y, m.y)
    assert seen[2] is m


@struct.dataclass
class Told:
    """A network that says what it was told: E[x_0] = low + level, or 0 without."""

    low: jax.Array | None = None
    level: jax.Array | None = None

    def given(self, **condition):
        return self.replace(**condition)

    def __call__(self, x, t):
        return 0 * x if self.low is None else self.low + self.level


def test_a_diffusion_stage_tells_its_network_the_corrupted_picture_and_the_level(key):
    prior = di.Prior(di.process.EDM(), Told(), FINE)
    grid = times.karras(3)
    coarse = jax.random.normal(key, COARSE)
    stage = CascadeStage(cascades.sampling(prior, samplers.ddim, grid), FINE, cascades.with_noise, 0.25)
    key_of = jax.random.split(jax.random.split(key, 1)[0])[0]
    expected = cascades.enlarge(cascades.with_noise(key_of, coarse, 0.25), FINE) + 0.25
    np.testing.assert_allclose(cascade([stage])(key, None, coarse).x, expected, atol=1e-10)
    np.testing.assert_allclose(cascade([stage])(key, None).x, jnp.zeros(FINE), atol=1e-10)
    alone = CascadeStage(cascades.sampling(prior, samplers.ddim, grid, conditional=False), FINE)
    np.testing.assert_allclose(cascade([alone])(key, None, coarse).x, jnp.zeros(FINE), atol=1e-10)


def gaussian_prior(shape=FINE, mean=0.3, std=0.5):
    process, n = di.process.VP(), int(np.prod(shape))
    vector = di.gaussian(process, mean * jnp.ones(n), std**2 * jnp.eye(n))
    denoise = jax.tree_util.Partial(lambda prior, x, t: prior.denoise(x.reshape(n), t).reshape(shape), vector)
    return di.Prior(process, denoise, shape)


def test_a_jump_is_one_step_of_renoise(key):
    """From the same noise to the same picture, with one evaluation; and it sees no measurement."""
    prior, once = gaussian_prior(), jnp.asarray([1.0, 0.0])
    kinds = (cascades.jumping(prior), cascades.sampling(prior, samplers.renoise, once))
    one, other = (cascade([CascadeStage(kind, FINE)])(key, None) for kind in kinds)
    np.testing.assert_allclose(one.x, other.x, atol=1e-12)
    assert float(jnp.std(one.x)) > 0 and int(one.info.stages[0].nfe) == 1
    told = di.Prior(di.process.EDM(), Told(), FINE)
    coarse = jnp.ones(COARSE)
    stage = CascadeStage(cascades.jumping(told), FINE, level=0.25)
    np.testing.assert_allclose(cascade([stage])(key, None, coarse).x, 1.25 * jnp.ones(FINE), atol=1e-12)
    alone = CascadeStage(cascades.jumping(told, conditional=False), FINE, level=0.25)
    np.testing.assert_allclose(cascade([alone])(key, None, coarse).x, jnp.zeros(FINE), atol=1e-12)
    with pytest.raises(ValueError, match="`jumping` cannot see it"):
        cascade([stage])(key, di.Measurement(di.operators.average_pool(FINE, 2), coarse, di.GaussianNoise(0.1)), coarse)


def test_a_base_that_is_stopped_early_has_the_law_of_one_that_is_noised_again(key):
    """Truncated and not truncated conditioning augmentation: alpha x_0 + sigma eps, of N(0.3, 0.5^2)."""
    prior, s = gaussian_prior(COARSE), 0.4
    alpha, sigma = (float(each(s)) for each in (prior.process.alpha, prior.process.sigma))
    grid = 1 - (1 - s) * jnp.linspace(0, 1, 41)
    stopped = CascadeStage(cascades.sampling(prior, samplers.ancestral, grid), COARSE)
    passed = CascadeStage(
        lambda key, m, coarse, level: di.Solution(coarse, ()), COARSE, cascades.noised_by(prior.process), s
    )
    whole = CascadeStage(cascades.sampling(prior, samplers.ancestral, times.grid(40)), COARSE)
    keys = jax.random.split(key, 20_000)
    for stages in ([stopped], [whole, passed]):
        x = np.asarray(jax.jit(jax.vmap(lambda k, stages=stages: cascade(stages)(k, None).x.ravel()))(keys))
        std = np.sqrt(alpha**2 * 0.25 + sigma**2)
        assert x.mean() == pytest.approx(alpha * 0.3, abs=5 * std / np.sqrt(x.size))
        assert x.std() == pytest.approx(std, rel=0.02)


def test_enlarging_gives_its_solver_the_coarse_picture_as_measurement(key):
    """By the exact guidance of a Gaussian prior: the posterior's mean at the end of a fine grid, to its own error."""
    prior, coarse, level = gaussian_prior(), jax.random.normal(key, COARSE), 0.2
    solver = di.as_solver(lambda m: samplers.ddim(posterior.tmpd(prior, m, moments.exact)), times.grid(200))
    run = jax.jit(
        jax.vmap(
            lambda k: cascade([CascadeStage(cascades.enlarging(solver, FINE), FINE, level=level)])(k, None, coarse).x
        ),
        compiler_options=OPTIMISED,
    )
    x = np.asarray(run(jax.random.split(key, 4000)))
    pull = 0.25 / 4 / (0.25 / 4 + level**2)  # of the block's average, whose variance is 0.25 / 4
    expected = 0.3 + pull * (np.asarray(cascades.enlarge(coarse, FINE)) - 0.3)
    np.testing.assert_allclose(x.mean(0), expected, atol=0.04)
    averages = np.asarray(jax.vmap(operators.average_pool(FINE, 2))(x))
    assert averages.std(0) == pytest.approx(np.sqrt(pull) * level, rel=0.05)


def test_restoring_starts_from_the_enlarged_coarse_picture(key):
    """Without guidance ReGuidance gives its candidate back: the stage's start."""
    prior, coarse = gaussian_prior(), 0.3 + 0.5 * jax.random.normal(key, COARSE)
    m = di.measure(key, operators.box_inpainting(FINE, 1, 1, 2), jnp.ones(FINE), 0.1)
    grid = times.grid(200, power=3.0)
    refine = di.as_solver(lambda m: samplers.heun(posterior.dps_score(prior, m, 0.0)), grid)
    solver = posterior.reguidance(lambda key, m, x=None: di.Solution(x, ()), refine, prior, grid)
    run = jax.jit(
        lambda: (cascade([CascadeStage(cascades.restoring(solver, FINE), FINE)])(key, m, coarse), solver(key, m, x))
    )
    x = cascades.enlarge(coarse, FINE)
    solution, alone = run()
    np.testing.assert_allclose(solution.x, x, atol=1e-3)
    assert total_cost(solution.info) == total_cost(alone.info) and int(total_cost(alone.info).nfe) > 700


def test_a_relay_starts_from_the_noised_enlarged_picture(key):
    """A sampler that only passes its start on shows it: mean alpha x, deviation sigma."""
    prior, coarse = gaussian_prior(), jax.random.normal(key, COARSE)
    through = lambda prior: di.Sampler(lambda key, t, x: x, lambda key, x, t, s: (x, ()), lambda key, x: x)
    stage = CascadeStage(cascades.relaying(prior, through, jnp.asarray([0.3, 0.0])), FINE)
    x = np.asarray(jax.vmap(lambda k: cascade([stage])(k, None, coarse).x)(jax.random.split(key, 4000)))
    alpha, sigma = float(prior.process.alpha(0.3)), float(prior.process.sigma(0.3))
    np.testing.assert_allclose(x.mean(0), alpha * cascades.enlarge(coarse, FINE), atol=5 * sigma / np.sqrt(4000))
    assert x.std(0) == pytest.approx(sigma, rel=0.06)


@pytest.mark.slow
def test_a_relay_in_codes_of_blocks_gives_the_law_of_its_prior(key):
    """The blur has left the blocks' means alone; they are the base's, exactly, and what is lacking is drawn."""
    process, chart = scalespace.relay(4, 4, 2, sigma_blur=4.0), scalespace.block_dct(FINE, 2)
    variance = jnp.asarray(np.random.default_rng(0).uniform(0.05, 0.5, FINE))
    mean = 0.3 * jnp.ones(FINE)
    prior = di.Prior(process, GaussianDenoiser(process, mean, variance), FINE)
    grid = 0.5 * times.grid(500)
    root = jnp.sqrt(variance)[::2, ::2]  # of the blocks' first coefficients, twice their means
    draw = lambda k: (mean[::2, ::2] + root * jax.random.normal(k, COARSE)) / 2
    base = CascadeStage(lambda k, m, coarse, level: di.Solution(draw(k), ()), COARSE)
    stages = [base, CascadeStage(cascades.relaying(prior, samplers.ancestral, grid, chart), FINE)]
    run = jax.jit(jax.vmap(lambda k: chart.encode(cascade(stages)(k, None).x)), compiler_options=OPTIMISED)
    z = np.asarray(run(jax.random.split(key, 10_000)))
    np.testing.assert_allclose(z.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.08)
    m = di.measure(key, operators.identity(FINE), jnp.ones(FINE), 0.01)
    guided = lambda prior, measurement: posterior.dps(prior, measurement, 0.0)
    told = cascades.relaying(prior, guided, grid, chart)
    assert cascade([CascadeStage(told, FINE)])(key, m, jnp.ones(COARSE)).x.shape == FINE


def test_a_generator_is_called_once_with_noise_and_the_coarse_picture(key):
    first = CascadeStage(cascades.generating(lambda z: z.reshape(COARSE), (4,)), COARSE)
    second = CascadeStage(
        cascades.generating(lambda z, coarse: cascades.enlarge(coarse, FINE) + 0 * z.sum(), (3,)), FINE
    )
    x = jax.vmap(lambda k: cascade([first, second])(k, None).x)(jax.random.split(key, 4000))
    assert x.shape == (4000, *FINE) and np.asarray(x).std() == pytest.approx(1, abs=0.03)
    assert int(total_cost(cascade([first, second])(key, None).info).nfe) == 2


@pytest.mark.parametrize("level", [0.0, 0.7, 2.0])
def test_a_blur_multiplies_cosines_by_the_gaussian_s_transform(level):
    """The mode k of N mirrored pixels by exp(-(pi k / N)^2 level^2 / 2); a constant stays."""
    rows, columns = np.arange(6) + 0.5, np.arange(8) + 0.5
    mode = np.cos(np.pi * 2 * rows / 6)[:, None, None] * np.cos(np.pi * 3 * columns / 8)[None, :, None]
    factor = np.exp(-((np.pi * 2 / 6) ** 2 + (np.pi * 3 / 8) ** 2) * level**2 / 2)
    done = cascades.with_blur(jax.random.key(0), jnp.asarray(0.2 + mode), level)
    np.testing.assert_allclose(done, 0.2 + factor * mode, atol=1e-12)


def test_what_cannot_be_is_one_line(key):
    stage = CascadeStage(lambda key, m, coarse, level: di.Solution(coarse, ()), COARSE)
    with pytest.raises(ValueError, match="stages is empty"):
        cascade([])
    with pytest.raises(ValueError, match=r"a stage's shape is \(5, 4, 1\) after \(2, 2, 1\); give sides"):
        cascade([stage, stage._replace(shape=(5, 4, 1))])
    with pytest.raises(ValueError, match="coarse is None; `enlarging` stands after another stage"):
        cascade([CascadeStage(cascades.enlarging(None, FINE), FINE)])(key, None)
    with pytest.raises(ValueError, match="coarse is None; `relaying`"):
        cascade([CascadeStage(cascades.relaying(gaussian_prior(), samplers.ddim, times.grid(2)), FINE)])(key, None)
    with pytest.raises(ValueError, match="measurement is None; `restoring` needs one"):
        cascade([CascadeStage(cascades.restoring(None, FINE), FINE)])(key, None)
    m = di.measure(key, operators.identity(FINE), jnp.ones(FINE), 0.1)
    for kind in (cascades.generating(None, (3,)), cascades.enlarging(None, FINE)):
        with pytest.raises(ValueError, match="measurement is given, and `[a-z]+` cannot see it"):
            cascade([CascadeStage(kind, FINE)])(key, m)
