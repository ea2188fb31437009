"""Resizing to dynamic sizes against PyTorch's own rules, written out in NumPy, and against PyTorch itself."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffinv import degrade
from diffinv.degrade import resizing

SIZE = (23, 16)
PAIRS = [(16, 16), (16, 23), (16, 4), (16, 5), (9, 13), (7, 3), (1, 5), (2, 1), (16, 15)]


def cubic(d, a=-0.75):
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def oracle(mode, n, m, pitch):
    """(m, n), output by output, as `interpolate`'s kernels do it."""
    weights = np.zeros((m, n))
    for i in range(m):
        u = pitch * (i + 0.5) - 0.5
        if mode == "area":
            first, end = i * n // m, -(-(i + 1) * n // m)
            weights[i, first:end] = 1 / (end - first)
        elif mode == "bilinear":
            u = max(u, 0.0)
            low = min(int(u), n - 1)
            weights[i, low] += 1 - (u - low)
            weights[i, min(low + 1, n - 1)] += u - low
        else:
            for tap in range(int(np.floor(u)) - 1, int(np.floor(u)) + 3):
                weights[i, min(max(tap, 0), n - 1)] += cubic(u - tap)
    return weights


@lru_cache
def batched():
    return jax.jit(jax.vmap(lambda mode, n, m, pitch: resizing.resizing_matrix(mode, n, m, pitch, SIZE)))


def cases():
    """Every mode and pair, at the pitch of a given size and of a given scale."""
    found = [(k, n, m, n / m) for k in range(3) for n, m in PAIRS]
    scales = [(16, 1.37), (16, 0.31), (11, 0.77), (16, 1.0)]
    return found + [(k, n, int(n * scale), 1 / scale) for k in range(3) for n, scale in scales]


def test_matrices_are_those_rules_whatever_the_canvas():
    every = cases()
    for (mode, n, m, pitch), found in zip(every, batched()(*map(jnp.asarray, zip(*every)))):
        expected = np.zeros(SIZE)
        expected[:m, :n] = oracle(resizing.MODES[mode], n, m, pitch)
        expected[m:] = expected[m - 1]
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=f"{resizing.MODES[mode]} {n} {m} {pitch}")


def test_sums_are_one_and_the_same_size_is_the_identity():
    every = cases()
    found = np.asarray(batched()(*map(jnp.asarray, zip(*every))))
    np.testing.assert_allclose(found.sum(2), 1, atol=1e-12)
    kept = [i for i, (_, n, m, _) in enumerate(every) if n == m == 16]
    assert len(kept) == 6
    for i in kept:
        np.testing.assert_allclose(found[i][:16], np.eye(16), atol=1e-14)


@jax.jit
def handled(canvas, size):
    """Extended, reflected and resized."""
    new, pitch = jnp.array([4, 6]), size.astype(float) / jnp.array([4.0, 6.0])
    wide, mirrored = resizing.extended(canvas, size, (9, 13)), resizing.reflected(canvas, size, 3)
    return wide, mirrored, resizing.resized(canvas, size, new, pitch, 2, (4, 6))


def test_what_lies_beyond_the_picture_is_not_read():
    generator = np.random.default_rng(0)
    picture = generator.standard_normal((7, 5, 2))
    canvas = generator.standard_normal((10, 12, 2)) * 1e6
    canvas[:7, :5] = picture
    wide, mirrored, small = handled(canvas, jnp.array([7, 5]))
    np.testing.assert_array_equal(wide, np.pad(picture, ((0, 2), (0, 8), (0, 0)), "edge"))
    np.testing.assert_array_equal(mirrored[:13, :11], np.pad(picture, ((3, 3), (3, 3), (0, 0)), "reflect"))
    rows, columns = oracle("bicubic", 7, 4, 7 / 4), oracle("bicubic", 5, 6, 5 / 6)
    np.testing.assert_allclose(small, np.einsum("ih,hwc,jw->ijc", rows, picture, columns), atol=1e-12)
    one = np.asarray(handled(canvas, jnp.array([1, 1]))[1])
    assert (one[:7, :7] == picture[0, 0]).all()


@pytest.mark.torch
@pytest.mark.parametrize("mode", resizing.MODES)
def test_parity_with_torch(mode):
    torch = pytest.importorskip("torch")
    interpolate, resize = torch.nn.functional.interpolate, jax.jit(degrade.interpolate, static_argnums=(1, 2))
    x = np.random.default_rng(1).standard_normal((16, 11, 3))
    channels_first = torch.from_numpy(x).permute(2, 0, 1)[None]
    for size in [(9, 30), (4, 4)]:
        expected = interpolate(channels_first, size=size, mode=mode)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(resize(x, size, mode), expected, atol=1e-12)
    for scale in (1.37, 0.31):
        expected = interpolate(channels_first, scale_factor=scale, mode=mode)[0].permute(1, 2, 0).numpy()
        rows, columns = (
            batched()(jnp.array([resizing.MODES.index(mode)]), jnp.array([n]), jnp.array([m]), jnp.array([1 / scale]))[
                0
            ]
            for n, m in zip((16, 11), expected.shape[:2])
        )
        found = np.einsum("ih,hwc,jw->ijc", rows[: expected.shape[0], :16], x, columns[: expected.shape[1], :11])
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="mode is 'lanczos'; it must be one of 'area', 'bilinear', 'bicubic'"):
        degrade.interpolate(np.zeros((4, 4, 3)), (8, 8), "lanczos")
    with pytest.raises(ValueError, match=r"size is \(0, 8\)"):
        degrade.interpolate(np.zeros((4, 4, 3)), (0, 8))
    with pytest.raises(ValueError, match=r"image is uint8\[4,4,3\]; give floats"):
        degrade.interpolate(np.zeros((4, 4, 3), np.uint8), (8, 8))
