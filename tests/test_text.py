"""Words and their numbers, and what brings texts near their pictures, by hand and in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import text

CAPTIONS = ("AnnualCrop", "Highway", "red apple", "green apple", "Herbaceous-Vegetation 12")


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("AnnualCrop", ["annual", "crop"]),
        ("heard & mcdonald islands flag", ["heard", "mcdonald", "islands", "flag"]),
        ("USA flag", ["usa", "flag"]),
        ("café_12", ["café", "1", "2"]),
        ("  !? ", []),
        ("Äpfel", ["äpfel"]),
    ],
)
def test_words_of_a_caption(caption, expected):
    assert text.words(caption) == expected


def test_a_vocabulary_has_every_word_once_and_leaves_out_rare_ones():
    found = text.vocabulary(CAPTIONS)
    assert found == tuple(sorted(set(found))) and {"annual", "crop", "apple", "1", "2", "vegetation"} <= set(found)
    assert text.vocabulary(CAPTIONS, 2) == ("apple",)


def test_tokens_are_places_in_the_vocabulary_and_zero_for_none():
    known = text.vocabulary(CAPTIONS)
    found = text.tokens("Red APPLE", known, 4)
    assert found.dtype == np.int32 and [known[i - 1] for i in found[:2]] == ["red", "apple"]
    assert found[2:].tolist() == [0, 0]
    assert text.tokens("red green apple", known, 2).tolist() == [known.index("red") + 1, known.index("green") + 1]
    assert text.tokens("a red pear", known, 3, strict=False).tolist() == [known.index("red") + 1, 0, 0]


@pytest.mark.parametrize("prompt", ["", "  ", "?!"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="has no word; give words such as"):
        text.tokens(prompt, text.vocabulary(CAPTIONS), 4)


def test_an_unknown_word_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="the word 'appel', which the model has not read; did you mean 'apple'"):
        text.tokens("red appel", text.vocabulary(CAPTIONS), 4)
    with pytest.raises(ValueError, match="it knows 10, such as"):
        text.tokens("zzz", text.vocabulary(CAPTIONS), 4)


def rows(seed, count, width=3):
    found = np.random.default_rng(seed).normal(size=(count, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_contrastive_loss_by_hand():
    """CLIP's where every caption stands once; in float64 to 1e-12."""
    a, b, tau = rows(0, 4), rows(1, 4), 0.2
    logits = a @ b.T / tau
    log_softmax = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))
    expected = -(np.diag(log_softmax(logits)) + np.diag(log_softmax(logits.T))).mean() / 2
    found = text.contrastive_loss(jnp.asarray(a), jnp.asarray(b), jnp.arange(4), tau)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_repeated_captions_are_right_at_all_their_places():
    a, b = jnp.asarray(rows(0, 4)), jnp.asarray(rows(1, 4))
    assert float(text.contrastive_loss(a, b, jnp.zeros(4, jnp.int32))) == pytest.approx(0, abs=1e-12)
    pairs = text.contrastive_loss(a, b, jnp.asarray([0, 0, 1, 1]))
    assert 0 < float(pairs) < float(text.contrastive_loss(a, b, jnp.arange(4)))


def test_the_loss_falls_to_zero_where_each_finds_its_own():
    eye = jnp.eye(4)
    assert float(text.contrastive_loss(eye, eye, jnp.arange(4), 0.01)) < 1e-12
    assert float(text.contrastive_loss(eye, eye[::-1], jnp.arange(4), 0.01)) == pytest.approx(100, rel=1e-3)


def test_the_gradient_brings_a_text_to_its_picture():
    a, b = jnp.asarray(rows(0, 4)), jnp.asarray(rows(1, 4))
    direction = -jax.grad(text.contrastive_loss)(a, b, jnp.arange(4))
    before, after = (jnp.sum(x * b) for x in (a, a + 0.1 * direction))
    assert after > before


def test_text_match_counts_those_whose_own_text_is_nearest():
    texts = jnp.eye(4)
    seen = texts[jnp.asarray([0, 1, 2, 2])] + 0.1 * texts[jnp.asarray([1, 2, 3, 3])]
    assert float(text.text_match(seen, texts, jnp.asarray([0, 1, 2, 3]))) == 0.75
    assert float(text.text_match(seen, texts, jnp.asarray([0, 1, 2, 3]), 2)) == 1
    assert float(text.text_match(seen, texts, jnp.asarray([3, 3, 0, 1]))) == 0


def test_text_match_of_unrelated_vectors_is_chance():
    texts, seen = rows(0, 20, 8), rows(1, 4000, 8)
    found = text.text_match(jnp.asarray(seen), jnp.asarray(texts), jnp.arange(4000) % 20, 5)
    assert float(found) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))
