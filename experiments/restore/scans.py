"""Real scans for `experiments.reconstruct`: Cartesian k-space of several coils, read, checked and brought to scale.

The scale is that of the pictures that the prior was trained on, by the energy of k-space's innermost 4 %, which every
mask samples: it becomes what those slices have there on average. So nothing is asked of the scan that was not measured.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffinv import operators
from diffinv.data import Reading, arrays, listing

LEVEL = 0.194  # rms of the slices of configs/brain128.py, which are of 0 to 1, in the innermost 4 % of their k-space
INNERMOST = 0.04
LEAST = 16  # pixels of a side
FEWEST = 4  # lines of the centre, from which coils are estimated
MOST_COILS = 64


class Scan(NamedTuple):
    """A scan as it was read, on the scale of pictures.

    Attributes:
      name: of the file.
      kspace: (coils, H, W) complex64, of the magnitude that is 0 without signal and 2 where it is white.
      sampled: (H, W) bool.
      centre: the side of the fully sampled square in the middle.
      sigma: the noise's deviation in each of both parts.
    """

    name: str
    kspace: np.ndarray
    sampled: np.ndarray
    centre: int
    sigma: float

    @property
    def magnitude(self) -> np.ndarray:
        """The root sum of squares of the coils' pictures, (H, W, 1) float32 in [-1, 1]; the truth of a whole scan."""
        pictures = np.asarray(operators.ifft2c(jnp.asarray(self.kspace)))
        return np.clip(np.linalg.norm(pictures, axis=0) - 1, -1, 1)[..., None].astype(np.float32)

    @property
    def whole(self) -> bool:
        """Whether all of k-space was sampled."""
        return bool(self.sampled.mean() > 0.99)

    @property
    def note(self) -> str:
        """What it is, in one phrase."""
        coils, height, width = self.kspace.shape
        share = "" if self.whole else f", sampled at {self.sampled.mean():.1%}"
        return f"{self.name}: {coils} coils, {height} x {width}{share}, noise of {self.sigma:.3g} measured"


def scans(pattern: str, count: int) -> list[Scan]:
    """At most so many scans of a path or a glob, 0 for all. Raises ValueError, or an OSError, in one line."""
    files = listing.matches(pattern)
    if not files:
        raise FileNotFoundError(f"no file matches {pattern!r}; give --kspace a .npz file or a quoted glob")
    chosen = files[: count or None]
    return [scan(file, name) for file, name in zip(chosen, listing.stems(chosen), strict=True)]


def scan(file: str, name: str) -> Scan:
    """One file. Raises ValueError, or an OSError, where it is no centred k-space (coil, ky, kx)."""
    found = arrays.npz(file, ["kspace"], Reading.bytes, kinds="c")
    if "kspace" not in found:
        held = ", ".join(sorted(arrays.members(file))[:9])
        raise ValueError(f"{file} holds {held or 'nothing'}; a scan is `kspace`, complex (coil, ky, kx)")
    kspace = found["kspace"].astype(np.complex64)
    require_kspace(file, kspace)
    sampled = np.abs(kspace).max(0) > 0
    side = next(n for n in range(min(sampled.shape), -1, -1) if middle(sampled, n, n).all())
    if side < FEWEST:
        raise ValueError(f"{file}: its centre is not sampled, of which coils are estimated; give a scan with one")
    inner = middle(kspace, *(round(INNERMOST * n) for n in sampled.shape))
    gain = 2 * LEVEL / np.sqrt(np.sum(np.abs(inner) ** 2) / sampled.size)
    kspace = np.asarray(gain * kspace, np.complex64)
    return Scan(name, kspace, sampled, side, edge(kspace, sampled))


def require_kspace(file: str, kspace: np.ndarray) -> None:
    """Raises ValueError where it is not finite, has other axes, or is not centred."""
    wanted = f"give (coil, ky, kx) of at most {MOST_COILS} coils and at least {LEAST} x {LEAST} samples"
    if kspace.ndim != 3 or min(kspace.shape[1:], default=0) < LEAST or not 0 < len(kspace) <= MOST_COILS:
        raise ValueError(f"{file}: kspace has shape {kspace.shape}; {wanted}")
    if bad := int(np.sum(~np.isfinite(kspace))):
        raise ValueError(f"{file}: kspace has {bad} values that are not finite; give a sound scan")
    if not kspace.any():
        raise ValueError(f"{file}: kspace is 0 everywhere; give a scan")
    peak = np.unravel_index(np.argmax(np.abs(kspace).sum(0)), kspace.shape[1:])
    if any(abs(place - side // 2) > side / 8 for place, side in zip(peak, kspace.shape[1:])):
        place = f"({peak[0]}, {peak[1]}), not in its middle"
        raise ValueError(f"{file}: kspace is greatest at {place}; apply np.fft.fftshift to ky and kx")


def middle(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central part (..., height, width), about the place of no frequency."""
    top, left = array.shape[-2] // 2 - height // 2, array.shape[-1] // 2 - width // 2
    return array[..., top : top + height, left : left + width]


def edge(kspace: np.ndarray, sampled: np.ndarray) -> float:
    """The deviation of each part of the noise, from the tenth of the samples that lies farthest out.

    The magnitude of noise alone has the median `sigma sqrt(2 log 2)`. Signal that reaches so far adds to it.
    """
    rows, columns = (np.arange(n) / n - 0.5 for n in sampled.shape)
    radius = np.hypot(rows[:, None], columns[None])[sampled]
    values = np.abs(kspace[:, sampled])[:, radius >= np.quantile(radius, 0.9)]
    return float(np.median(values) / np.sqrt(2 * np.log(2)))
