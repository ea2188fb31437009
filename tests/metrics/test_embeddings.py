"""Features of any function, in the range that it takes, and the names of networks that are not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv.metrics import distribution, embeddings, features


def spread(x):
    """A made-up network that takes 0 .. 1: two numbers."""
    return jnp.stack([jnp.mean(x), jnp.mean(x**2)])


def test_rows_are_the_functions_of_each_picture_in_the_range_it_takes():
    pictures = jax.random.uniform(jax.random.key(0), (7, 4, 5, 3), jnp.float64, -1, 1)
    expected = np.stack([spread((x + 1) / 2) for x in pictures])
    for batch in (1, 3, 16):
        found = embeddings.embedding_rows(spread, pictures, (-1, 1), wanted=(0, 1), batch=batch)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    coded = jnp.round((pictures + 1) * 127.5).astype(jnp.uint8)
    np.testing.assert_allclose(embeddings.embedding_rows(spread, coded, (0, 255), (0, 1)), expected, atol=0.004)


def test_distances_take_its_rows():
    """Constant pictures of a Gaussian grey: the Frechet distance of their means is the squared shift."""
    grey = lambda shift: jnp.asarray(shift + np.random.default_rng(0).standard_normal((40, 1, 1, 1)))
    rows = [embeddings.embedding_rows(lambda x: x, grey(shift), (-1, 1)) for shift in (0.0, 0.5)]
    assert distribution.feature_fid(*rows) == pytest.approx(0.25, rel=1e-6)


def test_networks_of_published_numbers_are_refused_with_their_homes():
    for name, home in {
        "inception_v3": "pytorch-fid",
        "clip_vit_l14_336": "huggingface",
        "dinov2_vit_l14": "dinov2",
    }.items():
        with pytest.raises(ValueError, match=f"{name} does not come with this project: .*{home}.*embedding_rows"):
            embeddings.known_network(name)
    with pytest.raises(ValueError, match="efficientnet_lite0 is known"):
        embeddings.known_network("vgg")


def test_the_known_one_is_efficientnets_pooled_features(monkeypatch):
    known = features.EfficientNetFeatures({}, 224)
    monkeypatch.setattr(embeddings, "efficientnet_features", lambda: known)
    found = embeddings.known_network("efficientnet_lite0")
    assert found.__self__ is known and found.__name__ == "pooled"


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda: embeddings.embedding_rows(spread, jnp.zeros((4, 5, 3)), (-1, 1)), r"pictures is \(4, 5, 3\)"),
        (lambda: embeddings.embedding_rows(spread, jnp.zeros((1, 4, 5, 3)), 1), r"data_range is 1; give \(low, high\)"),
        (lambda: embeddings.embedding_rows(spread, jnp.zeros((1, 4, 5, 3), jnp.uint8), (0, 1)), r"give \(0, 255\)"),
    ],
)
def test_what_does_not_fit_is_named(give, words):
    with pytest.raises(ValueError, match=words):
        give()
