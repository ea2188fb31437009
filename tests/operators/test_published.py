"""Set5 and Set14 at x2, x3, x4: bicubic PSNR-Y against the published table, and MATLAB's own low resolution.

Protocol: crop to a multiple of the factor; Y of BT.601 in 16-235; shrink and enlarge by `imresize`; shave `factor`
pixels; peak 255. `_floating` runs on Y and rounds the result; `_eight_bit` rounds RGB after each resize.
Published: the bicubic rows of Lim et al. 2017 (EDSR). Set14's "bridge" is grey and is evaluated as it is.
"""

import functools

import numpy as np
import pytest

import diffinv.operators as ops

PUBLISHED = {
    ("Set5", 2): 33.66,
    ("Set5", 3): 30.39,
    ("Set5", 4): 28.42,
    ("Set14", 2): 30.24,
    ("Set14", 3): 27.55,
    ("Set14", 4): 26.00,
}
TOLERANCE_DB = 0.05


@functools.cache
def _pictures(folder):
    Image = pytest.importorskip("PIL.Image")
    files = sorted(folder.glob("*.png"))
    if not files:
        pytest.skip(f"no PNG files in {folder}; set DIFFINV_SHARED to run this check")
    pictures = {}
    for file in files:
        with Image.open(file) as image:
            picture = np.asarray(image, np.float64)
        pictures[file.stem] = picture.reshape(*picture.shape[:2], -1)
    return pictures


def _luma(picture):
    if picture.shape[2] == 1:
        return picture
    return 16 + picture @ np.array([[65.481], [128.553], [24.966]]) / 255


def _quantised(picture):
    """To 8 bits as MATLAB does, ties upwards."""
    return np.clip(np.floor(picture + 0.5), 0, 255)


def _cropped(picture, factor):
    height, width = (n - n % factor for n in picture.shape[:2])
    return picture[:height, :width]


def _resized(picture, size):
    """`imresize`, in NumPy by its own matrices: no compilation for each size."""
    rows, columns = (ops.resize_matrix(n, m) for n, m in zip(picture.shape[:2], size, strict=True))
    planes = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
    return np.moveaxis(rows @ planes @ np.ascontiguousarray(columns.T), 0, -1)


def _psnr(a, b, shave):
    inside = (slice(shave, -shave),) * 2
    return 10 * np.log10(255**2 / np.mean((a[inside] - b[inside]) ** 2))


def _floating(high, factor):
    y = _luma(high)
    low = _resized(y, (y.shape[0] // factor, y.shape[1] // factor))
    return _psnr(_quantised(_resized(low, y.shape[:2])), y, factor)


def _eight_bit(high, factor):
    low = _quantised(_resized(high, (high.shape[0] // factor, high.shape[1] // factor)))
    return _psnr(_luma(_quantised(_resized(low, high.shape[:2]))), _luma(high), factor)


@pytest.mark.parametrize("name, factor", PUBLISHED)
@pytest.mark.parametrize("protocol", [_floating, pytest.param(_eight_bit, marks=pytest.mark.slow)])
def test_bicubic_psnr_is_the_published_one(shared, name, factor, protocol):
    folder = shared / "data" / "sr" / name / "HR"
    values = [protocol(_cropped(picture, factor), factor) for picture in _pictures(folder).values()]
    mean, published = np.mean(values), PUBLISHED[name, factor]
    print(f"{name} x{factor} {protocol.__name__[1:]}: {mean:.3f} dB, published {published:.2f} dB")
    assert abs(mean - published) < TOLERANCE_DB


def test_low_resolution_is_matlabs(shared):
    """The published x4 pictures, byte for byte: MATLAB resizes 8-bit rows first and rounds between the axes."""
    high = _pictures(shared / "data" / "sr" / "Set5" / "HR")
    low = _pictures(shared / "data" / "sr" / "Set5" / "LR_bicubic_X4")
    for name, picture in high.items():
        height, width = (n // 4 for n in picture.shape[:2])
        rows = _quantised(np.asarray(ops.imresize(_cropped(picture, 4), (height, width * 4))))
        mine = _quantised(np.asarray(ops.imresize(rows, (height, width))))
        np.testing.assert_array_equal(mine, low[f"{name}x4"], err_msg=name)


def test_operator_is_within_a_rounding_of_matlabs(shared):
    """Without the rounding between the axes: the same up to one such rounding, 0.3 grey levels of deviation."""
    high = _pictures(shared / "data" / "sr" / "Set5" / "HR")
    low = _pictures(shared / "data" / "sr" / "Set5" / "LR_bicubic_X4")
    for name in ("butterfly", "woman"):
        picture = _cropped(high[name], 4)
        gap = np.asarray(ops.bicubic(picture.shape, 4)(picture)).clip(0, 255) - low[f"{name}x4"]
        print(f"{name}: deviation {gap.std():.3f}, mean {gap.mean():+.4f} grey levels")
        assert gap.std() < 0.4 and abs(gap.mean()) < 0.02 and np.abs(gap).max() < 2.5
