"""The osmosis command as a user starts it: a shadow goes, and what it says to bad input."""

import os
import sys

import forking
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def start(*arguments):
    command = [sys.executable, "-m", "experiments.osmosis", *map(str, arguments)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return forking.run(command, env)


@pytest.fixture
def files(tmp_path):
    """A flat wall with a shadow on its right half, the shadow's border, and a picture of another size."""
    wall = np.full((24, 32, 3), 200, np.uint8)
    wall[::4, ::4] = 150
    wall[:, 16:] = wall[:, 16:] * 0.4
    border = np.zeros_like(wall)
    border[:, 15:17] = 255
    for name, array in {"wall": wall, "border": border, "small": wall[:8, :8], "black": 0 * wall}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    return tmp_path


def test_a_shadow_is_removed(files):
    done = start(files / "wall.png", f"--mask={files / 'border.png'}", f"--out={files / 'out'}")
    assert done.returncode == 0, done.stderr
    result = np.asarray(Image.open(files / "out" / "result.png"), np.float64)
    assert abs(result[:, 18:].mean() / result[:, :14].mean() - 1) < 0.02
    assert result[:, 18:].std() > 0.5 * result[:, :14].std() > 0
    assert np.asarray(Image.open(files / "out" / "strip.png")).shape == (24, 96, 3)


def test_a_mask_on_a_transparent_ground_is_the_same_mask(files):
    """Whatever colour lies under the transparent pixels."""
    border = np.asarray(Image.open(files / "border.png"))
    clear = np.dstack([np.full_like(border, 255), border[..., 0]])
    Image.fromarray(clear).save(files / "clear.png")
    for mask in ("border", "clear"):
        done = start(files / "wall.png", f"--mask={files / mask}.png", f"--out={files / mask}")
        assert done.returncode == 0, done.stderr
    results = [np.asarray(Image.open(files / mask / "result.png")) for mask in ("border", "clear")]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (
            ["wall.png", "--mask=border.png", "--max_pixels=100"],
            "wall.png: 32 x 24 pixels are more than the limit of 100",
        ),
        (["wall.png", "--guide=wall.png", "--offset=nan"], "--offset"),
        (["wall.png"], "neither --guide nor --mask"),
        (["wall.png", "--guide=small.png"], "8 x 8, the image 24 x 32; resize"),
        (["black.png", "--guide=wall.png", "--offset=0"], "osmosis needs positive images: add an offset above 0"),
        (["wall.png", "--mask=black.png"], "black everywhere"),
    ],
)
def test_bad_input_is_one_line(files, arguments, word):
    fill = [
        argument.replace("=", f"={files}/") if ".png" in argument and "=" in argument else argument
        for argument in arguments
    ]
    done = start(files / fill[0], *fill[1:])
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(lines) == 1 and word in lines[0] and "Traceback" not in done.stderr, done.stderr
