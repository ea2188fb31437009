"""The encoders of text and picture: of length 1, blind to what is no word, not to the words' order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv.nn.words import PictureEncoder, TextEncoder, unit_length


def encoded(net, *given):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = jax.jit(net.init)(jax.random.key(0), given[0])
        return [net.apply(variables, each) for each in given]


def test_a_text_is_a_unit_vector_that_padding_does_not_change():
    short, long, other = encoded(
        TextEncoder(9, 16), *(jnp.asarray(row, jnp.int32) for row in ([3, 7], [3, 7, 0, 0, 0], [7, 3, 0]))
    )
    assert short.shape == (16,) and float(jnp.linalg.norm(short)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert float(jnp.max(jnp.abs(short - other))) > 1e-2  # the order of the words counts


def test_a_text_without_a_word_is_finite():
    (none,) = encoded(TextEncoder(9, 16), jnp.zeros(4, jnp.int32))
    assert jnp.isfinite(none).all()


@pytest.mark.parametrize("side, channels", [(4, 1), (16, 1), (64, 3)])
def test_a_picture_is_a_unit_vector(side, channels):
    x = jax.random.normal(jax.random.key(1), (side, side, channels), jnp.float32)
    one, other = encoded(PictureEncoder(4, 8), x, -x)
    assert one.shape == (8,) and float(jnp.linalg.norm(one)) == pytest.approx(1, abs=1e-5)
    assert float(jnp.max(jnp.abs(one - other))) > 1e-3


def test_unit_length_of_nothing_is_nothing():
    assert unit_length(jnp.zeros(3)).tolist() == [0, 0, 0]
    np.testing.assert_allclose(unit_length(jnp.asarray([3.0, 4.0])), [0.6, 0.8], atol=1e-6)
