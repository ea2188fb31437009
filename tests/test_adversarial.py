"""StackGAN's losses against closed forms: the judges' optimum, the text's divergence, what replication keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import FAST

from diffinv import adversarial, train
from diffinv.nn import stackgan
from diffinv.nn.stackgan import Logits, enlarged


def bce(logit, label):
    """As the code has it, on probabilities."""
    p = 1 / (1 + np.exp(-np.asarray(logit, float)))
    return -np.log(p) if label else -np.log(1 - p)


REAL, FAKE, WRONG = (Logits(*map(jnp.asarray, pair)) for pair in ((0.7, -0.3), (1.1, 0.4), (-0.2, 0.9)))


def test_the_joint_loss_by_hand():
    """All six terms of the code; the paper's four; those of the picture alone; those of the pair alone."""
    paper = bce(0.7, 1) + bce(-0.3, 1) + bce(1.1, 0) + bce(0.4, 0)
    assert float(adversarial.judge_loss(REAL, FAKE)) == pytest.approx(paper)
    assert float(adversarial.judge_loss(REAL, FAKE, WRONG)) == pytest.approx(paper + bce(-0.2, 0) + bce(0.9, 1))
    without = adversarial.judge_loss(REAL, FAKE, WRONG, wrong_is_real=False)
    assert float(without) == pytest.approx(paper + bce(-0.2, 0))
    alone = [Logits(None, each.unconditional) for each in (REAL, FAKE, WRONG)]
    assert float(adversarial.judge_loss(*alone)) == pytest.approx(bce(-0.3, 1) + bce(0.4, 0))
    pairs = [Logits(each.conditional, None) for each in (REAL, FAKE, WRONG)]
    assert float(adversarial.judge_loss(*pairs)) == pytest.approx(bce(0.7, 1) + (bce(1.1, 0) + bce(-0.2, 0)) / 2)
    assert float(adversarial.judge_loss(*pairs[:2])) == pytest.approx(bce(0.7, 1) + bce(1.1, 0))


def test_the_first_version_s_loss_by_hand():
    both = (bce(0.7, 1) + bce(-0.3, 1)) / 2 + (bce(1.1, 0) + bce(-0.2, 0) + bce(0.4, 0)) / 3
    assert float(adversarial.first_judge_loss(REAL, FAKE, WRONG)) == pytest.approx(both)
    pairs = [Logits(each.conditional, None) for each in (REAL, FAKE, WRONG)]
    expected = bce(0.7, 1) + (bce(1.1, 0) + bce(-0.2, 0)) / 2
    assert float(adversarial.first_judge_loss(*pairs)) == pytest.approx(expected)


def test_the_generator_s_loss_is_of_all_scales_and_heads():
    expected = bce(1.1, 1) + bce(0.4, 1) + bce(0.9, 1)
    assert float(adversarial.generator_loss([FAKE, Logits(None, WRONG.unconditional)])) == pytest.approx(expected)


