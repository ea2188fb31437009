"""The parts of DDPM++ and NCSN++ against NumPy and `lax`; whole networks are in tests/convert/test_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from diffinv.nn import layers, song

TINY = {"resolution": 8, "channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}


def test_box_taps_are_means_and_repeats():
    x = jax.random.normal(jax.random.key(0), (4, 6, 3), jnp.float32)
    np.testing.assert_allclose(song.resample_by_taps(x, (1, 1), 0.5), layers.down(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(song.resample_by_taps(x, (1, 1), 2), layers.up(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_wide_taps_are_a_strided_convolution_or_its_transpose(factor):
    x = jax.random.normal(jax.random.key(0), (6, 4, 2), jnp.float32)
    row = np.array([1, 3, 3, 1]) / 8
    kernel = np.outer(row, row)[:, :, None, None].astype(np.float32) * (4 if factor == 2 else 1)
    planes = jnp.moveaxis(x, 2, 0)[..., None]
    options = {"dimension_numbers": layers.NHWC, "precision": "highest"}
    if factor == 2:
        expected = lax.conv_general_dilated(planes, kernel, (1, 1), ((2, 2), (2, 2)), (2, 2), **options)
    else:
        expected = lax.conv_general_dilated(planes, kernel, (2, 2), ((1, 1), (1, 1)), **options)
    found = song.resample_by_taps(x, (1, 3, 3, 1), factor)
    np.testing.assert_allclose(found, jnp.moveaxis(expected[..., 0], 0, 2), rtol=1e-5, atol=1e-6)


def test_filters_keep_a_constant_inside():
    ones = np.ones(16)
    for taps in ((1, 1), (1, 3, 3, 1)):
        border = (len(taps) - 1) // 2
        np.testing.assert_allclose((song.resampling(16, taps, 0.5, border) @ ones)[1:-1], 1, rtol=1e-6)
        np.testing.assert_allclose((song.resampling(16, taps, 2, border) @ ones)[2:-2], 1, rtol=1e-6)


def shapes(**options):
    tree = jax.eval_shape(song.SongUNet(**{**TINY, **options}).init, jax.random.key(0), jnp.zeros((8, 8, 3)), 0.3)
    return {"/".join(path[1:]): leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def test_names_are_those_of_the_state_dict():
    plain, wide = shapes(), shapes(fourier=True, residual=True, noise_channels=2, taps=(1, 3, 3, 1), classes=4)
    assert plain["enc_8x8_conv/kernel"] == (3, 3, 3, 16) and plain["dec_8x8_up/skip/kernel"] == (32, 32)
    assert plain["map_layer0/kernel"] == (16, 64) and "map_label/kernel" not in plain
    assert plain["enc_4x4_block0/qkv/kernel"] == (32, 96) and "enc_8x8_block0/qkv/kernel" not in plain
    assert "dec_4x4_block0/qkv/kernel" not in plain and "dec_4x4_block1/qkv/kernel" in plain
    added = {"map_noise/freqs": (16,), "enc_4x4_aux_residual/kernel": (3, 3, 3, 16), "map_label/kernel": (4, 32)}
    assert {name: wide[name] for name in added} == added and wide["map_layer0/kernel"] == (32, 64)


def test_the_remaining_options_leave_the_parameters_alone():
    assert shapes() == shapes(remat=True, plain_conv=True, dropout=0.1, dtype=jnp.bfloat16)


def test_a_label_without_classes_is_refused():
    with pytest.raises(ValueError, match="for a network without labels"):
        jax.eval_shape(song.SongUNet(**TINY).init, jax.random.key(0), jnp.zeros((8, 8, 3)), 0.3, 3)
