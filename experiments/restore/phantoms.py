"""Generated slices of a head, for a run without a file."""

from __future__ import annotations

import numpy as np


def phantoms(size: tuple[int, int], count: int) -> np.ndarray:
    """Generated slices of a head (count, H, W, 1) in [-1, 1]: skin, brain, ventricles and a spot, by ellipses."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    random = np.random.default_rng(0)

    def drawn() -> np.ndarray:
        x, turn = np.zeros(size), random.uniform(-0.3, 0.3)
        v, u = rows * np.cos(turn) - columns * np.sin(turn), rows * np.sin(turn) + columns * np.cos(turn)
        y0, x0 = random.uniform(-0.4, 0.4, 2)
        parts = [(0, 0, 0.9, 0.7, 0.8), (0, 0, 0.83, 0.63, 0.1), (0, 0, 0.78, 0.58, 0.35), (y0, x0, 0.12, 0.1, 0.6)]
        parts += [(-0.1, side * 0.12, 0.3, 0.07, 0.12) for side in (-1, 1)]
        for top, left, height, width, level in parts:
            x[((v - top) / height) ** 2 + ((u - left) / width) ** 2 < 1] = level
        return 2 * x[..., None] - 1

    return np.stack([drawn() for _ in range(count)]).astype(np.float32)
