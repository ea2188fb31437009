"""What `di.show` draws: every kind of sample and measurement, one example or several."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import diffinv as di

show = importlib.import_module("diffinv.display")


def measured(x, y=None):
    return di.Measurement(di.operators.identity(x.shape), x if y is None else y, di.GaussianNoise(0.1))


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 2), (8, 6, 3), (8, 6, 4), (7,), (3, 2, 5, 2)])
def test_any_sample_is_drawn(shape):
    x = jnp.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    sheet = di.show(di.Solution(x, None), measured(x), x)
    assert sheet.mode == "RGB" and sheet.width > 3 * show.SIDE * 0.6 and np.ptp(np.asarray(sheet)) > 200


def test_examples_are_rows_and_counts_must_agree():
    x = jnp.zeros((3, 8, 8, 3), jnp.float32)
    one, three = di.show(x[0]), di.show(x)
    assert three.width == one.width and three.height > 2.5 * one.height
    many = di.Measurement(di.operators.identity((8, 8, 3)), x, di.GaussianNoise(jnp.full(3, 0.1)))
    assert di.show(x, many, x).height == three.height
    with pytest.raises(ValueError, match="examples are .*'truth': 2, 'solution': 3"):
        di.show(x, truth=x[:2])


def test_pixels():
    grey = np.linspace(-1, 1, 6).reshape(2, 3)
    np.testing.assert_array_equal(show.pixels(grey)[..., 0], np.round((grey + 1) * 127.5))
    assert show.pixels(grey * 1.2)[0, 0, 0] == 0 and show.pixels(100 * grey).max() == 255
    assert show.pixels(grey + 1j).max() == show.pixels(np.stack([grey, grey], -1)).max() == 255
    assert show.pixels(np.zeros(5)) is None and show.pixels(np.zeros((2, 2, 5))) is None
    bad = np.zeros((2, 2))
    bad[0, 0], bad[1, 1] = np.nan, np.inf
    assert (show.pixels(bad)[[0, 1], [0, 1]] == show.RED).all() and (show.pixels(bad)[0, 1] == 128).all()


def test_captions_say_how_good():
    x, truth = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.2)
    assert show._words(x, truth, np.full((2, 2), 2.0)) == "PSNR 20.00 dB   |y - A x| 4"
    assert show._words(x, None, None) == "2 x 2 x 3"


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="[Pp]illow"):
        di.show(np.zeros((4, 4)))