@pytest.fixture
def laws():
    """p(x, c) of 4 pictures and 3 texts, and q(x, c) of a generator that draws texts by the same law."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(12)).reshape(4, 3)
    q = rng.dirichlet(np.ones(4), 3).T * p.sum(0)
    return p, q


ALWAYS, NEVER = Logits(50.0, 50.0), Logits(-50.0, -50.0)  # which lose nothing where they are right


def expected_loss(table, p, q, wrong_is_real):
    """Over real pairs, generated pairs, and independent real pictures and texts, by a table of logits."""
    pair, alone = table
    one = lambda x, c: Logits(pair[x, c], alone[x])
    total, mixed = 0.0, p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    for x, c in np.ndindex(p.shape):
        real = adversarial.judge_loss(one(x, c), NEVER)
        fake = adversarial.judge_loss(ALWAYS, one(x, c))
        wrong = adversarial.judge_loss(ALWAYS, NEVER, one(x, c), wrong_is_real)
        total += p[x, c] * real + q[x, c] * fake + mixed[x, c] * wrong
    return total


@pytest.mark.parametrize(("wrong_is_real", "weight"), [(True, 2), (False, 1)])
def test_the_optimal_judge_is_the_ratio_of_densities(laws, wrong_is_real, weight):
    """D(x, c) = p(x, c) / (p(x, c) + p(x) p(c) + q(x, c)); D(x) = 2 p / (2 p + q) where a mismatch is real."""
    p, q = laws
    mixed = np.outer(p.sum(1), p.sum(0))
    pair, alone = p / (p + mixed + q), weight * p.sum(1) / (weight * p.sum(1) + q.sum(1))
    optimum = tuple(jnp.asarray(np.log(d / (1 - d))) for d in (pair, alone))
    loss = lambda table: expected_loss(table, p, q, wrong_is_real)
    for slope in jax.grad(loss)(optimum):
        np.testing.assert_allclose(slope, 0, atol=1e-12)
    for slope in jax.grad(loss)(tuple(table + 0.1 for table in optimum)):
        assert (np.asarray(slope) > 0).all()  # the loss is convex in the logits


def test_the_divergence_of_the_text_in_closed_form(key):
    """Against its expectation by samples, and the code's weight: twice the mean."""
    mean, log_variance = jnp.linspace(-1, 2, 8), jnp.linspace(-1, 1, 8)
    whole = adversarial.text_divergence(mean, log_variance, averaged=False)
    deviation = np.exp(np.asarray(log_variance) / 2)
    z = np.random.default_rng(0).standard_normal((200_000, 8))
    log_ratio = (-(z**2) / 2 - np.log(deviation) + (np.asarray(mean) + deviation * z) ** 2 / 2).sum(1)
    assert float(whole) == pytest.approx(log_ratio.mean(), abs=4 * log_ratio.std() / np.sqrt(len(z)))
    assert float(adversarial.text_divergence(mean, log_variance)) == pytest.approx(float(whole) * 2 / 8)
    assert float(adversarial.text_divergence(0 * mean, 0 * mean)) == 0


def test_colours_are_numpy_s_moments(key):
    x = jax.random.uniform(key, (6, 4, 3), minval=-1)
    mean, covariance = adversarial.colours(x)
    rows = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-10)


def test_repeated_pixels_keep_their_colours(key):
    coarse = jax.random.uniform(key, (4, 4, 3), minval=-1)
    assert float(adversarial.colour_consistency(enlarged(coarse), coarse)) == pytest.approx(0, abs=1e-24)


def test_colour_consistency_by_hand(key):
    """A shift moves the mean alone; the coarser picture has no gradient; the code divides by 3 and by 9."""
    coarse = jax.random.uniform(key, (4, 4, 3), minval=-1)
    shifted = enlarged(coarse) + jnp.asarray([0.1, 0.2, 0.0])[None, None]
    whole = adversarial.colour_consistency(shifted, coarse, averaged=False)
    assert float(whole) == pytest.approx(0.05)
    assert float(adversarial.colour_consistency(shifted, coarse)) == pytest.approx(0.05 / 3)
    wider = 2 * coarse - jnp.mean(coarse, (0, 1), keepdims=True)  # of covariance 4 S
    _, covariance = adversarial.colours(coarse)
    expected = 5 * 9 * float(jnp.sum(covariance**2))
    assert float(adversarial.colour_consistency(wider, coarse, averaged=False)) == pytest.approx(expected)
    assert float(adversarial.colour_consistency(wider, coarse)) == pytest.approx(expected / 9)
    slope = jax.grad(lambda c: adversarial.colour_consistency(wider, c))(coarse)
    assert not np.asarray(slope).any()


