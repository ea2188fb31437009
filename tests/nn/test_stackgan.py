"""StackGAN's networks: the numbers of weights of the authors' code, what a batch shares, and what a size must be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv.nn import stackgan

NOISE, EMBEDDED, WIDTH = 100, 1024, 128
ones = partial(jnp.ones, dtype=jnp.float32)


def shapes(net, *arguments):
    """Variables by shape alone; nothing is computed."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arguments]
    return jax.eval_shape(net.init, jax.random.key(0), *arguments)


def weights(net, *arguments):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(net, *arguments)["params"]))


def test_the_tree_has_the_published_weights():
    """Birds in three stages, whole and by part; and without text."""
    found = shapes(stackgan.Tree(), (NOISE,), (EMBEDDED,))["params"]
    count = lambda name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(found[name]))
    parts = {"Augmentation_0": 524_800, "Root_0": 20_074_240, "Branch_0": 480_384, "Branch_1": 157_248}
    parts |= {"Head_0": 1728, "Head_1": 864, "Head_2": 432}
    assert {name: count(name) for name in found} == parts
    assert sum(parts.values()) == 21_239_696
    assert weights(stackgan.Tree(), (NOISE,)) == 16_472_208


@pytest.mark.parametrize(
    ("size", "with_text", "without"),
    [(64, 5_723_906, 2_765_569), (128, 18_834_178, 15_875_841), (256, 71_269_122, 68_310_785)],
)
def test_the_judges_have_the_published_weights(size, with_text, without):
    assert weights(stackgan.Judge(), (size, size, 3), (WIDTH,)) == with_text
    assert weights(stackgan.Judge(), (size, size, 3)) == without


def test_the_first_version_has_the_published_weights():
    """COCO: GF_DIM 192, DF_DIM 96, two residual blocks."""
    first = weights(stackgan.First(), (NOISE,), (EMBEDDED,))
    second = weights(stackgan.Second(), (64, 64, 3), (EMBEDDED,))
    assert (first, first + second) == (20_020_832, 57_151_312)
    assert weights(stackgan.Judge(96, alone=False), (64, 64, 3), (WIDTH,)) == 12_407_425
    assert weights(stackgan.Judge(96), (256, 256, 3), (WIDTH,)) == 159_889_538


def test_every_scale_has_its_size_and_range():
    for size, branches in ((4, 2), (8, 3), (16, 3)):
        tree = stackgan.Tree(size, branches, 8, 6)
        made = jax.eval_shape(lambda tree=tree: tree.init_with_output(jax.random.key(0), ones(5), ones(7)))[0]
        sides = [size * 2**i for i in range(branches)]
        assert [picture.shape for picture in made.pictures] == [(side, side, 3) for side in sides]
        assert made.text.mean.shape == made.text.log_variance.shape == (6,)
        for side in sides:
            logits = jax.eval_shape(
                lambda s=side, b=size: stackgan.Judge(8, b).init_with_output(
                    jax.random.key(0), ones((s, s, 3)), ones(6)
                )
            )[0]
            assert logits.conditional.shape == logits.unconditional.shape == ()


SMALL = stackgan.Tree(4, 2, 4, 3)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(SMALL.init)(jax.random.key(1), ones(5), ones(7), ones(3))


