"""The game and the generator that is left of it: whose loss moves what, what sampling needs, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

from diffinv import generator, text
from diffinv.generator import TextToImage

SMALL = {"size": 8, "branches": 2, "features": 4, "width": 3, "blocks": 0, "noise": 5, "judge_features": 2}
READS = {"words": 4, "embedding": 6, "length": 3, "viewer_features": 2}
TOKENS = jnp.asarray([[1, 2, 0], [3, 0, 0], [4, 1, 2], [1, 2, 0]], jnp.int32)


@pytest.fixture(autouse=True)
def plain():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def played():
    """The game with texts, drawn weights, a batch, and the loss by its weights with the gradient."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        game = generator.game(**SMALL, **READS)
        params = jax.jit(lambda key: generator.drawn(key, game), compiler_options=FAST)(jax.random.key(0))
        image = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3), jnp.float32, -1, 1)
        batch = {"image": image, "other": image[::-1], "tokens": TOKENS, "caption": jnp.asarray([0, 1, 2, 0])}

        def of(contrast, params):
            return generator.game_loss(game, contrast_weight=contrast)(jax.random.key(2), params, batch)

        graded = jax.jit(jax.value_and_grad(of, 1), compiler_options=FAST)
        return game, params, batch, {weight: graded(weight, params) for weight in (0.0, 1.0)}


def test_the_loss_is_the_game_s_and_the_contrast_s(played):
    game, params, batch, found = played
    read = generator.embedded_texts(game, params, batch["tokens"])
    seen = generator.viewed(game, params, batch["image"])
    contrast = text.contrastive_loss(read, seen, batch["caption"])
    assert float(found[1.0][0] - found[0.0][0]) == pytest.approx(float(contrast), rel=1e-4)


def test_encoders_are_moved_by_the_contrast_alone_and_statistics_by_nothing(played):
    size = lambda tree: max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))
    without, whole = (played[3][weight][1] for weight in (0.0, 1.0))
    for encoder in ("reader", "viewer"):
        assert size(without[encoder]) == 0 < size(whole[encoder])
    for side in ("generator", "judges"):
        assert size(whole[side]) > 0
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), without[side], whole[side])
    assert size(whole["statistics"]) == 0


def test_running_statistics_are_those_of_the_texts_and_change_nothing_else(played):
    game, params, batch, _ = played
    found = generator.with_running_statistics(jax.random.key(3), game, params, batch["tokens"])
    same = lambda name: all(map(np.array_equal, jax.tree.leaves(params[name]), jax.tree.leaves(found[name])))
    assert all(same(name) for name in params if name != "statistics") and not same("statistics")
    assert jax.tree.structure(found) == jax.tree.structure(params)
    z, eps = generator.codes(jax.random.key(3), game, 4)
    texts = generator.widely(generator.embedded_texts(game, params, batch["tokens"]))
    np.testing.assert_allclose(jnp.sum(texts**2, 1), READS["embedding"], rtol=1e-4)
    run = lambda *given: game.tree.apply({"params": params["generator"]}, *given, True, mutable=["batch_stats"])[0]
    trained = jax.vmap(run, axis_name="batch")(z, texts, eps)
    used = lambda *given: game.tree.apply({"params": found["generator"], "batch_stats": found["statistics"]}, *given)
    for a, b in zip(trained.pictures, jax.vmap(used)(z, texts, eps).pictures, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_one_key_is_one_draw_and_truncation_ends_in_one(played):
    game, params, batch, _ = played
    model = TextToImage(
        generator.with_running_statistics(jax.random.key(3), game, params, batch["tokens"]),
        game,
        ("a", "b", "c", "d"),
        ("a b", "c"),
    )
    draw = jax.jit(lambda key, level: model(key, model.tokens("a b"), level).pictures, compiler_options=FAST)
    first, again, other = (draw(jax.random.key(seed), 1.0) for seed in (0, 0, 1))
    assert [picture.shape for picture in first] == [(4, 4, 3), (8, 8, 3)]
    assert np.array_equal(first[1], again[1]) and not np.allclose(first[1], other[1], atol=1e-3)
    np.testing.assert_array_equal(*(draw(jax.random.key(seed), 0.0)[1] for seed in (0, 1)))
    with pytest.raises(ValueError, match="reads a text; give tokens"):
        model(jax.random.key(0))
    with pytest.raises(ValueError, match="did you mean|it knows 4"):
        model.tokens("e")


@pytest.mark.slow
def test_without_texts_noise_takes_their_place():
    game = generator.game(**SMALL)
    assert game.reader is None and game.viewer is None and all(judge.alone for judge in game.judges)
    params = jax.jit(lambda key: generator.drawn(key, game), compiler_options=FAST)(jax.random.key(0))
    assert set(params) == {"generator", "statistics", "judges"} and set(params["judges"]) == {"4", "8"}
    loss = generator.game_loss(game, colour_weight=50.0)
    image = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3), jnp.float32, -1, 1)
    assert np.isfinite(jax.jit(loss, compiler_options=FAST)(jax.random.key(2), params, {"image": image}))
    model = TextToImage(generator.with_running_statistics(jax.random.key(3), game, params, None, 8), game)
    assert model(jax.random.key(0)).pictures[1].shape == (8, 8, 3)
    with pytest.raises(ValueError, match="reads no text; leave tokens out"):
        model(jax.random.key(0), TOKENS[0])


def test_judges_of_pairs_alone():
    """Without the joint judges of the paper's ablation there is no head of the picture alone."""
    game = generator.game(**SMALL, **READS, alone=False)
    for alone in (True, False):
        judge = generator.game(**SMALL, **READS, alone=alone).judges[0]
        heads = judge.init_with_output(jax.random.key(0), jnp.zeros((4, 4, 3)), jnp.zeros(3))[0]
        assert heads.conditional.shape == () and (heads.unconditional is not None) == alone
    assert all(not judge.alone for judge in game.judges)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"size": 12}, "size is 12"),
        ({"branches": 3}, "branches is 3; pictures of 8 pixels leave at most 2"),
        ({"features": 3}, "features is 3; each branch halves it: give a multiple of 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        generator.game(**{**SMALL, **change})
