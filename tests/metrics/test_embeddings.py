"""Features of any function, in the range that it takes, and the names of networks that are not here."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxwrite
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


@pytest.fixture
def as_networks_compute():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def as_published(name, x):
    """A picture in [-1, 1] as the authors' code gives it to the network, (H, W, 3), where it is not resized."""
    unit = (np.asarray(x, float) + 1) / 2
    mean, deviation = {
        "inception_v3": (0.5, 0.5),
        "clip_vit_l14_336": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        "dinov2_vit_l14": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[name]
    return (unit - np.asarray(mean)) / np.asarray(deviation)


@pytest.mark.parametrize(
    ("name", "shape", "width"),
    [
        ("inception_v3", (1, 3, 6, 6), 2048),
        ("clip_vit_l14_336", ("n", 3, 6, 6), 768),
        ("dinov2_vit_l14", (1, 6, 6, 3), 1024),
    ],
)
def test_a_published_network_takes_values_and_channels_as_its_authors_give_them(
    name, shape, width, tmp_path, as_networks_compute
):
    """At the size of the file's input nothing is resized, and NumPy knows the row."""
    (tmp_path / "net.onnx").write_bytes(onnxwrite.embedder(width, shape))
    found = embeddings.known_network(name, tmp_path / "net.onnx")
    x = np.random.default_rng(0).uniform(-1, 1, (6, 6, 3)).astype(np.float32)
    given = as_published(name, x)
    params = {key: np.asarray(value, float) for key, value in found.params.items()}
    both = np.concatenate([given.mean((0, 1)), (given**2).mean((0, 1))])
    np.testing.assert_allclose(found(x), np.tanh(params["k"] @ both + params["b"]), atol=2e-5)
    grey = found(jnp.asarray(x[..., :1]))
    np.testing.assert_allclose(grey, found(jnp.asarray(np.repeat(x[..., :1], 3, -1))), rtol=1e-6)
    row = jax.jit(lambda network, x: network(x))(found, x)
    np.testing.assert_allclose(row, found(x), atol=1e-5)


def test_a_free_size_is_the_published_one_and_torchs_bilinear_has_no_antialiasing(tmp_path, as_networks_compute):
    """Twice as large each new number is 3/4 of one and 1/4 of the other; a quarter as large, the mean of two alone."""
    (tmp_path / "net.onnx").write_bytes(onnxwrite.embedder(2048))
    found = embeddings.PREPARATIONS["inception_v3"]
    assert embeddings.known_network("inception_v3", tmp_path / "net.onnx").sides == (299, 299)
    known = lambda size: embeddings.known_network("inception_v3", tmp_path / "net.onnx", size=size)
    line = np.broadcast_to(np.asarray([0.0, 1, 0, 0])[None, :, None] * 2 - 1, (4, 4, 3)).astype(np.float32)
    wide = known(8).taken(line)
    assert wide.shape == (1, 3, 8, 8)
    np.testing.assert_allclose((wide[0, 1, 3] + 1) / 2, [0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose((known(2).taken(line)[0, 1, 0] + 1) / 2, [0.5, 0], atol=1e-6)
    first = np.broadcast_to((np.arange(8) == 0)[None, :, None] * 2.0 - 1, (8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(known(2).taken(first)[0, 1, 0], [-1, -1], "of eight the second and third alone")
    assert known(2).replace(preparation=found._replace(antialias=True)).taken(first)[0, 1, 0, 0] > -0.9


def test_a_file_of_another_network_is_named_with_what_it_takes_and_gives(tmp_path, as_networks_compute):
    path = tmp_path / "net.onnx"
    for shape, width, changes, words in [
        ((1, 3, 6, 6), 1000, {}, r"gives both \(1, 6\), row \(1, 1000\); wanted is one output of 2048 features"),
        ((1, 3, 6, 6), 2048, {"output": "pool"}, "features of a picture as 'pool'"),
        ((4, 3, 6, 6), 2048, {}, r"takes in \(4, 3, 6, 6\); export it for one picture at once"),
        ((1, 1, 6, 6), 2048, {}, "export it for pictures of 3 channels"),
    ]:
        path.write_bytes(onnxwrite.embedder(width, shape))
        with pytest.raises(ValueError, match=words):
            embeddings.known_network("inception_v3", path, **changes)
    path.write_bytes(onnxwrite.embedder(6, (1, 3, 6, 6)))
    how = embeddings.PREPARATIONS["inception_v3"]._replace(width=6)
    with pytest.raises(ValueError, match="name its output"):
        embeddings.onnx_embedding(path, how)
    assert embeddings.onnx_embedding(path, how._replace(output="row")).place == 1
    with pytest.raises(FileNotFoundError, match="none.onnx is no file; give dinov2_vit_l14 as ONNX.*facebookresearch"):
        embeddings.known_network("dinov2_vit_l14", tmp_path / "none.onnx")


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