def test_entropy_of_colours(key):
    """One colour has none; two of equal share have log 2; the bins' edges belong to a bin."""
    flat = jnp.full((3, 4, 4, 3), 0.3)
    assert float(adversarial.colour_entropy(flat)) == 0
    two = flat.at[:, :2].set(-0.9)
    assert float(adversarial.colour_entropy(two)) == pytest.approx(np.log(2))
    assert float(adversarial.colour_entropy(jnp.stack([-jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3))]))) == pytest.approx(
        np.log(2)
    )
    every = jax.random.uniform(key, (64, 32, 32, 1), minval=-1)
    assert float(adversarial.colour_entropy(every)) == pytest.approx(np.log(8), abs=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_losses_and_slopes_are_finite_for_every_logit(logit, dtype):
    def loss(value):
        one = Logits(value, value)
        return adversarial.judge_loss(one, one, one) + adversarial.generator_loss([one])

    value, slope = jax.value_and_grad(loss)(jnp.asarray(logit, dtype))
    assert np.isfinite(value) and np.isfinite(slope) and value.dtype == dtype


def test_a_pyramid_has_block_averages(key):
    x = jax.random.uniform(key, (8, 8, 3))
    small, whole = adversarial.pyramid(x, (2, 8))
    np.testing.assert_allclose(small[1, 0], x[4:, :4].mean((0, 1)), rtol=1e-12)
    np.testing.assert_array_equal(whole, x)
    with pytest.raises(ValueError, match="sizes has 3, and pictures are 8 x 8"):
        adversarial.pyramid(x, (2, 3))


TREE, JUDGES = stackgan.Tree(4, 2, 4, 3), [stackgan.Judge(4, 4), stackgan.Judge(4, 4)]
KEPT = {"train": True, "mutable": ["batch_stats"]}
generate = lambda params, *example: TREE.apply(params, *example, **KEPT)[0]
judges = [lambda params, *example, net=net: net.apply(params, *example, **KEPT)[0] for net in JUDGES]


@pytest.fixture(scope="module")
def game():
    """Weights of both sides, and a batch with texts."""
    normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, jnp.float32)
    drawn = lambda net, seed, *example: jax.jit(net.init, compiler_options=FAST)(jax.random.key(seed), *example)
    side = lambda i: (4 * 2**i, 4 * 2**i, 3)
    params = {
        "generator": drawn(TREE, 0, normal(1, 5), normal(2, 7)),
        "judges": [drawn(net, 3 + i, normal(4, *side(i)), normal(5, 3)) for i, net in enumerate(JUDGES)],
    }
    return params, {
        "image": jnp.tanh(normal(6, 6, 8, 8, 3)),
        "embedding": normal(7, 6, 7),
        "other": jnp.tanh(normal(8, 6, 8, 8, 3)),
    }


def sides(key, params, batch, colour_weight):
    """The judges' loss and the generator's, written out for this one game."""
    z_key, eps_key = jax.random.split(key)
    z, eps = jax.random.normal(z_key, (6, 5), jnp.float32), jax.random.normal(eps_key, (6, 3), jnp.float32)
    made = jax.vmap(lambda *e: generate(params["generator"], *e), axis_name="batch")(z, batch["embedding"], eps)
    shrunk = lambda x, i: x.reshape(6, 4 * 2**i, 2 - i, 4 * 2**i, 2 - i, 3).mean((2, 4))
    mu, of_judges, of_generator = made.text.mean, 0.0, 0.0
    for i, fake in enumerate(made.pictures):
        run = lambda x, i=i: jax.vmap(lambda x, c: judges[i](params["judges"][i], x, c), axis_name="batch")(x, mu)
        real, wrong, told = run(shrunk(batch["image"], i)), run(shrunk(batch["other"], i)), run(fake)
        of_judges += jnp.mean(jax.vmap(adversarial.judge_loss)(real, told, wrong))
        of_generator += jnp.mean(jax.nn.softplus(-told.conditional) + jax.nn.softplus(-told.unconditional))
    of_generator += jnp.mean(jax.vmap(adversarial.text_divergence)(*made.text))
    colour = jax.vmap(adversarial.colour_consistency)(made.pictures[1], made.pictures[0])
    return of_judges, of_generator + colour_weight * jnp.mean(colour)


@functools.partial(jax.jit, compiler_options=FAST)
def by_hand(key, params, batch, colour_weight):
    """The sum of both losses, and the gradients of both, stacked."""
    both = lambda params: jnp.stack(sides(key, params, batch, colour_weight))
    return jnp.sum(both(params)), jax.jacrev(both)(params)


