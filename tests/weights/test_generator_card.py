"""A generator's card: what it rebuilds, what is refused in one line, and that kinds of checkpoints are told apart."""

import copy
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FAST

from diffinv import generator, weights
from diffinv.weights import cards

SECTION = {
    "size": 8,
    "branches": 2,
    "features": 4,
    "width": 3,
    "channels": 3,
    "blocks": 0,
    "noise": 5,
    "judge_features": 2,
    "words": 2,
    "embedding": 6,
    "length": 3,
    "viewer_features": 2,
}
CARD = {"name": "tiny", "generator": SECTION, "words": ["apple", "red"], "labels": ["red apple"], "shape": [8, 8, 3]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        game = cards.build_game(SECTION)
        params = jax.jit(lambda key: generator.drawn(key, game), compiler_options=FAST)(jax.random.key(0))
        path = str(tmp_path_factory.mktemp("card") / "tiny")
        weights.save(path, params, CARD)
        yield path, params


def test_a_saved_generator_is_the_same_generator(home):
    path, params = home
    model = weights.load_generator(path)
    assert model.words == ("apple", "red") and model.captions == ("red apple",) and "judges" not in model.params
    assert model.game == cards.build_game(SECTION)
    used = {name: leaf for name, leaf in params.items() if name != "judges"}
    jax.tree.map(np.testing.assert_array_equal, model.params, used)
    assert model(jax.random.key(0), model.tokens("red apple")).pictures[-1].shape == (8, 8, 3)


def test_the_card_knows_every_weight(home):
    told = cards.expected_shapes(CARD)
    flat = weights.flatten(home[1])
    assert told == {name: leaf.shape for name, leaf in flat.items()}
    unread = {**SECTION, "words": 0}
    assert not any(name.startswith(("reader", "viewer")) for name in cards.expected_shapes({"generator": unread}))


WRONG = [
    ({"generator": 5}, "card.generator is 5"),
    ({"generator.size": 12}, "card.generator.size is 12"),
    ({"generator.size": None}, "card.generator.size is None; give a whole number"),
    ({"generator.branches": 5}, "card.generator.features is 4; each branch halves it: give a multiple of 16"),
    ({"generator.features": 5}, "card.generator.features is 5; each branch halves it"),
    ({"generator.evil": 1}, "card.generator has no field 'evil'"),
    ({"generator.channels": 4}, "card.generator.channels is 4"),
    ({"generator.noise": 6}, "of one export"),
    ({"words": ["apple"]}, "card.words has 1 words, the network 2; make them agree"),
    ({"words": "apple"}, "card.words is 'apple'; give a list of words"),
    ({"labels": [3]}, "card.labels is [3]"),
    ({"shape": [16, 16, 3]}, "card.shape is [16, 16, 3], the network's side 8; make them agree"),
    ({"version": 99}, "card.version is 99"),
]


@pytest.mark.parametrize("change, said", WRONG, ids=[str(change)[:40] for change, _ in WRONG])
def test_a_wrong_field_is_one_line_with_the_card_s_path(home, change, said):
    path = Path(f"{home[0]}.json")
    sound = json.loads(path.read_text())
    card = copy.deepcopy(sound)
    for name, value in change.items():
        *inside, last = name.split(".")
        (card[inside[0]] if inside else card)[last] = value
    try:
        path.write_text(json.dumps(card))
        with pytest.raises(ValueError) as error:
            weights.load_generator(home[0])
    finally:
        path.write_text(json.dumps(sound))
    assert said in str(error.value) and home[0] in str(error.value) and "\n" not in str(error.value)


def test_kinds_are_told_apart(home):
    assert cards.kind_of(CARD) == "generator" and cards.is_generator(CARD)
    assert cards.kind_of({"scale": 4}) == "upscaler" and cards.kind_of({}) == "prior"
    with pytest.raises(ValueError, match="is of a generator, and prior is wanted.*load_generator"):
        weights.load_prior(home[0])
    with pytest.raises(ValueError, match="is of a generator, and upscaler is wanted"):
        weights.load_upscaler(home[0])
    with pytest.raises(ValueError, match="is of a prior, and generator is wanted.*load_prior"):
        weights.load_generator(weights.embedded())
    with pytest.raises(ValueError, match="changes to .*generator"):
        weights.amend(home[0], {"generator": {}})


def test_half_precision_keeps_the_statistics(home, tmp_path):
    """They are stored with the weights, and widened with them."""
    path = str(tmp_path / "half")
    weights.save(path, weights.halved(home[1]), {**CARD, "name": "half"})
    model = weights.load_generator(path)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("float32")}
    for a, b in zip(jax.tree.leaves(model.params["statistics"]), jax.tree.leaves(home[1]["statistics"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