def test_a_batch_shares_its_statistics(variables, key):
    """By hand for the first normalisation: the mean over the batch, and a tenth of it in the running one."""
    z, embedding, eps = (jax.random.normal(k, (6, n), jnp.float32) for k, n in zip(jax.random.split(key, 3), (5, 7, 3)))
    run = lambda z, e, n: SMALL.apply(variables, z, e, n, train=True, mutable=["batch_stats", "intermediates"],
                                      capture_intermediates=True)  # fmt: skip
    made, told = jax.jit(jax.vmap(run, axis_name=stackgan.AXIS))(z, embedding, eps)
    assert [picture.shape for picture in made.pictures] == [(6, 4, 4, 3), (6, 8, 8, 3)]
    assert max(float(jnp.abs(picture).max()) for picture in made.pictures) <= 1
    root = jax.tree.map(np.asarray, told["intermediates"]["Root_0"])
    before, after = root["Dense_0"]["__call__"][0], root["Norm_0"]["__call__"][0]
    scale = np.asarray(variables["params"]["Root_0"]["Norm_0"]["BatchNorm_0"]["scale"])
    whitened = (before - before.mean(0)) / np.sqrt(before.var(0) + 1e-5)
    np.testing.assert_allclose(after, scale * whitened, atol=2e-5)
    running = told["batch_stats"]["Root_0"]["Norm_0"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(running, np.broadcast_to(0.1 * before.mean(0), running.shape), atol=1e-6)


def test_one_example_alone_takes_the_running_statistics(variables, key):
    """And without noise the condition is the mean."""
    z, embedding = jax.random.normal(key, (5,), jnp.float32), jnp.linspace(-1, 1, 7, dtype=jnp.float32)
    alone = SMALL.apply(variables, z, embedding)
    none = SMALL.apply(variables, z, embedding, 0 * ones(3))
    np.testing.assert_array_equal(alone.pictures[1], none.pictures[1])
    other = SMALL.apply(variables, z, embedding, ones(3))
    assert float(jnp.abs(other.pictures[0] - alone.pictures[0]).max()) > 1e-4
    deviation = jnp.exp(alone.text.log_variance / 2)
    np.testing.assert_allclose(alone.text.at(ones(3)), alone.text.mean + deviation, rtol=1e-6)


def test_the_first_version_only_adds_noise(key):
    """Its ReLU leaves no log variance under 0: deviations are 1 at least; the second version's may be smaller."""
    embedding = jax.random.normal(key, (7,), jnp.float32)
    laws = [stackgan.Augmentation(50, gated).init_with_output(key, embedding)[0] for gated in (False, True)]
    assert float(laws[0].log_variance.min()) == 0 and float(laws[1].log_variance.min()) < 0


def test_a_judge_of_the_picture_alone_knows_no_condition():
    net = stackgan.Judge(4, 8)
    x = ones((8, 8, 3))
    variables = jax.jit(net.init)(jax.random.key(0), x, ones(3))
    one, other = (net.apply(variables, x, c) for c in (ones(3), -ones(3)))
    assert one.unconditional == other.unconditional and one.conditional != other.conditional
    assert net.apply(net.init(jax.random.key(0), x), x).conditional is None
    assert stackgan.Judge(4, 8, alone=False).init_with_output(jax.random.key(0), x, ones(3))[0].unconditional is None


def test_glu_and_enlargement_by_hand():
    np.testing.assert_allclose(stackgan.glu(jnp.asarray([2.0, 3.0, 0.0, jnp.inf])), [1, 3])
    np.testing.assert_array_equal(stackgan.enlarged(jnp.asarray([[[1.0], [2.0]]]))[..., 0], [[1, 1, 2, 2]] * 2)


@pytest.mark.parametrize("size", [0, 3, 12, 20])
def test_a_size_that_is_no_doubling_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size}; give 4, 8, 16"):
        stackgan.doublings(size)


def test_settled_statistics_are_those_of_the_batch(variables, key):
    """A batch under its own settled statistics is what it is in training."""
    z, embedding, eps = (jax.random.normal(k, (6, n), jnp.float32) for k, n in zip(jax.random.split(key, 3), (5, 7, 3)))
    train = lambda z, e, n: SMALL.apply(variables, z, e, n, train=True, mutable=["batch_stats"])[0]
    expected = jax.jit(jax.vmap(train, axis_name=stackgan.AXIS))(z, embedding, eps)
    found = jax.jit(lambda *batch: stackgan.with_statistics(SMALL, variables["params"], *batch))(z, embedding, eps)
    assert jax.tree.structure(found) == jax.tree.structure(dict(variables))
    alone = jax.jit(jax.vmap(lambda z, e, n: SMALL.apply(found, z, e, n)))(z, embedding, eps)
    for one, other in zip(alone.pictures, expected.pictures):
        np.testing.assert_allclose(one, other, atol=2e-5)
    without = stackgan.Tree(4, 1, 4)
    params = without.init(key, ones(5))["params"]
    assert set(stackgan.with_statistics(without, params, z)) == {"params", "batch_stats"}