@pytest.mark.parametrize("colour_weight", [0.0, 50.0])
def test_each_side_s_gradient_is_of_its_own_loss(game, key, colour_weight):
    params, batch = game
    loss = adversarial.joint_loss(generate, judges, 5, 3, colour_weight=colour_weight)
    value, found = jax.jit(jax.value_and_grad(loss, 1), compiler_options=FAST)(key, params, batch)
    total, slopes = by_hand(key, params, batch, colour_weight)
    assert float(value) == pytest.approx(float(total), rel=1e-4)
    for name, side in (("judges", 0), ("generator", 1)):
        expected = jax.tree.map(lambda leaf, side=side: np.asarray(leaf[side]), slopes[name])
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
        for one, other in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-4 * scale)
        assert scale > 1e-3


def test_the_game_without_texts_runs_under_the_trainer(key):
    """Both sides move, by one optimizer, and the running statistics, which training does not use, stay."""
    tree, nets = stackgan.Tree(4, 2, 4), [stackgan.Judge(4, 4), stackgan.Judge(4, 4)]
    x = lambda side: jnp.zeros((side, side, 3), jnp.float32)
    drawn = lambda net, example: jax.jit(net.init, compiler_options=FAST)(key, example)
    params = {
        "generator": drawn(tree, jnp.zeros(5, jnp.float32)),
        "judges": [drawn(net, x(side)) for net, side in zip(nets, (4, 8))],
    }
    make = lambda params, z, *_: tree.apply(params, z, **KEPT)[0]
    see = [lambda params, x, c, net=net: net.apply(params, x, **KEPT)[0] for net in nets]
    loss = adversarial.joint_loss(make, see, 5, colour_weight=50.0)
    both = train.trainer(loss, optax.adam(2e-4, b1=0.5))
    state, batch = both.init(params), {"image": jnp.tanh(jax.random.normal(key, (6, 8, 8, 3), jnp.float32))}
    step = jax.jit(both.step)
    with jax.numpy_dtype_promotion("standard"):  # optax promotes
        for i in range(2):
            state, metrics = step(jax.random.key(i), state, batch)
    assert np.isfinite(metrics.loss) and int(state.skipped) == 0
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, params)
    for side in (moved["generator"], *moved["judges"]):
        assert min(jax.tree.leaves(side["params"])) > 1e-5 and not any(jax.tree.leaves(side.get("batch_stats", {})))


def test_the_slope_of_a_linear_judge():
    """|w_c + w_u|^2 / 2, wherever it stands; of one head alone, its own."""
    w = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    judge = lambda w, x, c: Logits(jnp.sum(w[0] * x) + c, jnp.sum(w[1] * x))
    x = jax.random.normal(jax.random.key(1), (4, 4, 1))
    expected = float(jnp.sum((w[0] + w[1]) ** 2)) / 2
    for at in (x, -3 * x):
        assert float(adversarial.slope(judge, w, at, jnp.asarray(2.0))) == pytest.approx(expected)
    alone = lambda w, x, c: Logits(None, jnp.sum(w[1] * x))
    assert float(adversarial.slope(alone, w, x, None)) == pytest.approx(float(jnp.sum(w[1] ** 2)) / 2)


def test_the_slope_s_weight_is_added_once_for_each_judge():
    """A joint loss of one judge that is linear, by its weight; and it moves no generator."""
    judge = lambda w, x, c: Logits(None, jnp.sum(w * x))
    picture = lambda p, z, *_: stackgan.Generated((jnp.full((4, 4, 1), p * z[0]),), None)
    params = {"generator": jnp.asarray(0.3), "judges": [jax.random.normal(jax.random.key(0), (4, 4, 1))]}
    batch = {"image": jax.random.normal(jax.random.key(1), (3, 4, 4, 1))}

    def of(weight):
        loss = adversarial.joint_loss(picture, [judge], 2, slope_weight=weight)
        return jax.value_and_grad(loss, argnums=1)(jax.random.key(2), params, batch)

    (without, plain), (value, moved) = of(0.0), of(0.7)
    slope = float(jnp.sum(params["judges"][0] ** 2)) / 2
    assert float(value - without) == pytest.approx(0.7 * slope)
    assert float(moved["generator"] - plain["generator"]) == 0
    np.testing.assert_allclose(moved["judges"][0] - plain["judges"][0], 0.7 * params["judges"][0], rtol=1e-9)
