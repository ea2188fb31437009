"""RandAugment's operations: closed forms, what no strength leaves alone, and how operations are drawn."""

import numpy as np
import pytest

from diffinv.data import to_pixels, to_unit
from experiments.augmenting import randaugment
from experiments.augmenting.randaugment import OPERATIONS

PLAIN = ("autocontrast", "equalize")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def picture(rng, channels=3, shape=(9, 12)):
    return to_unit(rng.integers(60, 180, (*shape, channels)).astype(np.uint8))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_gives_a_picture_in_range(rng, name, channels):
    x = picture(rng, channels)
    for s in (-1.0, -0.3, 0.0, 0.9):
        found = OPERATIONS[name](x, s)
        assert found.shape == x.shape and abs(found).max() <= 1 + 1e-6
        if s == 0 and name not in PLAIN:
            np.testing.assert_allclose(found, x, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("identity", *PLAIN)])
def test_the_stronger_the_farther(rng, name):
    """On noise over a ramp, of whose colours solarize at half strength turns a part."""
    rows, columns = np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.3, 0.3, 12), indexing="ij")
    x = ((rows + columns)[..., None] * [1, 0.5, 0.8] + 0.2 * picture(rng)).astype(np.float32)
    far = [np.abs(OPERATIONS[name](x, s) - x).mean() for s in (0.5, 1.0)]
    assert 0 < far[0] < far[1]


def test_the_set_is_the_source_s():
    assert len(OPERATIONS) == 14 and OPERATIONS["identity"](3.0, 1.0) == 3.0


def test_a_quarter_turn_is_exact(rng):
    """Rows before columns: what stands at centre + v comes from centre + matrix v."""
    x = picture(rng, shape=(9, 9))
    np.testing.assert_allclose(randaugment.affine(x, [[0, 1], [-1, 0]]), np.rot90(x), atol=1e-6)


def test_moves_by_whole_pixels_are_exact(rng):
    """Of 331 pixels at a strength of 1/150, one pixel; the border is continued."""
    x = picture(rng, shape=(331, 331), channels=1)
    right, down = (OPERATIONS[f"translate {axis}"](x, 1 / 150) for axis in "xy")
    np.testing.assert_allclose(right, np.concatenate([x[:, :1], x[:, :-1]], 1), atol=1e-5)
    np.testing.assert_allclose(down, np.concatenate([x[:1], x[:-1]]), atol=1e-5)


def test_shears_move_rows_by_what_they_are_off_the_middle(rng):
    """At 1/0.3 a row that lies k below the middle comes from k to the right, where that is inside."""
    x = picture(rng, shape=(5, 11))
    found, other = OPERATIONS["shear x"](x, 1 / 0.3), OPERATIONS["shear y"](x.swapaxes(0, 1), 1 / 0.3)
    for row, k in enumerate((-2, -1, 0, 1, 2)):
        np.testing.assert_allclose(found[row, 2:-2], x[row, 2 + k : 9 + k], atol=1e-5)
    np.testing.assert_allclose(other.swapaxes(0, 1), found, atol=1e-6)


def test_rotation_is_by_30_degrees_at_most():
    """The horizontal ramp becomes cos 30 and ± sin 30 of both, inside."""
    y, x = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21), indexing="ij")
    found = OPERATIONS["rotate"](x[..., None], 1.0)[..., 0]
    np.testing.assert_allclose(found[8:13, 8:13], (x * np.sqrt(0.75) + y / 2)[8:13, 8:13], atol=1e-6)


def test_colours_in_closed_form(rng):
    """Of 8 bits: solarize turns what is above 256 (1 - s), posterize keeps 8 - 4 s bits, brightness times 1 + 0.9 s."""
    x = picture(rng)
    p = to_pixels(x).astype(int)
    by = lambda name, s: to_pixels(OPERATIONS[name](x, s)).astype(int)
    np.testing.assert_array_equal(by("solarize", -0.5), np.where(p < 128, p, 255 - p))
    np.testing.assert_array_equal(by("posterize", 0.75), p & 0b11111000)
    assert abs(by("brightness", 0.4) - np.minimum(1.36 * p, 255)).max() <= 1
    grey = by("color", -1 / 0.9)
    assert (grey == grey[..., :1]).all()
    stretched = by("autocontrast", 1.0)
    assert (stretched.min((0, 1)) == 0).all() and (stretched.max((0, 1)) >= 254).all()


def test_operations_are_drawn_alike_often(rng, monkeypatch):
    """Of 14,000 draws each of 14 has 1,000 ± 4 times 30.5; and strengths of both signs."""
    told = {name: [] for name in OPERATIONS}
    noting = lambda name: lambda x, s: told[name].append(s) or x
    monkeypatch.setattr(randaugment, "OPERATIONS", {name: noting(name) for name in told})
    for _ in range(7000):
        randaugment.rand_augment(rng, np.zeros((2, 2, 1), np.float32))
    assert all(abs(len(each) - 1000) < 122 and set(each) == {-0.9, 0.9} for each in told.values())


def test_of_no_operations_nothing_comes(rng):
    x = picture(rng)
    np.testing.assert_array_equal(randaugment.rand_augment(rng, x, 0), x)


@pytest.mark.parametrize(
    ("x", "magnitude", "words"),
    [
        (np.zeros((4, 4, 2)), 9, r"x is \(4, 4, 2\); RandAugment takes grey pictures or colours"),
        (np.zeros((4, 4)), 9, r"x is \(4, 4\)"),
        (np.zeros((4, 4, 1)), 11, "magnitude is 11; give a number from 0 to 10"),
    ],
)
def test_refusals(rng, x, magnitude, words):
    with pytest.raises(ValueError, match=words):
        randaugment.rand_augment(rng, x, magnitude=magnitude)
